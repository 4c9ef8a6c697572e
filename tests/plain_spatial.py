"""Fast spatial matching in plain numpy, to compare the compiled loops with."""

from __future__ import annotations

import cv2
import numpy as np

from landseer.ensemble.verify import fast_spatial, upright
from landseer.ensemble.verify.affine import FEWEST, FLATTEST, LARGEST, SMALLEST
from landseer.ensemble.verify.fast_spatial import COARSE, ENOUGH_FOR_HOMOGRAPHY, LARGER, MOST_MATCHES, REFINED, box_of
from landseer.ensemble.verify.inliers import BIT, FINE
from landseer.ensemble.verify.matching import Matches
from landseer.ensemble.verify.proposal_loop import LOOKED_AT, TURN


def plain_fit(query, candidate, matches):
    """Return the inliers, places in the matches that are considered, and the map; None and none without a map."""
    if len(matches) > MOST_MATCHES:
        matches = matches.take(np.sort(np.argsort(matches.distances, kind="stable")[:MOST_MATCHES]))
    best = np.empty(0, np.int64), None
    if min(len(set(matches.query.tolist())), len(set(matches.candidate.tolist()))) < FEWEST:
        return Matches(query=best[0], candidate=best[0], distances=best[0]), None
    here, there = query.positions[matches.query].astype(float), candidate.positions[matches.candidate].astype(float)
    sizes = candidate.sizes[matches.candidate].astype(float) / query.sizes[matches.query]
    angles = candidate.angles[matches.candidate].astype(float) - query.angles[matches.query]
    agree = agreeing(here, there, sizes * np.exp(1j * angles), coarse=COARSE, larger=LARGER)
    here_in, there_in = (np.bincount(rows)[rows] for rows in (matches.query, matches.candidate))
    for inliers in proposals(agree, 1.0 / np.maximum(here_in, there_in)):
        found = refined(here, there, sizes, matches, inliers)
        if found is not None and len(found[0]) > len(best[0]):
            best = found
    return matches.take(best[0]), best[1]


def plain_fit_upright(query, candidate, matches):
    """The same of patches."""
    none = matches.take(np.empty(0, np.int64)), None
    here, there = query.positions[matches.query].astype(float), candidate.positions[matches.candidate].astype(float)
    sizes = candidate.sizes[matches.candidate].astype(float) / query.sizes[matches.query]
    agree = agreeing(here, there, sizes.astype(complex), coarse=upright.COARSE, larger=upright.LARGER)
    inliers = next(proposals(agree, np.ones(len(sizes))), None)
    if inliers is None:
        return none
    alike = like(sizes, inliers, 1.5 * upright.LARGER)
    for limit in (upright.COARSE, upright.COARSE, upright.FINE, upright.FINE):
        map = affine(here[inliers], there[inliers])
        if map is None:
            return none
        inliers = alike & (errors(map, here, there) <= limit)
    return (matches.take(inliers), map) if inliers.sum() >= FEWEST else none


def agreeing(here, there, steps, *, coarse, larger):
    """Return which matches [m] agree with the similarity of each: [m, m]."""
    here, there = here @ [1, 1j], there @ [1, 1j]
    apart = there[:, None] + steps[:, None] * (here[None] - here[:, None]) - there[None]
    sizes, turns = np.abs(steps), steps / np.abs(steps)
    alike = (sizes[None] <= larger * sizes[:, None]) & (sizes[None] * larger >= sizes[:, None])
    return (np.abs(apart) <= coarse) & alike & ((turns[None] * turns[:, None].conj()).real >= TURN)


def proposals(agree, shares):
    """Yield rows of agree [m, m], best first, without near repetitions."""
    scores, seen = np.round(agree @ shares, 6), []
    for row in np.argsort(-scores, kind="stable")[:LOOKED_AT]:
        if scores[row] < FEWEST or len(seen) == REFINED:
            return
        if all((agree[row] & before).sum() <= 0.8 * agree[row].sum() for before in seen):
            seen.append(agree[row])
            yield agree[row]


def refined(here, there, sizes, matches, inliers):
    """Return the places of the inliers of the best affine map or homography, and it; None without one."""
    alike, map = like(sizes, inliers, 1.5 * LARGER), None
    for limit in (COARSE, COARSE, FINE):
        better = affine(here[inliers], there[inliers])
        if better is None:
            break
        map, inliers = better, alike & (errors(better, here, there) <= limit)
    if map is None:
        return None

    def either(best, chosen, method, more):
        other = cv2.findHomography(here[chosen], there[chosen], method, 0.75 * FINE, None, 200, 0.99)[0]
        if other is None or not np.isfinite(other).all():
            return best
        inside = distinct(other, here, there, alike, matches)
        good = len(inside) >= len(best[0]) + more and plausible(other, box_of(here[inside]))
        return (inside, other) if good else best

    best = distinct(map, here, there, alike, matches), map
    if len(best[0]) >= ENOUGH_FOR_HOMOGRAPHY:
        best = either(best, alike & (errors(map, here, there) <= 3 * COARSE), cv2.USAC_MAGSAC, 1)
        near = best[0][errors(best[1], here, there)[best[0]] <= FINE / 2]
        if len(near) >= ENOUGH_FOR_HOMOGRAPHY:
            best = either(best, near, 0, -len(best[0]) // 20)
    return best if len(best[0]) >= FEWEST else None


def like(sizes, inliers, larger):
    """Return which matches have a size like the inliers', [m]."""
    factors = sizes / np.median(sizes[inliers])
    return (factors <= larger) & (factors * larger >= 1.0)


def affine(here, there):
    """Return the least-squares affine map [3, 3] that a camera makes; None without one."""
    if len(here) < FEWEST:
        return None
    centred = here - here.mean(axis=0)
    if np.linalg.det(centred.T @ centred) <= 1e-6 * np.trace(centred.T @ centred) ** 2:
        return None
    solved = np.linalg.lstsq(np.column_stack([here, np.ones(len(here))]), there, rcond=None)[0].T
    return np.vstack([solved, [0, 0, 1]]) if camera_like(solved[:, :2], 1.0) else None


def camera_like(linear, factor):
    """Return whether a linear map is not mirrored, and neither collapsed nor stretched too much."""
    long, short = np.linalg.svd(linear, compute_uv=False)
    whole = long <= LARGEST * factor and short >= SMALLEST / factor and long <= FLATTEST * factor * short
    return bool(np.linalg.det(linear) > 0 and whole)


def plausible(map, corners):
    """Return whether a homography keeps a box convex, in front, and not too distorted."""
    mapped = corners @ map[:, :2].T + map[:, 2]
    if (mapped[:, 2] <= 1e-6).any():
        return False
    places = mapped[:, :2] / mapped[:, 2:]
    sides = np.roll(places, -1, axis=0) - places
    if not (np.cross(sides, np.roll(sides, -1, axis=0)) > 0).all():
        return False
    jacobians = (map[:2, :2][None] - places[:, :, None] * map[2, :2]) / mapped[:, 2, None, None]
    return all(camera_like(jacobian, 2.0) for jacobian in jacobians)


def errors(map, here, there):
    """Return the distance from each mapped point to its match, [m]; infinite behind the camera."""
    mapped = np.column_stack([here, np.ones(len(here))]) @ map.T
    in_front = mapped[:, 2] > 1e-6
    apart = mapped[:, :2] / np.where(in_front, mapped[:, 2], 1.0)[:, None] - there
    return np.where(in_front, np.linalg.norm(apart, axis=1), np.inf)


def distinct(map, here, there, alike, matches):
    """Return the places of the inliers of a map, of which no keypoint is in two."""
    apart = errors(map, here, there)
    places = np.flatnonzero(alike & (apart <= fast_spatial.FINE))
    return places[one_each(matches.take(places), apart[places] + BIT * matches.distances[places])]


def one_each(matches, costs):
    """Return the places of matches in which no keypoint occurs twice, ascending; the cheapest stay."""
    order = np.argsort(costs, kind="stable")
    order = order[np.sort(np.unique(matches.query[order], return_index=True)[1])]
    return np.sort(order[np.unique(matches.candidate[order], return_index=True)[1]])
