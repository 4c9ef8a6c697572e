"""Hold classes out of training, and measure how well their photographs find each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.evaluation import Truth, evaluate
from landseer.export.datasets.photograph import Photograph, Photographs
from landseer.export.training.describer import DescriberNetwork, describe_rows
from landseer.export.training.errors import TrainingError
from landseer.export.training.shots import Shots


@dataclass(frozen=True, kw_only=True)
class HeldOutSplit:
    """A data set divided by classes."""

    training: tuple[Photograph, ...]
    validation: tuple[Photograph, ...]


def hold_out(photographs: Photographs, share: float, seed: int) -> HeldOutSplit:
    """Draw classes for validation: a share of those with at least two photographs, at least two classes.

    TrainingError for fewer than four classes: two to train on and two to validate on.
    """
    members = photographs.by_label()
    if not 0 < share < 1:
        raise TrainingError(f"got {share} of the classes for validation; expected a share above 0 and below 1")
    able = [label for label, some in sorted(members.items()) if len(some) > 1]
    count = max(2, round(share * len(able)))
    if len(able) < count or len(members) - count < 2:
        raise TrainingError(
            f"{photographs.name} has {len(members)} classes, {len(able)} of them with two photographs or more; "
            f"expected at least 4, 2 of them held out. Name another validation set with --validate"
        )
    drawn = np.random.default_rng(seed).choice(len(able), count, replace=False)
    held = {able[number] for number in drawn}
    return HeldOutSplit(
        training=tuple(one for one in photographs.photographs if one.label not in held),
        validation=tuple(one for one in photographs.photographs if one.label in held),
    )


def check_apart(training: Sequence[Photograph], validation: Sequence[Photograph]) -> None:
    """Raise TrainingError if a file or class is in both sets, because validation would measure memorisation."""
    files = {one.path.resolve() for one in training} & {one.path.resolve() for one in validation}
    labels = {one.label for one in training} & {one.label for one in validation}
    if files or labels:
        such = sorted(labels)[0] if labels else sorted(files)[0]
        raise TrainingError(
            f"training and validation share {len(labels)} classes and {len(files)} files, such as {such}; expected "
            f"none. Remove them from one set, or hold classes out with --validate SHARE"
        )


def some_of(photographs: Sequence[Photograph], most: int, seed: int) -> tuple[Photograph, ...]:
    """Draw at most `most` photographs, in order, evenly over drawn classes and at least two of each."""
    if len(photographs) <= most:
        return tuple(photographs)
    members: dict[str, list[int]] = {}
    for row, one in enumerate(photographs):
        members.setdefault(one.label, []).append(row)
    draw, labels = np.random.default_rng(seed), sorted(members)
    each = max(2, -(-most // len(labels)))
    drawn = [draw.permutation(members[labels[number]])[:each] for number in draw.permutation(len(labels))]
    return tuple(photographs[row] for row in sorted(np.concatenate(drawn)[:most].tolist()))


def check_askable(photographs: Sequence[Photograph]) -> None:
    """Raise TrainingError unless there are two classes, one with two photographs; otherwise mAP says nothing."""
    counts = Counter(one.label for one in photographs)
    if len(counts) < 2 or max(counts.values()) < 2:
        raise TrainingError(
            f"got {len(photographs)} photographs of {len(counts)} classes for validation; expected two classes or "
            f"more, with two photographs or more. Name another set with --validate, or more with --validate-most"
        )


def leave_one_out(vectors: NDArray[np.float32], labels: Sequence[int]) -> float:
    """Return the leave-one-out mAP, in percent, of unit vectors [N, D]: each queries for the others of its class."""
    numbers = np.asarray(labels)
    rankings, truths = [], []
    for row, scores in enumerate(vectors @ vectors.T):
        ranking = np.argsort(-scores, kind="stable")
        rankings.append(ranking[ranking != row])
        same = np.flatnonzero(numbers == numbers[row])
        truths.append(Truth(easy=same[same != row]))
    return 100.0 * evaluate(rankings, truths).map


def validate(describer: DescriberNetwork, shots: Shots, *, batch: int) -> float:
    """Return the leave-one-out mAP, in percent, of photographs at the picture's own scale."""
    vectors = describe_rows(describer, shots, range(len(shots)), batch=batch)
    return leave_one_out(vectors, shots.labels)
