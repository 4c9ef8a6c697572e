"""The loop that finds the maps that many matches agree with. Importing this module loads numba.

One for all of it: between two loops, threads wait for Python's lock.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from landseer.ensemble.verify.affine import FEWEST

LOOKED_AT = 40
"""Proposals looked at, best first."""
TURN = 0.77
"""Least cosine of the angle between a match and the map that it fits: 40 degrees."""
WHOLE = 720_720
"""What a match counts that shares its features with no other. 1 to 16 divide it, so thirds add up, in any order."""


def _count(rows: Any, chosen: Any, features: Any) -> Any:
    """Return in how many of the chosen matches each of the features is."""
    counts = np.zeros(features, np.int64)
    for place in chosen:
        counts[rows[place]] += 1
    return counts


def _nearest(bits: Any, most: Any) -> Any:
    """Return the places of the matches with the fewest differing bits, in their order."""
    return np.arange(len(bits)) if len(bits) <= most else np.sort(np.argsort(bits, kind="mergesort")[:most])


def _look_up(matches: Any, chosen: Any, here: Any, there: Any) -> Any:
    """Return the chosen matches with their points, sizes and turns, as of `proposals.Proposals`."""
    count = len(chosen)
    considered, points = np.empty((3, count), np.int64), np.empty((4, count))
    sizes, turns = np.empty(count), np.empty((2, count))
    for place in range(count):
        row, other = matches[0][chosen[place]], matches[1][chosen[place]]
        considered[0, place], considered[1, place], considered[2, place] = row, other, matches[2][chosen[place]]
        points[0, place], points[1, place] = here[0][row, 0], here[0][row, 1]
        points[2, place], points[3, place] = there[0][other, 0], there[0][other, 1]
        sizes[place] = np.float64(there[1][other]) / np.float64(here[1][row])
        angle = np.float64(there[2][other]) - np.float64(here[2][row])
        turns[0, place], turns[1, place] = np.cos(angle), np.sin(angle)
    return considered, points, sizes, turns


def _agree(geometry: Any, shares: Any, errors: Any) -> Any:
    """Return which matches agree with the map of each, [k, k], and the sum of their shares, [k].

    Without a branch, so that the processor compares several at once: 27 us for 300 matches instead of 180, 65 with AVX2
    alone.
    """
    points, sizes, turns = geometry
    x, y, u, v = points[0], points[1], points[2], points[3]
    cosines, sines = turns[0], turns[1]
    limit, larger = errors[0] * errors[0], errors[1]
    count = len(sizes)
    agree, scores = np.empty((count, count), np.bool_), np.empty(count, np.int64)
    for row in range(count):
        size, cosine, sine = sizes[row], cosines[row], sines[row]
        left, top, across, down = x[row], y[row], u[row], v[row]
        line, total = agree[row], 0
        for other in range(count):
            right, below = size * (x[other] - left), size * (y[other] - top)
            aside = across + cosine * right - sine * below - u[other]
            ahead = down + sine * right + cosine * below - v[other]
            agrees = aside * aside + ahead * ahead <= limit
            agrees &= sizes[other] <= larger * size
            agrees &= sizes[other] * larger >= size
            agrees &= cosine * cosines[other] + sine * sines[other] >= TURN
            line[other] = agrees
            total += agrees * shares[other]
        scores[row] = total
    return agree, scores


def _best(agree: Any, scores: Any, most: Any) -> Any:
    """Return the rows of `agree` with the highest scores, without near repetitions, [found, k]; scores are changed."""
    best, found = np.empty((most, len(scores)), np.bool_), 0
    for _ in range(min(LOOKED_AT, len(scores))):
        row = scores.argmax()
        if found == most or scores[row] < FEWEST * WHOLE:
            break
        scores[row] = 0
        repeated = 0
        for before in range(found):
            repeated = max(repeated, (agree[row] & best[before]).sum())
        if repeated <= 0.8 * agree[row].sum():
            best[found] = agree[row]
            found += 1
    return best[:found].copy()


count: Any = njit(_count)
nearest: Any = njit(_nearest)
look_up: Any = njit(_look_up)
agree: Any = njit(_agree)
best: Any = njit(_best)


def loop(matches: Any, here: Any, there: Any, errors: Any, limits: Any) -> Any:
    """Do what `proposals.Propose` says; to be compiled."""
    every = np.arange(len(matches[2]))
    mine, theirs = count(matches[0], every, len(here[1])), count(matches[1], every, len(there[1]))
    most = min(np.count_nonzero(mine), np.count_nonzero(theirs))
    # Of too few matches none is considered.
    chosen = nearest(matches[2], limits[0] if most >= FEWEST else 0)
    if len(chosen) < len(every):
        mine, theirs = count(matches[0], chosen, len(here[1])), count(matches[1], chosen, len(there[1]))
    considered, points, sizes, turns = look_up(matches, chosen, here, there)
    shares = WHOLE // np.maximum(mine[considered[0]], theirs[considered[1]])
    agreeing, scores = agree((points, sizes, turns), shares, errors)
    return considered, points, sizes, best(agreeing, scores, limits[1]), most
