"""What the reports of this package share: their first lines, and the exit status."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from landseer.ensemble.cores import cores
from landseer.export.datasets.errors import DatasetError
from landseer.export.models.torch_file import WeightsError
from landseer.export.training.errors import Stopped, TrainingError
from landseer.ops.errors import OpsError
from landseer.ops.machine import describe as describe_machine

STOPPED = 130
"""The exit status after Ctrl-C."""


def written(make: Callable[[], str], out: Path) -> int:
    """Make, write and print a report. Returns 0, or 1 or 130 with one line on stderr and no report."""
    try:
        text = make()
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except (OpsError, DatasetError, WeightsError, TrainingError, ValueError, OSError) as error:
        print(f"results: {error}", file=sys.stderr)
        return 1
    except (Stopped, KeyboardInterrupt):
        print("results: interrupted; run the same command again to resume", file=sys.stderr)
        return STOPPED
    print(text)
    return 0


DEVELOPMENT = "Many variants were judged on this data while they were developed: these are development figures."


def add_report(parser: argparse.ArgumentParser, out: Path) -> None:
    """Declare where the report goes, and whether the test data was used during development."""
    parser.add_argument("--out", type=Path, default=out, help="the report (%(default)s)")
    parser.add_argument(
        "--development",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="say in the report that variants were judged on the test data while they were developed (yes)",
    )


def made_by(program: str, *, development: bool) -> str:
    """Return the first lines of a report: its command and machine, and whether its figures are development figures."""
    machine = "; ".join(f"{name}: {value}" for name, value in describe_machine(threads=cores()))
    written_by = f"Written by `{program} {shlex.join(sys.argv[1:])}` on {machine}."
    return f"{written_by}\n\n{DEVELOPMENT}" if development else written_by
