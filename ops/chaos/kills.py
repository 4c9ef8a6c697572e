"""The tests that kill the writers of the store and of index versions, at a higher count than with the other tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass

TESTS = ("tests/ensemble/store", "tests/ensemble/index")


@dataclass(frozen=True, kw_only=True)
class KillFigures:
    """How the tests ended."""

    count: int
    command: str
    said: str
    """pytest's last line, and those of failed tests."""
    passed: bool


def run_kills(count: int) -> KillFigures:
    """Run them."""
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS, "-k", "kill"]
    ended = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "LANDSEER_KILLS": str(count)},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = ended.stdout.splitlines()
    said = [line for line in lines if re.match(r"FAILED|ERROR", line) or re.search(r" (passed|failed|error)", line)]
    return KillFigures(
        count=count,
        command=f"LANDSEER_KILLS={count} python {' '.join(arguments)}",
        said="\n".join(said) or ended.stderr.strip()[-500:],
        passed=ended.returncode == 0,
    )
