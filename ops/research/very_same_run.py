"""One run of `make very-same-thing`: its steps, in order."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from rich.console import Console

from landseer.client.readable import plural
from landseer.ensemble.keypoints.shipped import shipped_codebook
from landseer.ops.backend.inprocess import read_profile
from landseer.ops.files import write_text
from landseer.ops.progress import bars, warn
from landseer.ops.research.very_same_baseline import by_sift
from landseer.ops.research.very_same_data import Library, Sought
from landseer.ops.research.very_same_figures import LibraryFigures, Measured, SetFigures
from landseer.ops.research.very_same_index import compared, drawn_chunks, index
from landseer.ops.research.very_same_report import markdown
from landseer.ops.research.very_same_search import FEW, SHORT_LIST, TIMED, TURNED, UPRIGHT, Asker, Found, Row
from landseer.ops.research.very_same_servers import Servers, Serving
from landseer.ops.research.very_same_steps import Steps
from landseer.ops.research.very_same_words import Growth, grown, query_words, room_for, stored_pool

CHUNK = 32
"""Pictures that each service indexes in a turn: two calls of 16, as `landseer index` sends them."""
WORD_QUERIES = 50
"""Real query pictures, at most, that are searched for among generated ones."""
SEARCHES, TURNS, TIMES, BASELINE = "searches", "turned queries", "times", "`sift`"
RATES, SCALE = "indexing with keypoints against without", "words at scale"


class Run:
    """Takes all steps, and writes the report after each."""

    def __init__(self, args: argparse.Namespace, libraries: Sequence[Library], made_by: str, console: Console) -> None:
        """args: of the command; made_by: the first lines of the report. OpsError without models."""
        self._args, self._libraries, self._console = args, libraries, console
        self._profile = read_profile(args.repository)
        self._measured = Measured()
        self._head = _head(made_by, self._profile.backbone, libraries)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        self.steps = Steps(
            _names(args, libraries),
            after=self._write,
            say=partial(console.print, soft_wrap=True),
            warn=partial(console.print, style="yellow", soft_wrap=True),
        )

    def measure(self, folder: Path) -> None:
        """Take the steps, with stores in a folder. OpsError if Triton does not start."""
        stores = [folder / f"library-{number}" for number in range(len(self._libraries))]
        try:
            with Servers(self._args.repository) as servers:
                for number, (library, store) in enumerate(zip(self._libraries, stores, strict=True)):
                    with self.steps.step(_library(number)), servers.serving(store) as serving:
                        self._search_all(library, serving)
                if self._args.rounds:
                    with self.steps.step(RATES):
                        self._compare_rates(servers, folder)
            # These need no servers, which would take memory and cores.
            if self._args.generated:
                with self.steps.step(SCALE):
                    self._grow(stores)
            self._search_by_sift()
        finally:
            self._write()

    def _write(self) -> None:
        write_text(self._args.out, markdown(self._head, self._measured, self.steps.missing, seed=self._args.seed))

    def _search_all(self, library: Library, serving: Serving) -> None:
        for sought in self._indexed(library, serving).sets:
            figures = SetFigures(sought=sought)
            self._measured.sets.append(figures)
            for what, rows in ((SEARCHES, UPRIGHT), (TURNS, TURNED)):
                with self.steps.step(_step(sought, what)):
                    figures.found.update(self._asked(sought, rows, serving, what, hits=SHORT_LIST))
            with self.steps.step(_step(sought, TIMES)):
                before = serving.cpu_time()
                figures.timed = self._asked(sought, TIMED, serving, TIMES, hits=FEW)
                figures.others = serving.cpu_time().others_since(before)

    def _indexed(self, library: Library, serving: Serving) -> Library:
        """Index a library. Returns it without unreadable pictures. OpsError if nothing is left to search for."""
        with bars(self._console) as progress:
            task = progress.add_task("indexing", total=len(library.references))
            indexed = index(serving.address, library.references, lambda done: progress.update(task, completed=done))
        self._measured.libraries.append(LibraryFigures(indexed=indexed, stats=serving.client.stats()))
        self._write()
        bad = {**indexed.unreadable, **dict(library.unreadable_queries())}
        warn((f"{path}: {why}" for path, why in sorted(bad.items())), self._console)
        return library.without(bad)

    def _asked(
        self, sought: Sought, rows: Sequence[Row], serving: Serving, what: str, *, hits: int
    ) -> dict[str, list[Found]]:
        with bars(self._console) as progress:
            task = progress.add_task(f"{what}: {sought.spec}", total=len(rows) * len(sought.data.queries))
            return Asker(serving.client, sought.data, hits=hits).all(rows, lambda: progress.advance(task))

    def _compare_rates(self, servers: Servers, folder: Path) -> None:
        paths = [path for library in self._libraries for path in library.references]
        chunks = drawn_chunks(paths, rounds=self._args.rounds, chunk=CHUNK, seed=self._args.seed)
        with (
            servers.serving(folder / "keypoints", "--local-features", "keypoints") as keypoints,
            servers.serving(folder / "none", "--local-features", "none") as none,
            bars(self._console) as progress,
        ):
            task = progress.add_task(RATES, total=2 * len(chunks))
            addresses = keypoints.address, none.address
            self._measured.rates = compared(addresses, chunks, lambda: progress.advance(task))

    def _grow(self, stores: Sequence[Path]) -> None:
        """Search by words among generated pictures, like those of the largest library."""
        largest = max(range(len(stores)), key=lambda number: len(self._libraries[number].references))
        pool = stored_pool(stores[largest], seed=self._args.seed)
        self._measured.pool = f"the keypoints of {plural(pool.pictures, 'picture')} of library {largest + 1}"
        queries = [query.shot.path for sought in self._libraries[largest].sets for query in sought.data.queries]
        growth = Growth(
            pool=pool,
            queries=query_words(_spread(queries, WORD_QUERIES), self._profile),
            seed=self._args.seed,
            words=shipped_codebook().words,
        )
        with bars(self._console) as progress:
            task = progress.add_task(SCALE, total=max(self._args.generated))
            for one in grown(
                growth, self._args.generated, room=room_for(), advance=lambda count: progress.advance(task, count)
            ):
                self._measured.words.append(one)
                self._write()

    def _search_by_sift(self) -> None:
        for figures in self._measured.sets if self._args.sift_queries else ():
            with self.steps.step(_step(figures.sought, BASELINE)):
                sample = figures.sought.data.sampled(self._args.sift_queries, self._args.seed)
                figures.baseline = by_sift(sample, self._args.cache, self._console)


def _spread(paths: Sequence[Path], most: int) -> list[Path]:
    """Return at most so many of the paths, spread evenly over them."""
    return list(paths[:: -(-len(paths) // most)])


def _names(args: argparse.Namespace, libraries: Sequence[Library]) -> Iterator[str]:
    """Yield the names of all steps."""
    for number, library in enumerate(libraries):
        yield _library(number)
        for sought in library.sets:
            yield from (_step(sought, what) for what in (SEARCHES, TURNS, TIMES))
    yield from (name for name, wanted in ((RATES, args.rounds), (SCALE, args.generated)) if wanted)
    if args.sift_queries:
        yield from (_step(sought, BASELINE) for library in libraries for sought in library.sets)


def _library(number: int) -> str:
    return f"library {number + 1}"


def _step(sought: Sought, what: str) -> str:
    return f"{what} of `{sought.spec}`"


def _head(made_by: str, backbone: str, libraries: Sequence[Library]) -> str:
    """Return the title and the data."""
    lines = [
        f"- Library {number + 1}: {plural(len(library.references), 'picture')}, "
        f"{library.sets[0].data.distractors:,} of them distractors; searched by "
        f"{', '.join(f'`{sought.spec}`' for sought in library.sets)}."
        for number, library in enumerate(libraries)
    ]
    return "\n\n".join(
        [
            "# The very same thing",
            f"{made_by}\n\n{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC, models of {backbone}; the next run "
            "overwrites this page.",
            "Does a search by picture find the very same thing, with the settings that a server has by default "
            "(`landseer up` and no\noption in the request), and what does that take? Everything runs through a real "
            "Triton and a real orchestrator with an\nempty store at the start. Each library has a store of its own:",
            "\n".join(lines),
        ]
    )
