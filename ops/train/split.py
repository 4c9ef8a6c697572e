"""The photographs to train and validate on, read by the names on the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from landseer.export.datasets.photograph import Photograph, Photographs
from landseer.export.datasets.readable import readable
from landseer.export.datasets.readers import read
from landseer.export.datasets.sfm import sfm_pairs
from landseer.export.training.errors import TrainingError
from landseer.export.training.heldout import check_apart, check_askable, hold_out, some_of
from landseer.ops.progress import bars, warn


@dataclass(frozen=True, kw_only=True)
class TrainingSplit:
    """The photographs to train on, those to validate on, and what was skipped."""

    training: Sequence[Photograph]
    validation: Sequence[Photograph]
    skipped: Sequence[str]

    def counts(self) -> dict[str, str]:
        """Return the numbers of photographs and classes, in words."""
        parts = {"training": self.training, "validation": self.validation}
        return {
            name: f"{len(some):,} photographs of {len({one.label for one in some}):,} classes"
            for name, some in parts.items()
        }


def chosen(data: str, validate: str, *, most: int, seed: int, console: Console, decode: bool = True) -> TrainingSplit:
    """Read the data, and hold out classes or read another data set for validation; the two share no class.

    validate: a share of the classes, or a data set. most: maximum number of photographs to validate on. decode: whether
    to skip photographs that cannot be decoded. Raises DatasetError or TrainingError.
    """
    found = read_all(data, console, decode)
    if ":" in validate:
        other = read_all(validate, console, decode)
        training, held = found.photographs, some_of(other.photographs, most, seed)
        check_apart(training, other.photographs)
        check_askable(held)
        return TrainingSplit(training=training, validation=held, skipped=(*found.skipped, *other.skipped))
    split = hold_out(found, _share(validate), seed)
    held = some_of(split.validation, most, seed)
    check_askable(held)
    return TrainingSplit(training=split.training, validation=held, skipped=found.skipped)


def positives(data: str, training: Sequence[Photograph]) -> Mapping[int, Sequence[int]] | None:
    """Return, for each row, the rows verified to show the same thing; None if the data set has no such pairs."""
    kind, _, rest = data.partition(":")
    if kind != "sfm":
        return None
    rows = {photograph.path: row for row, photograph in enumerate(training)}
    found: dict[int, list[int]] = {}
    for pair in sfm_pairs(rest):
        if pair.query in rows and pair.positive in rows:
            found.setdefault(rows[pair.query], []).append(rows[pair.positive])
    return found


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise TrainingError(
            f"got --validate {text}; expected a share of the classes, such as 0.2, or a data set"
        ) from error


def read_all(spec: str, console: Console, decode: bool) -> Photographs:
    """Read a data set; warn of what was skipped. decode: whether to skip photographs that cannot be decoded."""
    found = read(spec)
    if decode:
        with bars(console) as progress:
            task = progress.add_task(f"reading {spec.partition(':')[0]}", total=len(found.photographs))
            found = readable(found, progress=lambda: progress.advance(task))
    warn(found.skipped, console)
    return found
