"""Runs locust in its own process and reads its results."""

from __future__ import annotations

import csv
import importlib.util
import itertools
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from landseer.ops.errors import OpsError
from landseer.ops.run.processes import Child, ChildConfig

FILE = Path(__file__).resolve().parents[1] / "locustfile.py"
AGGREGATED = "Aggregated"
_PERCENTILES = ("50%", "95%", "99%")


@dataclass(frozen=True, kw_only=True)
class LoadConfig:
    """One run of the locustfile."""

    host: str
    photos: Path
    shape: str
    peak: int
    length_s: float
    out: Path
    """Prefix of the CSV and HTML files."""
    only: tuple[str, ...] = ()
    """Names of the tasks to run; all if empty."""


@dataclass(frozen=True, kw_only=True)
class TaskFigures:
    """Locust's results for one kind of call, or for all together."""

    calls: int
    failures: int
    rate: float
    """Calls per second over the whole run."""
    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, kw_only=True)
class Tick:
    """The totals at one second of the run."""

    when: float
    """Unix time."""
    users: int
    calls: int
    """Since the start."""


@dataclass(frozen=True, kw_only=True)
class LoadFigures:
    """All results of one run, measured by the callers."""

    tasks: Mapping[str, TaskFigures]
    """By name; all together under `Aggregated`."""
    failures: Mapping[str, int]
    """Number of failures by code."""
    ticks: list[Tick] = field(default_factory=list)

    @property
    def total(self) -> TaskFigures:
        """All calls together."""
        return self.tasks[AGGREGATED]

    @property
    def seconds(self) -> float:
        """How long there were users, in seconds."""
        return self.ticks[-1].when - self.ticks[0].when

    def steps(self) -> Iterator[tuple[int, list[Tick]]]:
        """Yield each number of users with its ticks, from the first time that there were so many.

        At the end users leave one by one, so some numbers occur again.
        """
        seen: set[int] = set()
        for users, ticks in itertools.groupby(self.ticks, key=lambda tick: tick.users):
            if users not in seen:
                yield users, list(ticks)
            seen.add(users)

    @property
    def searches(self) -> int:
        """Number of calls that were searches."""
        return sum(figures.calls for name, figures in self.tasks.items() if name.startswith("search"))


def start(config: LoadConfig) -> Child:
    """Start a run. OpsError if locust is not installed."""
    if importlib.util.find_spec("locust") is None:
        raise OpsError("locust is not installed: pip install 'landseer[load]'")
    config.out.parent.mkdir(parents=True, exist_ok=True)
    return Child.start(ChildConfig(command=_command(config), grace_s=5.0))


def read(config: LoadConfig) -> LoadFigures:
    """Read the CSV files of a finished run. OpsError if there were no calls."""
    tasks = {
        row["Name"]: TaskFigures(
            calls=int(row["Request Count"]),
            failures=int(row["Failure Count"]),
            rate=float(row["Requests/s"]),
            **{f"p{name[:-1]}_ms": float(row[name]) for name in _PERCENTILES},
        )
        for row in _rows(config, "stats")
        if row[_PERCENTILES[0]] != "N/A"
    }
    if AGGREGATED not in tasks:
        raise OpsError("locust made no call; see its output above")
    failures: dict[str, int] = {}
    for row in _rows(config, "failures"):
        code = row["Error"].removeprefix("CallFailed('").removesuffix("')")
        failures[code] = failures.get(code, 0) + int(row["Occurrences"])
    ticks = [
        Tick(when=float(row["Timestamp"]), users=int(row["User Count"]), calls=int(row["Total Request Count"]))
        for row in _rows(config, "stats_history")
        # Without users, it is still indexing or already over.
        if row["Name"] == AGGREGATED and int(row["User Count"])
    ]
    return LoadFigures(tasks=tasks, failures=failures, ticks=ticks)


def _command(config: LoadConfig) -> list[str]:
    options = {
        "--host": config.host,
        "--photos": str(config.photos),
        "--load-shape": config.shape,
        "--peak": str(config.peak),
        "--length": f"{config.length_s:g}",
        "--only": ",".join(config.only),
        "--csv": str(config.out),
        "--html": f"{config.out}.html",
        # Wait for the calls in flight at the end, so that they are counted.
        "--stop-timeout": "30",
        "--loglevel": "WARNING",
    }
    flat = [word for option in options.items() for word in option]
    switches = ["--headless", "--only-summary", "--csv-full-history", "--exit-code-on-error", "0"]
    return [sys.executable, "-m", "locust", "-f", str(FILE), *flat, *switches]


def _rows(config: LoadConfig, kind: str) -> list[dict[str, str]]:
    path = Path(f"{config.out}_{kind}.csv")
    if not path.exists():
        raise OpsError(f"locust wrote no {path.name}; see its output above")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
