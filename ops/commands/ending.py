"""How commands report that they cannot finish: one line on stderr, and an exit status."""

from __future__ import annotations

import sys

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT, as shells report it."""
RESUMES = "run the same command again to resume"


def failed(command: str, reason: str, status: int = 1) -> int:
    """Print why a command failed, and return its exit status."""
    print(f"landseer {command}: {reason}", file=sys.stderr)
    return status
