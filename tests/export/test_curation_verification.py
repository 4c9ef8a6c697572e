from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from planted import plant, save, texture, things
from shared_files import reference

from landseer.export.curation.errors import CurationError, UnreadablePicture
from landseer.export.curation.features import Features, extract
from landseer.export.curation.settings import MatchSettings
from landseer.export.curation.verification import _affine, plausible, tentative, verify


def seen(pixels, path, **kind):
    return extract(save(pixels, path / f"{len(list(path.iterdir()))}.png"), MatchSettings(**kind))


def made(points, descriptors=None, size=(400, 300)):
    points = np.asarray(points, np.float32)
    some = np.random.default_rng(0).integers(0, 200, (len(points), 128)) if descriptors is None else descriptors
    return Features(points=points, descriptors=np.asarray(some, np.uint8), width=size[0], height=size[1])


def test_a_planted_thing_is_found_where_it_lies(tmp_path):
    rng = np.random.default_rng(0)
    for thing in things()[:3]:
        planted = plant(thing, rng)
        match = verify(seen(thing, tmp_path), seen(planted.pixels, tmp_path), MatchSettings())
        assert match is not None
        assert match.inliers == len(match.first) == len(match.second) >= 12
        corners = np.array([[0, 0, 1], [180, 0, 1], [180, 180, 1], [0, 180, 1]])
        np.testing.assert_allclose(corners @ match.transform.T, corners @ planted.transform.T, atol=4)


def test_different_things_do_not_match(tmp_path):
    known = [seen(thing, tmp_path) for thing in things()] + [seen(texture(np.random.default_rng(1)), tmp_path)]
    assert not any(verify(a, b, MatchSettings()) for a in known for b in known if a is not b)


def test_a_mirrored_thing_does_not_match(tmp_path):
    thing = things()[0]
    mirrored = np.ascontiguousarray(thing[:, ::-1])
    assert verify(seen(thing, tmp_path), seen(mirrored, tmp_path), MatchSettings(inliers=8)) is None


def test_a_turned_file_is_seen_as_people_see_it(tmp_path):
    pixels = things()[2]
    upright = seen(pixels, tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(pixels)).save(tmp_path / "turned.png", exif=exif)
    turned = extract(tmp_path / "turned.png", MatchSettings())
    np.testing.assert_array_equal(turned.points, upright.points)


def test_large_pictures_are_reduced_and_small_ones_left(tmp_path):
    large = seen(np.asarray(Image.fromarray(things()[0]).resize((900, 600))), tmp_path, side=300)
    assert (large.width, large.height) == (300, 200)
    assert large.points.max() <= 300
    small = seen(things()[0], tmp_path)
    assert (small.width, small.height) == (180, 180)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n then nothing"])
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnreadablePicture, match=r"a\.png"):
        extract(tmp_path / "a.png", MatchSettings())


def test_a_truncated_file_is_named(tmp_path):
    Image.fromarray(things()[0]).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:3000])
    with pytest.raises(UnreadablePicture, match=r"a\.jpg"):
        extract(tmp_path / "a.jpg", MatchSettings())


def test_nothing_to_see_is_no_match(tmp_path):
    grey = seen(np.full((60, 80, 3), 128, np.uint8), tmp_path)
    assert grey.points.shape == (0, 2)
    assert grey.descriptors.shape == (0, 128)
    full = seen(things()[0], tmp_path)
    for pair in ((grey, grey), (grey, full), (full, grey)):
        assert verify(*pair, MatchSettings()) is None


def test_a_place_counts_once():
    """Keypoints of one place with several directions must not vote several times."""
    points = np.repeat(np.random.default_rng(0).uniform(10, 290, (6, 2)), 4, axis=0)
    one = made(points)
    found, near = tentative(one, one, 0.8)
    assert len(found) == 6
    np.testing.assert_array_equal(found, near)
    assert verify(one, one, MatchSettings()) is None


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 40), spread=st.sampled_from([0.0, 1e-3, 1.0, 200.0]))
def test_any_points_are_survived_and_repeatable(seed, count, spread):
    rng = np.random.default_rng(seed)
    known = rng.integers(0, 200, (count, 128))
    first = made(rng.uniform(0, 1, (count, 2)) * spread, known)
    second = made(np.column_stack([np.arange(count), np.zeros(count)]), known)
    found = verify(first, second, MatchSettings(inliers=4))
    again = verify(first, second, MatchSettings(inliers=4))
    assert (found is None) == (again is None)
    if found is not None and again is not None:
        np.testing.assert_array_equal(found.transform, again.transform)
        np.testing.assert_array_equal(found.first, again.first)


@pytest.mark.parametrize(
    ("transform", "fits"),
    [
        ([[1, 0, 5], [0, 1, 9]], True),
        ([[0, -2, 0], [2, 0, 0]], True),
        ([[-1, 0, 0], [0, 1, 0]], False),
        ([[8, 0, 0], [0, 8, 0]], False),
        ([[0.1, 0, 0], [0, 0.1, 0]], False),
        ([[2, 0, 0], [0, 0.4, 0]], False),
        ([[1, 1, 0], [1, 1, 0]], False),
        ([[np.nan, 0, 0], [0, 1, 0]], False),
    ],
)
def test_what_no_view_does_is_refused(transform, fits):
    assert plausible(np.array(transform, float)) is fits


@pytest.mark.parametrize("case", [0, 1, 3])
def test_inliers_agree_with_another_verification(case):
    """Affine RANSAC of D2R's reference code on its own descriptors; 10 pixels. Its draws may differ by one."""
    arrays = reference("geometric_verification_delf.npz")
    known = {name: arrays[f"c{case}_{name}"] for name in ("q_xy", "q_des", "db_xy", "db_des")}
    apart = np.linalg.norm(known["q_des"][:, None] - known["db_des"][None], axis=2)
    nearest = apart.argmin(axis=1)
    first, second = known["q_xy"].astype(np.float32), known["db_xy"][nearest].astype(np.float32)
    _, agree = _affine(first, second, MatchSettings(pixels=10))
    assert abs(int(agree.sum()) - int(arrays[f"c{case}_planted_inliers"])) <= 1


@pytest.mark.parametrize(
    "kind", [{"side": 8}, {"keypoints": 1}, {"ratio": 0.0}, {"pixels": 0.0}, {"inliers": 3}, {"trials": 0}]
)
def test_settings_that_cannot_be_are_refused(kind):
    [(name, value)] = kind.items()
    with pytest.raises(CurationError, match=f"cannot match with {name} = {value}; expected"):
        MatchSettings(**kind)
