"""`landseer top`: show live figures of a running Landseer in a terminal."""

from __future__ import annotations

import argparse
import json
import math
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from rich.console import Group
from rich.live import Live
from rich.table import Table

from landseer.client.commands.connection import add_credentials, credentials_of, seconds
from landseer.client.commands.output import cell, console, print_json, table
from landseer.client.readable import duration, size
from landseer.ops.errors import OpsError
from landseer.ops.watch.scrape import Scrape, fetch
from landseer.ops.watch.top_figures import Figures, TritonFigures, figures, plain, triton_figures

T = TypeVar("T")
_JSON = """\
JSON, one object per interval:
  {"landseer": {"searches_per_s": 12.5, "search_s": {"p50": 0.08, "p95": 0.13, "p99": 0.2}, "in_flight": 2, ...},
   "triton": {"pictures_per_s": 12.5, "mean_batch": 1.3}, "down": []}
"landseer" or "triton" is null while its metrics cannot be read; "down" gives the reason. Unknown figures are null.
Without --once, each object is on one line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--metrics",
        default="http://127.0.0.1:7071/metrics",
        metavar="URL",
        help="the server's metrics (default %(default)s)",
    )
    parser.add_argument("--triton-metrics", metavar="URL", help="Triton's metrics; `landseer up` prints their URL")
    parser.add_argument(
        "--interval", type=seconds, default=1.0, metavar="S", help="seconds between updates (default %(default)g)"
    )
    parser.add_argument("--once", action="store_true", help="print the figures of one interval and exit")
    parser.add_argument("--json", action="store_true", help="print JSON, see below")
    add_credentials(parser)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _JSON


def run(args: argparse.Namespace) -> int:
    """Show the figures until Ctrl-C. With --once, return 1 if the server does not answer."""
    triton_url, trust = _url(args.triton_metrics) if args.triton_metrics else None, credentials_of(args).ssl_context()
    views = _views(_url(args.metrics), triton_url, args.interval, trust)
    if args.once:
        view = next(views)
        _print(view, as_json=args.json)
        return 0 if view.landseer else 1
    _follow(views, as_json=args.json)
    return 0


def _follow(views: Iterator[TopView], *, as_json: bool) -> None:
    """Show the views; on a terminal each replaces the previous one."""
    if as_json or not sys.stdout.isatty():
        for view in views:
            print(json.dumps(_plain(view)), flush=True) if as_json else _print(view, as_json=False)
        return
    with Live(console=console(), auto_refresh=False, screen=True) as live:
        for view in views:
            live.update(_drawn(view), refresh=True)


@dataclass(frozen=True, kw_only=True)
class TopView:
    """What is shown at one time."""

    url: str
    landseer: Figures | None
    triton: TritonFigures | None
    down: tuple[str, ...]
    """Which server does not answer and why, one line each."""


@dataclass(kw_only=True)
class _Target:
    """A metrics page that is read repeatedly."""

    url: str
    trust: ssl.SSLContext | None = None
    before: Scrape | None = None
    now: Scrape | None = None
    down: list[str] = field(default_factory=list)

    def look(self) -> None:
        try:
            self.before, self.now, self.down = self.now, fetch(self.url, self.trust), []
        except OpsError as error:
            self.before, self.now, self.down = None, None, [str(error)]

    def told(self, how: Callable[[Scrape, Scrape], T]) -> T | None:
        return how(self.before, self.now) if self.before and self.now else None


def _views(
    url: str, triton_url: str | None, interval_s: float, trust: ssl.SSLContext | None = None
) -> Iterator[TopView]:
    """Read every `interval_s` seconds; the first view comes after two reads, or at once if there is no answer."""
    landseer = _Target(url=url, trust=trust)
    triton = _Target(url=triton_url) if triton_url else None
    targets = [landseer, *([triton] if triton else [])]
    for target in targets:
        target.look()
    if landseer.down:
        yield _view(landseer, triton)
    while True:
        time.sleep(interval_s)
        for target in targets:
            target.look()
        yield _view(landseer, triton)


def _view(landseer: _Target, triton: _Target | None) -> TopView:
    return TopView(
        url=landseer.url,
        landseer=landseer.told(figures),
        triton=triton.told(triton_figures) if triton else None,
        down=(*landseer.down, *(triton.down if triton else ())),
    )


def _plain(view: TopView) -> dict[str, Any]:
    return {
        "landseer": plain(view.landseer) if view.landseer else None,
        "triton": plain(view.triton) if view.triton else None,
        "down": list(view.down),
    }


def _print(view: TopView, *, as_json: bool) -> None:
    if as_json:
        print_json(_plain(view))
        return
    for line in view.down:
        print(f"landseer top: {line}", file=sys.stderr)
    if view.landseer:
        console().print(_drawn(replace(view, down=())))


def _drawn(view: TopView) -> Group:
    rows = table(("", "left"), ("", "left"))
    rows.show_header = False
    for name, value in {**_rows(view.landseer), **_triton_rows(view.triton)}.items():
        rows.add_row(cell(name, "dim"), cell(value))
    return Group(cell(_title(view), "bold"), *(cell(line, "red") for line in view.down), _padded(rows))


def _title(view: TopView) -> str:
    if view.landseer is None:
        return f"Landseer at {view.url}" + ("" if view.down else ": waiting for the first interval")
    state = "serving" if view.landseer.serving else "NOT SERVING"
    return f"Landseer at {view.url}: {state}, over {view.landseer.interval_s:.1f} s"


def _rows(told: Figures | None) -> dict[str, str]:
    if told is None:
        return {}
    full = told.store_bytes / told.store_limit_bytes if told.store_limit_bytes else math.nan
    return {
        "searches answered": f"{told.searches_per_s:.1f} /s",
        "search latency": _each(told.search_s, _time),
        "stage p95": _each(told.stage_p95_s, _time),
        "errors": _each(told.errors_per_s, _rate),
        "in flight": f"{told.in_flight:.0f} calls, {_count(told.triton_in_flight)} pictures being processed by Triton",
        "waiting": _each(told.waiting, _count),
        "rejected": _each(told.shed_per_s, _rate),
        "degraded": _each(told.degraded, _share),
        "index": f"{_count(told.pictures)} pictures",
        "store": f"{size(told.store_bytes)} of {size(told.store_limit_bytes)}, {_share(full)}",
        "ingest": _each(told.ingested_per_s, _rate),
    }


def _triton_rows(told: TritonFigures | None) -> dict[str, str]:
    if told is None:
        return {}
    batch = "-" if math.isnan(told.mean_batch) else f"{told.mean_batch:.2f}"
    pictures = "-" if math.isnan(told.pictures_per_s) else f"{told.pictures_per_s:.1f}"
    return {"Triton": f"{pictures} pictures/s, {batch} per batch"}


def _each(values: Mapping[str, float], shown: Callable[[float], str]) -> str:
    return ", ".join(f"{name} {shown(value)}" for name, value in values.items()) or "none"


def _or_dash(shown: Callable[[float], str]) -> Callable[[float], str]:
    """Return a function that shows - for NaN, which means unknown."""
    return lambda value: "-" if math.isnan(value) else shown(value)


_time, _count, _rate = _or_dash(duration), _or_dash("{:,.0f}".format), _or_dash("{:.1f} /s".format)
_share = _or_dash(lambda value: f"{100 * value:.1f} %")


def _padded(rows: Table) -> Table:
    rows.pad_edge = True
    return rows


def _url(text: str) -> str:
    """Return the URL of the metrics page for a URL or HOST:PORT."""
    url = text if "://" in text else f"http://{text}"
    return url if url.count("/") > 2 else f"{url}/metrics"
