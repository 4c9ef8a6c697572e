"""`landseer stats`: show the size, models and limits of the index."""

from __future__ import annotations

import argparse

from landseer.client.commands import connection
from landseer.client.commands.output import as_dict, cell, console, print_json, table, warn
from landseer.client.readable import plural, size
from landseer.v1.index_pb2 import (
    IndexedFieldStats,
    KeypointsStats,
    LocalFeaturesStats,
    SearchedVectors,
    StatsResponse,
    VisualWordsStats,
)

_JSON = """\
  The fields of landseer.v1.StatsResponse (client/proto/landseer/v1/index.proto):
  {"pictures": 24, "sequence": 30, "store_bytes": 409600, "descriptor_size": 1280,
   "backbone": "efficientnet_lite0_instance", "model_versions": [{"name": "backbone", "version": "1"}], ...}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `landseer stats`."""
    connection.add_arguments(parser, json_help=_JSON)


def run(args: argparse.Namespace) -> int:
    """Print the figures."""
    stats = connection.call(args, lambda client: client.stats())
    if args.json:
        print_json(as_dict(stats))
        return 0
    made = table(("", "left"), ("", "left"))
    made.show_header = False
    for name, value in _rows(stats).items():
        made.add_row(cell(name, "dim"), cell(value))
    console().print(made)
    if stats.searched_vectors.not_augmented:
        added = plural(stats.searched_vectors.not_augmented, "picture")
        warn(f"{added} added since the augmentation, searched by their own descriptors")
    # An untrained lattqe shapes no answer unless a request allows it.
    if untrained := [part for part in stats.untrained if part != "lattqe"]:
        warn(f"models with random, untrained weights: {', '.join(untrained)}")
    return 0


def _rows(stats: StatsResponse) -> dict[str, str]:
    limit = f" of {size(stats.store_limit_bytes)}" if stats.store_limit_bytes else ""
    changed = stats.last_change.ToDatetime().strftime("%Y-%m-%d %H:%M:%S UTC") if stats.HasField("last_change") else ""
    return {
        "pictures": f"{stats.pictures:,}",
        "changes": f"{stats.sequence:,}",
        "last change": changed or "never",
        "store": f"{size(stats.store_bytes)}{limit}",
        "index engine": stats.index_engine,
        "vectors searched": _searched(stats.searched_vectors),
        "local features": _local(stats.local_features),
        "keypoints": _keypoints(stats.keypoints),
        "visual words": _words(stats.visual_words),
        "indexed fields": ", ".join(map(_field, stats.indexed_fields)) or "none",
        "backbone": f"{stats.backbone}, {stats.descriptor_size} values, pictures at {stats.long_side} px",
        "models": ", ".join(f"{model.name} {model.version}" for model in stats.model_versions) or "none",
        "picture limit": f"{size(stats.max_image_bytes)}, {stats.max_image_pixels / 1e6:,.1f} megapixels",
        "hit limit": f"{stats.max_top_k:,}",
    }


def _searched(vectors: SearchedVectors) -> str:
    if not vectors.augmentation:
        return "raw descriptors"
    network = f", network {vectors.network[:12]}" if vectors.network else ""
    since = f"; since then {vectors.not_augmented:,} added, {vectors.removed:,} deleted"
    changed = vectors.not_augmented or vectors.removed
    return f"augmented by {vectors.augmentation}{network}, after change {vectors.sequence:,}{since if changed else ''}"


def _local(features: LocalFeaturesStats) -> str:
    there = f"{features.pictures:,} pictures have them, {size(features.bytes)}" if features.pictures else ""
    if features.kept:
        regions = f", with up to {plural(features.regions, 'region')}" if features.regions else ""
        return f"stored{regions}; {there or 'no picture has them yet'}"
    return f"not stored{f'; {there}' if there else ''}"


def _keypoints(keypoints: KeypointsStats) -> str:
    found = f"of {keypoints.pictures:,} pictures, {size(keypoints.bytes)}"
    return found if keypoints.kept else f"{found if keypoints.pictures else 'none'}, not kept for new ones"


def _field(field: IndexedFieldStats) -> str:
    return f"{field.name} ({field.kind}) of {plural(field.pictures, 'picture')}, {size(field.bytes)} of memory"


def _words(words: VisualWordsStats) -> str:
    if not words.codebook:
        return "none"
    found = f"{words.pictures:,} pictures in {size(words.bytes)} of memory"
    return f"{words.words:,} of codebook {words.codebook}, {words.kernel}; {found}"
