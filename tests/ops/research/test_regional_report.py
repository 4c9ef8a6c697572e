"""The report on local features, from arrays that the cache holds: no models run."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.export.models.backbone import LOCAL_SCALES, SCALE_UNIT
from landseer.export.models.cluster import Clustering
from landseer.export.models.pooling import Projection, masked_gem
from landseer.export.parts import Parts, write_parts
from landseer.ops.evaluate.arrays import kept_as
from landseer.ops.evaluate.cache import vector_cache
from landseer.ops.evaluate.cached_arrays import CachedPictureArrays
from landseer.ops.evaluate.coattention import TorchCoattention
from landseer.ops.evaluate.dataset import Shot
from landseer.ops.evaluate.regions import Boxes
from landseer.ops.research import regional, writing
from landseer.ops.research.varied_coattention import Numbers, ReducedArrays, VariedArrays, unreduced

C, P, D, N = 8, 4, 16, 12
SIZES = Sizes(channels=C, reduced=P, clusters=10, locals=N, local=D)
PROFILE = Profile(backbone="b", weights_sha256="", sizes=SIZES, locals_sha256="abc")
REDUCTION = Projection.untrained(C, P, seed=0)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def described(seed, label):
    """The arrays of a picture, alike to the others of its label."""
    draws, common = np.random.default_rng(seed), np.random.default_rng(label)
    features = np.abs(common.normal(size=(N, C)) + 0.3 * draws.normal(size=(N, C))).astype(np.float16)
    norms = np.linalg.norm(features.astype(np.float32), axis=1)
    order = np.argsort(-norms)
    return {
        "descriptor": unit(common.normal(size=C) + draws.normal(size=C)).astype(np.float32),
        "query_vector": unit(common.normal(size=P) + draws.normal(size=P)).astype(np.float32),
        "clusters": unit(common.normal(size=(10, P)) + draws.normal(size=(10, P))).astype(np.float16),
        # By the attention that they hold, not by their scores; the third is not described.
        "boxes": np.array([[0, 0, 4, 4, 0.2], [2, 2, 4, 4, 0.8], [1, 1, 2, 2, 0.9]], np.float32),
        "local_features": features[order],
        "local_norms": norms[order].astype(np.float32),
        "local_scales": (draws.choice(LOCAL_SCALES, N) / SCALE_UNIT).astype(np.float32),
        "local_positions": draws.uniform(0, 8, (N, 2)).astype(np.float32),
        "local_descriptors": unit(common.normal(size=(N, D)) + 0.3 * draws.normal(size=(N, D))).astype(np.float16),
    }


@pytest.fixture
def options(tmp_path, monkeypatch):
    """Two data sets of three classes of four pictures, all of them and their regions described."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "manifest.json").write_text(json.dumps({"profile": json.loads(PROFILE.to_json())}))
    cache = tmp_path / "cache.sqlite"
    for first, name in enumerate(("learn", "test")):
        for number in range(12):
            path = tmp_path / name / str(number // 4) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (20 * number, 100 * first, 0)).save(path)
            arrays = described(100 * first + number, 10 * first + number // 4)
            keep(cache, Shot(path=path), arrays)
            for region in Boxes().shots(path, arrays["boxes"]):
                keep(cache, region, arrays)
    monkeypatch.setattr(CachedPictureArrays, "coattention", lambda self: TorchCoattention(PROFILE))
    monkeypatch.setattr(regional, "reduction_of", lambda repository, profile: REDUCTION)
    monkeypatch.setattr(CachedPictureArrays, "_reduction", REDUCTION)
    given = ["--test", f"folder:{tmp_path / 'test'}", "--train", f"folder:{tmp_path / 'learn'}", "--words", "2", "4"]
    return [*given, "--repository", str(tmp_path / "models"), "--cache", str(cache), "--out", str(tmp_path / "out.md")]


def keep(path, shot, arrays):
    with vector_cache(path, PROFILE.fingerprint) as cache:
        cache.put(
            cache.key(shot, shot.path.read_bytes()), {kept_as(name, PROFILE): one for name, one in arrays.items()}
        )


def test_the_report_has_every_table(options, tmp_path, capsys):
    assert regional.main(options) == 0
    text = (tmp_path / "out.md").read_text()
    assert text.count("\n## ") == 5
    assert writing.DEVELOPMENT in text and text.count("| over queries | against | mAP gained | over queries |") == 5
    for name in ("co-attention alone", "naive co-attention", "K 1, alone", "N 100, weight 0.5", "T 20, alone"):
        assert f"| {name} |" in text
    assert re.search(r"\| scale 1 \(\d+ of the features\), alone \|", text)
    # Without regions R-ASMK* is ASMK* but for the norm; a threshold above all scores leaves none.
    assert re.search(r"R-ASMK\*, scores from 0.1 \(2.0 regions\)", text)
    assert re.search(r"R-ASMK\*, scores from 0.5 \(1.0 regions\)", text)
    assert "share a word with the query" in text
    assert "weight on the training data: 0.1" in " ".join(capsys.readouterr().err.split())


def test_a_report_of_some_sections_has_no_others(options, tmp_path):
    assert regional.main([*options, "--sections", "words", "--no-development"]) == 0
    text = (tmp_path / "out.md").read_text()
    assert writing.DEVELOPMENT not in text
    assert text.count("\n## ") == 1 and "## Words" in text and "share a word with the query" in text
    assert regional.main([*options, "--sections", "verification"]) == 0
    text = (tmp_path / "out.md").read_text()
    assert text.count("\n## ") == 1 and "## Spatial" in text and "share a word" not in text


def test_without_regions_their_rows_are_left_out(options, tmp_path):
    assert regional.main([*options, "--regions", "0"]) == 0
    text = (tmp_path / "out.md").read_text()
    assert "Regions: none." in text and "| R-ASMK* without regions, 2 words |" in text
    assert "of all regions as one" not in text and "scores from" not in text
    assert "| settings of a search |" in text


def held(path, **sections):
    """Write parts that hold some sections."""
    tensors = {f"{name}.{key}": x for name, one in sections.items() for key, x in one.state_dict().items()}
    write_parts(Parts(backbone="b", trunk_sha256="", descriptor="gem", learned=(), tensors=tensors), path)
    return ["--reduction", str(path)]


def row(text, name):
    """The cells of a row."""
    [line] = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_other_reductions_are_compared_with_the_exported_one(options, tmp_path):
    mine = held(tmp_path / "mine.safetensors", reduction=REDUCTION)
    other = held(tmp_path / "other.safetensors", reduction=Projection.untrained(C, P, seed=9))
    named = ["--reduction", f"by another={other[1]}"]
    assert regional.main([*options, "--sections", "reduction", "numbers", *mine, *named]) == 0
    text = (tmp_path / "out.md").read_text()
    assert text.count("\n## ") == 2
    for name in ("as exported", "random rows", "mine.safetensors", "by another"):
        for kind in ("co-attention alone", "co-attention, weight 0.5", "query vectors, then co-attention"):
            assert len(row(text, f"{kind}: {name}")) == 10
    # It is the exported one, but for its half precision, which the other numbers start from, too.
    first = float(row(text, "K 10, N 500, T 10, weight 0.5")[0].split()[0])
    for name in ("as exported", "mine.safetensors"):
        assert float(row(text, f"co-attention, weight 0.5: {name}")[0].split()[0]) == pytest.approx(first, abs=0.5)
    assert row(text, "co-attention, weight 0.5: as exported")[2] == "none"
    assert row(text, "co-attention, weight 0.5: by another")[2] == "co-attention, weight 0.5: as exported"
    assert row(text, "query vectors, then co-attention: by another")[2] == "query vectors: by another"


def test_several_sets_without_training_data(options, tmp_path, capsys):
    train = options.index("--train")
    both = [*options[:train], "--test", options[train + 1], *options[train + 2 :]]
    assert regional.main([*both, "--sections", "reduction", "numbers"]) == 0
    text = (tmp_path / "out.md").read_text()
    assert text.count("## Co-attention by its reduction: folder:") == 2
    assert text.count("- Test data: folder:") == 2 and "Training data" not in text
    assert regional.main(both) == 1
    assert "the sections coattention, words, verification need --train SPEC" in capsys.readouterr().err


def test_reduced_arrays_are_those_of_the_graphs():
    for own in ([0, 1], [None, 1]):
        pooled = unreduced(Side(), PROFILE, own)
        reduced = ReducedArrays(Side(), PROFILE, REDUCTION, pooled)
        graphs = VariedArrays(Side(), PROFILE, REDUCTION, Numbers(features=N))
        for name in ("query_vector", "clusters"):
            for one, other in zip(reduced.of_references(name), graphs.of_references(name), strict=True):
                np.testing.assert_allclose(one, other, atol=2e-3)
        pairs = zip(reduced.of_queries("query_vector"), graphs.of_queries("query_vector"), strict=True)
        for one, other in pairs:
            np.testing.assert_allclose(one, other, atol=1e-6)
        assert [len(one) for one in reduced.of_queries("local_norms")] == [N, N]


def test_parts_without_a_reduction_that_fits_are_refused_before_all_else(options, tmp_path, capsys):
    other = Projection.untrained(C + 1, P, seed=0)
    for given, told in (
        (["--reduction", str(tmp_path / "none.safetensors")], "none.safetensors"),
        (held(tmp_path / "locals.safetensors", locals=REDUCTION), "locals.safetensors has no reduction"),
        (held(tmp_path / "other.safetensors", reduction=other), "from 9 to 4 values; expected 8 to 4"),
    ):
        assert regional.main([*options, *given]) == 1
        error = capsys.readouterr().err
        assert told in error and "training data" not in error


def test_photographs_in_both_sets_are_refused(options, capsys):
    options[options.index("--train") + 1] = options[options.index("--test") + 1]
    assert regional.main(options) == 1
    assert "are also searched" in capsys.readouterr().err


class Side:
    """Two pictures."""

    pictures = (described(1, 0), described(2, 1))

    def of_queries(self, name):
        return (picture[name] for picture in self.pictures)

    of_references = of_queries


def test_varied_by_the_papers_numbers_is_what_the_graphs_compute():
    side = VariedArrays(Side(), PROFILE, REDUCTION, Numbers(features=N))
    module = Clustering(sizes=SIZES, reduction=REDUCTION)
    assert np.array_equal(list(side.of_references("query_vector")), list(side.of_queries("query_vector")))
    pairs = zip(side.of_queries("query_vector"), side.of_references("clusters"), Side.pictures, strict=True)
    for query, clusters, picture in pairs:
        features = torch.from_numpy(picture["local_features"].astype(np.float32))[None]
        with torch.inference_mode():
            expected = REDUCTION(masked_gem(features, torch.ones(1, N)))[0]
            norms, count = torch.from_numpy(picture["local_norms"])[None], torch.tensor([[N]], dtype=torch.int32)
            found = module(features, count, norms)
        np.testing.assert_allclose(query, expected, atol=1e-6)
        np.testing.assert_array_equal(clusters, found.clusters[0, : int(found.cluster_count)])


def test_fewer_features_and_clusters_change_the_vectors():
    few = VariedArrays(Side(), PROFILE, REDUCTION, Numbers(features=3, clusters=2))
    assert [len(one) for one in few.of_references("clusters")] == [2, 2]
    whole = VariedArrays(Side(), PROFILE, REDUCTION, Numbers(features=N))
    pairs = zip(few.of_queries("query_vector"), whole.of_queries("query_vector"), strict=True)
    assert all(not np.allclose(one, other) for one, other in pairs)


def test_features_of_other_scales_are_left_out():
    kept = (1.0, LOCAL_SCALES[2] / SCALE_UNIT)
    some = VariedArrays(Side(), PROFILE, REDUCTION, Numbers(features=N, scales=kept))
    for query, picture in zip(some.of_queries("query_vector"), Side.pictures, strict=True):
        rows = [
            row for row, scale in enumerate(picture["local_scales"]) if min(abs(scale - one) for one in kept) < 1e-3
        ]
        features = torch.from_numpy(picture["local_features"][rows].astype(np.float32))[None]
        with torch.inference_mode():
            expected = REDUCTION(masked_gem(features, torch.ones(1, len(rows))))[0]
        np.testing.assert_allclose(query, expected, atol=1e-6)
    counts = [np.isclose(picture["local_scales"][:, None], kept).any(axis=1).sum() for picture in Side.pictures]
    assert 0 < some.features_each() == np.mean(counts) < N
    none = VariedArrays(Side(), PROFILE, REDUCTION, Numbers(features=N, scales=(7.0,)))
    assert [len(one) for one in none.of_references("clusters")] == [1, 1]
