import argparse
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.export.build import trunk_sha256
from landseer.export.models.landmark_detectors import ssdlite
from landseer.export.models.rpn import RegionProposals
from landseer.export.models.torch_file import WeightsError
from landseer.export.models.trunk import Loaded, Trunk
from landseer.export.photographs import photographs
from landseer.ops.evaluate.head_variants import variants
from landseer.ops.evaluate.readers import read
from landseer.ops.research import boxes, small_things
from landseer.ops.research.box_finders import DetectorSpec, detector_spec, finder
from landseer.ops.research.boxes import RegionVectors, best, judged, mean, overlaps, reading, table, together
from landseer.ops.research.small_things import (
    TRUE,
    WHOLE,
    BoxNetworks,
    Finder,
    Scene,
    Seen,
    SourceRegions,
    as_they_are,
    found,
    laid,
    made_small,
)

CHANNELS = 8
PROFILE = Profile(backbone="small", weights_sha256="", sizes=Sizes(channels=CHANNELS), long_side=128)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photographs")
    paths = []
    for i, pixels in enumerate(photographs(side=160)):
        paths.append(folder / f"{i}.png")
        Image.fromarray(pixels[: 160 - 10 * i]).save(paths[-1])
    return paths


def trunk_of() -> Trunk:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        features = nn.Sequential(nn.Conv2d(3, CHANNELS, 32, stride=32), nn.ReLU())
    return Trunk(features=features, classifier=nn.Identity(), channels=CHANNELS, mean=(127.0,) * 3, std=(60.0,) * 3)


def networks(calls: list[int] | None = None) -> BoxNetworks:
    made = trunk_of()

    def on_trunk(pixels: np.ndarray) -> list[np.ndarray]:
        if calls is not None:
            calls.append(1)
        with torch.no_grad():
            return [made(torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).float()).half().numpy()] * 2

    return BoxNetworks(run=on_trunk, trunk="t", variant=next(iter(variants(CHANNELS, []))), profile=PROFILE)


def decoded(scene: Scene) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(scene.data)), np.float32)


@pytest.mark.parametrize("seed", range(8))
def test_a_photograph_is_laid_small_inside_the_frame(files: list[Path], seed: int) -> None:
    scene = laid(files[1], files[5], np.random.default_rng(seed))
    place, picture = scene.place, decoded(scene)
    assert place is not None
    height, width = picture.shape[:2]
    assert max(height, width) == small_things.FRAME
    assert 0 <= place.x <= width - place.width and 0 <= place.y <= height - place.height
    low, high = (share * min(height, width) for share in small_things.SHARE)
    assert low - 1 <= max(place.width, place.height) <= high + 1
    # What is there is the photograph, and everything else is the background as it would be without it.
    thing = Image.open(files[1]).resize((int(place.width), int(place.height)), Image.Resampling.BICUBIC)
    inside = (slice(int(place.y), int(place.y + place.height)), slice(int(place.x), int(place.x + place.width)))
    np.testing.assert_array_equal(picture[inside], np.asarray(thing))
    behind = np.asarray(Image.open(files[5]).convert("RGB").resize((width, height), Image.Resampling.BICUBIC))
    outside = np.ones((height, width), bool)
    outside[inside] = False
    np.testing.assert_array_equal(picture[outside], behind[outside])


def test_small_pictures_are_the_same_by_seed(files: list[Path]) -> None:
    one, again, other = (made_small(files[:3], files[3:], seed=seed) for seed in (1, 1, 2))
    assert [entry.name for entry in one] == [entry.name for entry in again]
    assert all(a.scene() == b.scene() for a, b in zip(one, again, strict=True))
    assert {entry.name for entry in one}.isdisjoint(entry.name for entry in other)


def test_a_box_is_described_as_its_crop_would_be(files: list[Path]) -> None:
    scene = laid(files[0], files[4], np.random.default_rng(0))
    place = small_things.true_place(Seen(scene, networks()))[0]
    x, y, width, height = map(int, place)
    file = io.BytesIO()
    Image.open(io.BytesIO(scene.data)).crop((x, y, x + width, y + height)).save(file, "PNG")
    alone = Seen(Scene(data=file.getvalue(), place=None), networks())
    with torch.inference_mode():
        np.testing.assert_allclose(Seen(scene, networks()).vector(place), alone.whole_vector(), atol=1e-6)


def test_regions_are_described_once_and_each_source_on_its_own(files: list[Path], tmp_path: Path) -> None:
    calls: list[int] = []
    [entry] = made_small(files[:1], files[3:], seed=0)
    whole, attention = found(entry, [WHOLE, "attention"], networks(calls), tmp_path)
    assert len(calls) == 1 + len(attention.places) > 1
    more = found(entry, [WHOLE, "attention", TRUE], networks(calls), tmp_path)
    assert len(calls) == 1 + len(attention.places) + 1
    np.testing.assert_array_equal(more[1].vectors, attention.vectors)
    np.testing.assert_array_equal(more[2].places, more[0].truth)
    for one in more:
        assert one.vectors.shape == (len(one.places), CHANNELS)
        np.testing.assert_allclose(np.linalg.norm(one.vectors, axis=1), 1, atol=1e-3)
    assert len(attention.places) <= small_things.BEST
    assert (attention.places[:, :2] >= 0).all()
    assert (attention.places[:, :2] + attention.places[:, 2:] <= whole.places[0, 2:] + 1e-3).all()


def small_trunk() -> Loaded:
    return Loaded(trunk=trunk_of(), source="random", variant="t")


def proposals_file(path: Path, seed: int, trunk: str) -> Path:
    """Write proposals as `landseer train rpn` does."""
    about = {"landseer": json.dumps({"epoch": 1, "trunk_sha256": trunk})}
    state = RegionProposals.untrained(CHANNELS, seed=seed).state_dict()
    save_file({f"rpn.{k}": v for k, v in state.items()}, path, metadata=about)
    return path


def test_other_proposals_are_described_anew(files: list[Path], tmp_path: Path) -> None:
    calls: list[int] = []
    [entry], loaded = as_they_are(files[:1]), small_trunk()
    counts = []
    for seed in (0, 1, 1):
        path = proposals_file(tmp_path / f"{seed}.safetensors", seed, trunk_sha256(loaded))
        rpn = finder(DetectorSpec(name="rpn", kind="rpn", weights=path), loaded)
        [one] = found(entry, ["rpn"], dataclasses.replace(networks(calls), detectors={"rpn": rpn}), tmp_path)
        assert 1 <= len(one.places) <= small_things.BEST
        counts.append(len(calls))
    assert counts[0] < counts[1] == counts[2]


def test_a_detector_of_pixels_finds_boxes_in_the_whole_picture(files: list[Path], tmp_path: Path) -> None:
    loaded, path = small_trunk(), tmp_path / "best.pth"
    torch.save(ssdlite(None, seed=0, sizes=PROFILE.sizes).network.state_dict(), path)
    ssd = finder(DetectorSpec(name="ssd", kind="ssdlite", weights=path), loaded)
    seen = Seen(Scene(data=files[0].read_bytes(), place=None), networks())
    with torch.inference_mode():
        places = ssd.places(seen)
    assert 1 <= len(places) <= small_things.BEST
    assert (places[:, :2] + places[:, 2:] <= (seen.whole.width + 1e-3, seen.whole.height + 1e-3)).all()


def test_windows_cover_the_picture(files: list[Path]) -> None:
    seen = Seen(Scene(data=files[1].read_bytes(), place=None), networks())
    places = small_things.windows(seen)
    covered = np.zeros((seen.whole.height, seen.whole.width), bool)
    for x, y, width, height in places.round().astype(int):
        covered[y : y + height, x : x + width] = True
    assert len(places) == small_things.BEST and covered.all()


def test_soft_edges_leave_the_middle_and_change_nothing_outside(files: list[Path]) -> None:
    hard, soft = (laid(files[1], files[5], np.random.default_rng(0), feather) for feather in (0.0, 3.0))
    place, before, after = hard.place, decoded(hard), decoded(soft)
    assert place is not None and place == soft.place
    x, y, right, bottom = (int(v) for v in (place.x, place.y, place.x + place.width, place.y + place.height))
    inside = (slice(y + 16, bottom - 16), slice(x + 16, right - 16))
    np.testing.assert_allclose(after[inside], before[inside], atol=2)
    behind = laid(files[1], files[5], np.random.default_rng(0), 1e3)
    edge = np.abs(after[y, x:right] - decoded(behind)[y, x:right]).mean()
    assert edge < np.abs(before[y, x:right] - decoded(behind)[y, x:right]).mean()


@pytest.mark.parametrize("text", ["rpn", "a=vgg:b", "=rpn:b", "attention=rpn:b", "whole picture=rpn"])
def test_detectors_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected NAME=KIND:FILE with a new NAME and KIND one of rpn"):
        detector_spec(text)


def test_detectors_are_read_by_name_kind_and_file() -> None:
    assert detector_spec("mine=ssdlite:a/b.pth") == DetectorSpec(name="mine", kind="ssdlite", weights=Path("a/b.pth"))
    assert detector_spec("none=rpn").weights is None
    with pytest.raises(WeightsError, match="a ssdlite without weights finds nothing; name its file, KIND:FILE"):
        finder(detector_spec("none=ssdlite"), small_trunk())


def test_poolings_are_those_of_a_slow_reference() -> None:
    draw = np.random.default_rng(0)
    queries = draw.normal(size=(5, CHANNELS)).astype(np.float32)
    pictures = [draw.normal(size=(int(n), CHANNELS)).astype(np.float32) for n in (1, 3, 2, 5, 1)]
    regions = together([[SourceRegions(places=p[:, :4], vectors=p, truth=p[:0, :4]) for p in pictures]])
    np.testing.assert_array_equal(regions.counts, [1, 3, 2, 5, 1])
    for pooled, slow in ((best, np.max), (mean, np.mean)):
        wanted = [[slow(picture @ query) for picture in pictures] for query in queries]
        np.testing.assert_allclose(pooled(queries, regions), wanted, rtol=1e-5, atol=1e-6)


def test_more_regions_never_make_the_best_one_worse() -> None:
    draw = np.random.default_rng(1)
    one, more = (draw.normal(size=(4, CHANNELS)).astype(np.float32) for _ in range(2))
    query = draw.normal(size=(2, CHANNELS)).astype(np.float32)
    alone = RegionVectors(vectors=one, starts=np.arange(4))
    both = RegionVectors(vectors=np.stack([one, more], axis=1).reshape(8, CHANNELS), starts=np.arange(0, 8, 2))
    assert (best(query, both) >= best(query, alone)).all()


def test_overlaps_by_hand() -> None:
    a = np.array([[0, 0, 10, 10], [20, 20, 5, 5]], np.float32)
    b = np.array([[5, 0, 10, 10], [20, 20, 5, 5], [0, 0, 0, 0]], np.float32)
    np.testing.assert_allclose(overlaps(a, b), [[50 / 150, 0, 0], [0, 1, 0]], atol=1e-6)
    assert overlaps(a[:0], b).shape == (0, 3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of two, and three others to lie behind."""
    folder = tmp_path_factory.mktemp("data")
    for i, pixels in enumerate(photographs(side=120)):
        for name, part in ((f"behind/{i % 3}/{i}.png", pixels[60:]), (f"test/{i % 3}/{i}.png", pixels[:60])):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(part).save(folder / name)
    return folder


def described(vectors: np.ndarray, *, at: list[float], truth: list[float] | None = None) -> list[SourceRegions]:
    places = np.array([at], np.float32)
    known = np.array([truth] if truth else np.empty((0, 4)), np.float32).reshape(-1, 4)
    return [SourceRegions(places=places, vectors=one[None], truth=known) for one in vectors]


def test_boxes_that_show_the_thing_help_and_those_that_show_all_do_not(data: Path) -> None:
    test = read(f"folder:{data / 'test'}")
    labels = [int(path.parent.name) for path in test.references]
    kinds = np.eye(3, CHANNELS, dtype=np.float32)[labels]
    noise = np.eye(6, CHANNELS, dtype=np.float32)[::-1] * 0.5
    frame, place = [0.0, 0.0, 100.0, 100.0], [10.0, 10.0, 30.0, 30.0]
    wholes = described(noise, at=frame, truth=place)
    known = {WHOLE: wholes, "attention": wholes, TRUE: described(kinds, at=place, truth=place)}
    database = judged("Made small", known, kinds, test)
    by_key = {(row.source, row.pooling): row for row in database.rows}
    assert by_key[TRUE, "best region"].figures.map == 1.0
    assert by_key["attention", "best region"].figures.map == database.rows[0].figures.map < 1.0
    assert [row.vectors for row in database.rows] == [1, 2, 2, 2, 2]
    # Three classes are too few to judge by.
    assert "with attention it **cannot be judged**, +0.0 (too few classes) mAP" in reading(database)
    rows = [dataclasses.replace(row, classes=np.arange(6)) for row in database.rows]
    six = dataclasses.replace(database, rows=rows)
    assert "with attention it **fails**: no significant difference" in reading(six)
    assert f"with {TRUE} it **holds**" in reading(six)
    assert "the first is the whole picture (IoU 0.9 or more) in 100.0%" in table(database)
    assert "the photograph is found (IoU 0.5 or more) by the first in 0.0%, by any in 0.0%" in table(database)


def command(data: Path, out: Path, *more: str) -> list[str]:
    given = {"--test": f"folder:{data / 'test'}", "--backgrounds": f"folder:{data / 'behind'}", "--parts": "p"}
    given |= {"--out": str(out / "report.md"), "--folder": str(out)}
    return [word for pair in given.items() for word in pair] + list(more)


def test_the_command_writes_what_was_measured(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        small_things, "load_networks", lambda *given: dataclasses.replace(networks(), detectors=given[3])
    )
    monkeypatch.setattr(
        boxes, "finder", lambda spec, loaded: Finder(places=small_things.windows, fingerprint=spec.name)
    )
    assert boxes.main(command(data, tmp_path, "--detector", "mine=rpn:best.safetensors", "--feather", "2")) == 0
    report = (tmp_path / "report.md").read_text()
    assert "6 photographs. 6 of them, as they are, are the" in report
    assert "## Photographs as they are" in report and "## Photographs made small" in report
    assert report.count(f"| whole picture + {TRUE} |") == 2
    for source in ("attention", "windows", "mine"):
        assert report.count(f"| whole picture + {source} |") == 4
    assert "- *mine*: rpn, best.safetensors." in report and "its edges blurred by 2 pixels" in report
    assert report.strip() in capsys.readouterr().out


def test_what_cannot_be_judged_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = command(data, tmp_path, "--backgrounds", f"folder:{data / 'test'}")
    assert boxes.main(own) == 1
    assert "6 photographs are in both sets" in capsys.readouterr().err
    assert boxes.main(command(data, tmp_path, "--pictures", "1")) == 1
    assert "draw more" in capsys.readouterr().err
    assert boxes.main(command(data, tmp_path, "--parts", str(tmp_path / "none"))) == 1
    assert "no trained parts at" in capsys.readouterr().err


def test_proposals_of_another_trunk_are_refused(tmp_path: Path) -> None:
    loaded = small_trunk()
    spec = DetectorSpec(name="rpn", kind="rpn", weights=tmp_path / "best.safetensors")
    assert spec.weights is not None
    proposals_file(spec.weights, 0, "other")
    with pytest.raises(WeightsError, match="trunk"):
        finder(spec, loaded)
    save_file({"rpn.conv.weight": torch.zeros(1)}, spec.weights)
    with pytest.raises(WeightsError, match="does not fit RegionProposals"):
        finder(spec, loaded)
    spec.weights.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=str(spec.weights)):
        finder(spec, loaded)
