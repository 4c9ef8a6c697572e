from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from landseer.ensemble.asmk.bits import hamming, lanes
from landseer.ensemble.asmk.scan import append, count, lead, scan

WORDS, PICTURES = 9, 40


def lists(seed=0, lanes=2):
    """Return postings of random pictures: offsets, slots and codes."""
    generator = np.random.default_rng(seed)
    there = generator.random((WORDS, PICTURES)) < 0.4
    words, slots = np.nonzero(there)
    offsets = np.searchsorted(words, np.arange(WORDS + 1)).astype(np.uint32)
    codes = generator.integers(0, 2**64, (len(slots), lanes), np.uint64)
    return offsets, slots.astype(np.uint16), codes, words


@pytest.mark.parametrize("many", [0, 1, 2, 3, 32])
def test_a_scan_adds_the_worth_of_each_match(many):
    offsets, slots, codes, words = lists(lanes=many)
    generator = np.random.default_rng(1)
    asked, chosen = generator.integers(0, 2**64, (3, many), np.uint64), np.array([7, 0, 4])
    matches, weights, totals = generator.random(64 * many + 1), generator.random(3), np.zeros(PICTURES)
    expected = np.zeros(PICTURES)
    for row, word in enumerate(chosen):
        [places] = np.nonzero(words == word)
        apart = hamming(codes[places].T, np.repeat(asked[row, :, None], len(places), axis=1)) if many else 0
        expected[slots[places]] += matches[apart] * weights[row]
    scan(many)((offsets, slots, codes), (chosen, asked, weights), matches, totals)
    np.testing.assert_allclose(totals, expected, rtol=1e-12)


def test_a_scan_tells_untouched_pictures_from_those_with_worthless_matches():
    offsets, slots = np.array([0, 1], np.uint32), np.array([1], np.uint16)
    totals, code = np.full(2, -0.0), lanes(np.zeros((1, 8), np.uint8)).T
    scan(1)((offsets, slots, code), (np.array([0]), code, np.zeros(1)), np.full(65, -1.0), totals)
    assert np.signbit(totals).tolist() == [True, False]


@pytest.mark.parametrize("values", [5, 10**9])
@pytest.mark.parametrize(("pictures", "k"), [(0, 0), (1, 1), (64, 0), (50, 50), (200, 2), (5000, 90), (32768, 100)])
def test_the_best_and_all_that_tie_with_the_last_of_them_lead(pictures, k, values):
    generator = np.random.default_rng(pictures + k)
    totals = generator.integers(-values // 4, values, pictures).astype(np.float64)
    untouched, allowed = generator.random(pictures) < 0.2, generator.random(pictures) < 0.9
    totals[untouched] = -0.0
    root, roots = 1.7, 1.0 + generator.random(pictures)
    scores, there = totals / (root * roots), np.flatnonzero(allowed & ~untouched)
    # What no match adds to is not there; a total of 0 is.
    totals[there[::7]] = scores[there[::7]] = 0.0
    found = np.empty(pictures, np.int64)
    leading = found[: lead()(totals, allowed, (root, roots), np.empty(k), found)]
    least = np.sort(scores[there])[-k] if 0 < k <= len(there) else -np.inf
    expected = there[scores[there] >= least] if k else []
    assert leading.tolist() == list(expected)
    assert totals[leading].tolist() == scores[leading].tolist()


def test_lists_are_appended_without_removed_pictures():
    offsets, slots, codes, words = lists()
    alive = np.arange(PICTURES) % 3 > 0
    renamed = np.where(alive, np.cumsum(alive) + 99, -1).astype(np.int32)
    counts, kept = np.empty(WORDS, np.int64), alive[slots]
    count()((offsets, slots, codes), alive, counts)
    np.testing.assert_array_equal(counts, np.bincount(words[kept], minlength=WORDS))
    ends = (np.cumsum(counts) - counts).astype(np.uint32)
    new_slots, new_codes = np.empty(kept.sum(), np.uint16), np.empty((kept.sum(), 2), np.uint64)
    append()((offsets, slots, codes), renamed, ends, (new_slots, new_codes))
    np.testing.assert_array_equal(new_slots, renamed[slots[kept]])
    np.testing.assert_array_equal(new_codes, codes[kept])
    np.testing.assert_array_equal(ends, np.cumsum(counts))


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("place", ["a file", "nowhere"])
def test_it_runs_where_machine_code_cannot_be_kept(tmp_path, place):
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "cache"
    if place == "a file":
        settings = f"numba.config.CACHE_DIR = {str(folder)!r}"
    else:
        settings = "numba.core.caching.CacheImpl._locator_classes = []"
    code = f"""
import numba, numba.core.caching
{settings}
from landseer.ensemble.asmk.scan import prepare
prepare(2)
print("compiled")
"""
    ran = python(code)
    assert ran.stdout == "compiled\n", ran.stderr


def test_machine_code_is_kept_for_the_next_process(tmp_path):
    code = """
from landseer.ensemble.asmk.scan import scan
print(sum(scan(2).stats.cache_hits.values()))
"""
    hits = [python(code, NUMBA_CACHE_DIR=str(tmp_path)).stdout for _ in range(2)]
    assert hits == ["0\n", "1\n"]


def test_neither_the_client_nor_the_index_loads_numba_before_it_is_used():
    code = """
import sys
import landseer.client.cli, landseer.ensemble.index.collection
assert "numba" not in sys.modules
print("light")
"""
    ran = python(code)
    assert ran.stdout == "light\n", ran.stderr
