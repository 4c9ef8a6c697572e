"""`landseer data clean`, from the name of the data set to the lists that it writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from landseer.client.commands.output import console as plain_console
from landseer.client.readable import plural
from landseer.export.curation.cleaning import Cleaned, clean, pairs_in
from landseer.export.curation.matcher import Matcher, matcher
from landseer.export.curation.settings import MatchSettings
from landseer.export.datasets.photograph import Photograph, Photographs
from landseer.export.datasets.readers import read
from landseer.ops.errors import OpsError
from landseer.ops.files import check_writable, named_from, write_rows
from landseer.ops.progress import bars, warn

ROWS = 20
"""Classes in the printed table; --summary has all."""


@dataclass(frozen=True, kw_only=True)
class CleanOptions:
    """The options of `landseer data clean`."""

    data: str
    out: Path
    boxes: Path | None
    summary: Path | None
    classes: int | None
    least: int
    settings: MatchSettings
    workers: int
    cache: Path


def clean_data(options: CleanOptions, console: Console) -> None:
    """Clean a data set and write the lists. Raises OpsError, CurationError or DatasetError."""
    for path, option in ((options.out, "--out"), (options.boxes, "--boxes"), (options.summary, "--summary")):
        check_writable(path, option)
    data = read(options.data)
    warn(data.skipped, console)
    members = dict(list(data.by_label().items())[: options.classes])
    with matcher(options.cache, options.settings, workers=options.workers) as pairs:
        results = list(_cleaned(members, pairs, options, console))
        warn((f"{path}: {why}" for path, why in pairs.unreadable.items()), console)
    _write(results, options)
    _print(data, results)
    if not any(result.kept for result in results):
        raise OpsError(f"nothing of {data.name} is left: no class has {options.least} pictures that match each other")


def _cleaned(
    members: dict[str, list[Photograph]], pairs: Matcher, options: CleanOptions, console: Console
) -> Iterator[Cleaned]:
    with bars(console) as progress:
        pictures = progress.add_task("keypoints", total=sum(map(len, members.values())))
        compared = progress.add_task("pairs", total=sum(pairs_in(len(some)) for some in members.values()))
        done = 0
        for label, some in members.items():
            pairs.prepare((one.path for one in some), progress=lambda: progress.advance(pictures))
            yield clean(label, some, pairs, least=options.least, progress=lambda: progress.advance(compared))
            # With unreadable pictures there are fewer pairs than the total.
            done += pairs_in(len(some))
            progress.update(compared, completed=done)


def _write(results: Sequence[Cleaned], options: CleanOptions) -> None:
    kept = [photograph for result in results for photograph in result.kept]
    named = [(named_from(options.out, one), one.label) for one in kept]
    write_rows(options.out, [("path", "class"), *named])
    if options.boxes is not None:
        rows = [(named_from(options.boxes, one), one.label, *_corners(one)) for one in kept]
        write_rows(options.boxes, [("path", "class", "x0", "y0", "x1", "y1"), *rows])
    if options.summary is not None:
        head = ("class", "pictures", "kept", "removed", "unreadable", "pairs")
        write_rows(options.summary, [head, *(_counts(result) for result in results)])


def _corners(photograph: Photograph) -> tuple[str, ...]:
    [box] = photograph.boxes
    return tuple(f"{side:.5f}" for side in (box.x0, box.y0, box.x1, box.y1))


def _counts(result: Cleaned) -> tuple[str, int, int, int, int, int]:
    parts = (len(result.kept), len(result.removed), len(result.unreadable))
    return (result.label, sum(parts), *parts, result.pairs)


def _print(data: Photographs, results: Sequence[Cleaned]) -> None:
    """Print the classes that lost most pictures, and the totals."""
    counts = sorted(map(_counts, results), key=lambda count: (-count[3], -count[1]))
    total = [sum(count[column] for count in counts) for column in (1, 2, 3, 4, 5)]  # type: ignore[misc]
    gone = sum(count[2] == 0 for count in counts)
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    for name in ("pictures", "kept", "removed", "unreadable", "matching pairs"):
        table.add_column(name, justify="right")
    for label, *numbers in counts[:ROWS]:
        table.add_row(label, *(f"{number:,}" for number in numbers))
    table.add_row("all", *(f"{number:,}" for number in total), style="bold")
    print(f"{data.name}: {plural(len(counts), 'class', 'classes')}, {gone:,} of them removed entirely")
    plain_console(pipe_width=None).print(table)
    if len(counts) > ROWS:
        print(f"and {len(counts) - ROWS:,} more classes, which lost no more than these; use --summary for all")
