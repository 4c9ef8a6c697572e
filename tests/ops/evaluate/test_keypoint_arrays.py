"""Keypoints as an evaluation caches them."""

from __future__ import annotations

import numpy as np
from fake_triton import PROFILE
from prints import cover

from landseer.ensemble.keypoints.compact import pack_keypoints
from landseer.ensemble.keypoints.extractor import frame_of, query_keypoints
from landseer.ensemble.keypoints.rootsift import QUERY_SIDE, SIDE, extract
from landseer.ensemble.pictures.pictures import Prepared, Region
from landseer.ops.evaluate.arrays import kept_as
from landseer.ops.evaluate.keypoint_arrays import KEYPOINTS, OF_QUERY, keypoint_arrays, quantiser, query_of

PIXELS = cover(1, (640, 480))
PREPARED = Prepared(pixels=PIXELS, width=640, height=480, region=Region(x=0, y=0, width=640, height=480), thumbnail=b"")


def test_a_query_is_looked_at_as_finely_as_by_a_service_and_a_reference_as_when_it_is_indexed():
    found = keypoint_arrays({KEYPOINTS, *OF_QUERY}, {}, PREPARED)
    assert set(found) == {KEYPOINTS, *OF_QUERY}
    assert found[KEYPOINTS].tobytes() == pack_keypoints(quantiser().compact(extract(PIXELS), frame_of(PIXELS)))
    wanted, query = query_keypoints(quantiser(), PIXELS), query_of(*(found[name] for name in OF_QUERY))
    np.testing.assert_array_equal(query.words, wanted.words)
    np.testing.assert_array_equal(query.codes, wanted.codes)
    assert pack_keypoints(query.keypoints) == pack_keypoints(wanted.keypoints)


def test_keypoints_of_another_size_are_other_arrays_of_the_cache():
    names = {kept_as(name, PROFILE) for name in (KEYPOINTS, *OF_QUERY)}
    assert len(names) == 1 + len(OF_QUERY)
    assert kept_as(KEYPOINTS, PROFILE).endswith(f"{SIDE} px")
    assert all(kept_as(name, PROFILE).endswith(f"{QUERY_SIDE} px") for name in OF_QUERY)
