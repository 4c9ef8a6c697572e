"""The console that commands print on."""

from __future__ import annotations

import sys

from rich.console import Console


def plain(*, stderr: bool = False, width: int | None = None) -> Console:
    """Return a console on stdout, or stderr, that prints text as it is.

    What is printed holds names of files, classes and rows: rich would take "[a]" for markup, and make a hundred points
    of the ":100:" in "coattention:100:0.5". width: of lines into a pipe; the terminal's if not given.
    """
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, width=None if stream.isatty() else width)
