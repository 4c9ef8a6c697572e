"""Trained detectors, as the research on boxes runs them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.build import fingerprint, trunk_sha256
from landseer.export.detectors import DETECTORS
from landseer.export.detectors import SEED as UNTRAINED_SEED
from landseer.export.models.detector import Detection
from landseer.export.models.rpn import RegionProposals, first_boxes
from landseer.export.models.state_dicts import fill
from landseer.export.models.torch_file import WeightsError
from landseer.export.models.trained import read_proposals
from landseer.export.models.trunk import Loaded
from landseer.ops.research.small_things import ATTENTION, TRUE, WHOLE, WINDOWS, Finder, Places, Seen

RPN = "rpn"
KINDS = tuple(kind for kind in DETECTORS if kind != "attention")


@dataclass(frozen=True, kw_only=True)
class DetectorSpec:
    """A detector of the command line."""

    name: str
    """In the report."""
    kind: str
    weights: Path | None
    """None: seeded weights."""


def detector_spec(text: str) -> DetectorSpec:
    """Read NAME=KIND[:FILE]. argparse's error says what was expected."""
    name, _, rest = text.partition("=")
    kind, _, file = rest.partition(":")
    if name in ("", WHOLE, ATTENTION, WINDOWS, TRUE) or kind not in KINDS:
        raise argparse.ArgumentTypeError(
            f"got {text!r}; expected NAME=KIND:FILE with a new NAME and KIND one of {', '.join(KINDS)}, such as "
            "covers=rpn:runs/rpn/best.safetensors"
        )
    return DetectorSpec(name=name, kind=kind, weights=Path(file) if file else None)


def finder(spec: DetectorSpec, loaded: Loaded) -> Finder:
    """Load a detector. WeightsError if the file is of another one, or its proposals of another trunk."""
    if spec.kind == RPN:
        return _of_maps(_proposals(spec.weights, loaded), loaded)
    if spec.weights is None:
        raise WeightsError(f"{spec.name}: a {spec.kind} without weights finds nothing; name its file, KIND:FILE")
    module = DETECTORS[spec.kind](loaded.trunk, spec.weights, Sizes(channels=loaded.trunk.channels)).module

    def places(seen: Seen) -> Places:
        detection: Detection = module(torch.from_numpy(seen.whole.pixels.copy())[None])
        return seen.places(detection)

    return Finder(places=places, fingerprint=fingerprint(module, spec.kind))


def _proposals(weights: Path | None, loaded: Loaded) -> RegionProposals:
    channels = loaded.trunk.channels
    if weights is None:
        return RegionProposals.untrained(channels, seed=UNTRAINED_SEED).eval()
    module = RegionProposals(channels).eval()
    fill(module, read_proposals(weights, trunk_sha256(loaded))[0], weights)
    return module


def _of_maps(proposals: RegionProposals, loaded: Loaded) -> Finder:
    """Return a finder that proposes from the maps that the picture is described by."""
    sizes = Sizes(channels=loaded.trunk.channels)

    def places(seen: Seen) -> Places:
        return seen.places(first_boxes(proposals(seen.level.last, seen.size()), sizes))

    return Finder(places=places, fingerprint=fingerprint(proposals, RPN))
