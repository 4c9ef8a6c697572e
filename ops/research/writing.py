"""What the reports of this package share: what made them, and how making them ends."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from landseer.export.datasets.errors import DatasetError
from landseer.export.models.torch_file import WeightsError
from landseer.export.training.errors import Stopped, TrainingError
from landseer.ops.backend.inprocess import cores
from landseer.ops.errors import OpsError
from landseer.ops.machine import describe as describe_machine

STOPPED = 130
"""A shell's status of what Ctrl-C ended."""


def written(make: Callable[[], str], out: Path) -> int:
    """Make a report, write and print it. Returns 0; or 1 or 130, with one line on stderr and no report."""
    try:
        text = make()
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except (OpsError, DatasetError, WeightsError, TrainingError, ValueError, OSError) as error:
        print(f"results: {error}", file=sys.stderr)
        return 1
    except (Stopped, KeyboardInterrupt):
        print("results: stopped; the same command goes on where it was", file=sys.stderr)
        return STOPPED
    print(text)
    return 0


def made_by(program: str) -> str:
    """Return the sentence that says by which command a report was written, and on what machine."""
    machine = "; ".join(f"{name}: {value}" for name, value in describe_machine(threads=cores()))
    return f"Written by `{program} {shlex.join(sys.argv[1:])}` on {machine}."
