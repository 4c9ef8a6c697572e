"""What lies beside a developer's checkout and not in a user's; tests that need it skip without it."""

from pathlib import Path

import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


def shared(name: str) -> Path:
    """Return a path under ../shared, or skip the test."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs {path}, which only developers' checkouts have beside them")
    return path


def reference(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of a numeric reference, or skip the test."""
    with np.load(shared(f"refs/{name}")) as arrays:
        return dict(arrays)
