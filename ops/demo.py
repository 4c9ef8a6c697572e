"""`make demo`: export, serve, index real photographs, search with transformed views of them, show the hits."""

from __future__ import annotations

import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from landseer.client.blocking import BlockingSearchClient
from landseer.client.cli import main as landseer
from landseer.client.errors import LandseerClientError
from landseer.client.hits_page import render
from landseer.client.query_picture import QueryPicture
from landseer.export import all as export_all
from landseer.ops.demo_photos import DISTRACTORS, HARD, INDEXED, View, indexed, save, views
from landseer.ops.errors import OpsError
from landseer.ops.run.stack import Stack, StackConfig
from landseer.v1.search_pb2 import SearchResponse

FOLDER = Path("var/demo")
REPOSITORY = Path("model_repository")
SHOWN = "astronaut.png"
"""The photograph whose hard view is shown as a page."""


@dataclass(frozen=True, kw_only=True)
class ViewRanks:
    """The ranks at which a view found its photograph, 0 if it is not among the hits."""

    view: View
    alone: int
    """By the global descriptor alone."""
    default: int
    """By the default search."""


def main() -> int:
    """Run the demo. Returns the exit status."""
    console = Console()
    started = time.monotonic()
    try:
        _run(console)
    except (OpsError, LandseerClientError) as error:
        print(f"landseer: error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"landseer: error: {error.strerror or error} ({error.filename or FOLDER})", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    console.print(f"The demo took {time.monotonic() - started:.0f} s and has stopped all servers.")
    return 0


def _run(console: Console) -> None:
    console.rule("1. Models")
    if (REPOSITORY / "manifest.json").exists():
        console.print(f"Using the existing {REPOSITORY}; `make export` rewrites it.")
    elif export_all.main(["--out", str(REPOSITORY)]):
        raise OpsError("the models could not be exported (see above)")
    console.rule("2. Photographs")
    queries = _write_pictures(console)
    console.rule("3. Triton and the server")
    stack = Stack(StackConfig(repository=REPOSITORY, store=FOLDER / "store"))
    try:
        with console.status("starting both and loading the models"):
            stack.start()
        console.print(f"serving on {stack.search_address}, metrics on {stack.metrics_address}")
        console.rule("4. Index")
        if landseer(["index", str(FOLDER / "photos"), "--server", stack.search_address]):
            raise OpsError("some photographs could not be indexed (see above)")
        console.rule("5. Search")
        with BlockingSearchClient(stack.search_address) as client:
            outcomes = [_search(client, view) for view in track(queries, "searching", console=console)]
            _show_hits(console, client)
            _show(console, outcomes)
    finally:
        stack.stop()


def _write_pictures(console: Console) -> list[View]:
    shutil.rmtree(FOLDER, ignore_errors=True)
    for name, pixels in indexed():
        save(pixels, FOLDER / "photos" / name)
    queries = list(views())
    for view in queries:
        save(view.pixels, FOLDER / "queries" / view.file_name)
    console.print(
        f"{len(INDEXED)} photographs from the scikit-image wheel and {DISTRACTORS} small ones as distractors to index; "
        f"{len(queries)} views of them to search with, in {FOLDER / 'queries'}"
    )
    return queries


def _search(client: BlockingSearchClient, view: View) -> ViewRanks:
    path = FOLDER / "queries" / view.file_name
    alone = client.search(path, top_k=10, first_stage="global", reranking="none")
    default = client.search(path, top_k=10)
    return ViewRanks(view=view, alone=_rank(alone, view), default=_rank(default, view))


def _rank(answer: SearchResponse, view: View) -> int:
    names = [Path(hit.id).name for hit in answer.hits]
    return names.index(view.shows) + 1 if view.shows in names else 0


def _show_hits(console: Console, client: BlockingSearchClient) -> None:
    """Show one hard query as a table and as an HTML page."""
    view = next(view for view in views() if view.shows == SHOWN and view.kind == HARD)
    path = FOLDER / "queries" / view.file_name
    answer = client.search(path, top_k=8, explain=True)
    table = Table(title=f"Hits for {path} ({SHOWN}, a small part of a cluttered scene)")
    for column in ("rank", "score", "same thing", "global", "inliers", "id"):
        table.add_column(column, justify="left" if column == "id" else "right")
    for rank, hit in enumerate(answer.hits, 1):
        scores = hit.scores
        figures = (f"{hit.score:.3f}", f"{hit.verification.probability:.0%}", f"{getattr(scores, 'global'):.3f}")
        style = "bold green" if Path(hit.id).name == SHOWN else ""
        table.add_row(str(rank), *figures, str(scores.inliers), hit.id, style=style)
    console.print(table)
    page = FOLDER / "hits.html"
    page.write_text(render(answer, query=QueryPicture.of_query(answer, path.read_bytes()), query_name=str(path)))
    console.print(f"The same hits as an HTML page: {page}")


def _show(console: Console, outcomes: Sequence[ViewRanks]) -> None:
    by_kind: dict[str, list[ViewRanks]] = defaultdict(list)
    for outcome in outcomes:
        by_kind[outcome.view.kind].append(outcome)
    table = Table(title="Queries with their photograph as the first hit")
    for column in ("view", "queries", "global alone", "default"):
        table.add_column(column, justify="left" if column == "view" else "right")
    for kind, some in by_kind.items():
        table.add_row(f"{kind} (hard)" if kind == HARD else kind, *_counts(some), end_section=kind == "stereo")
    table.add_section()
    easy = [outcome for outcome in outcomes if outcome.view.kind != HARD]
    table.add_row("all except hard", *_counts(easy))
    table.add_row("all", *_counts(outcomes), style="bold")
    console.print(table)
    console.print(
        f"This is a smoke test, not a benchmark: {len(outcomes)} synthetic views of {len(INDEXED)} photographs."
    )


def _counts(outcomes: Iterable[ViewRanks]) -> tuple[str, str, str]:
    some = list(outcomes)
    return str(len(some)), str(sum(o.alone == 1 for o in some)), str(sum(o.default == 1 for o in some))


if __name__ == "__main__":
    sys.exit(main())
