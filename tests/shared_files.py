"""Files that tests read: references, which the checkout holds, and what lies beside a developer's checkout alone."""

from pathlib import Path

import numpy as np
import pytest

REFERENCES = Path(__file__).resolve().parent / "references"
SHARED = Path(__file__).resolve().parents[1].parent / "shared"


def shared(name: str) -> Path:
    """Return a path under ../shared, or skip the test."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs {path}, which only developers' checkouts have beside them")
    return path


def reference(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of a numeric reference; see references/README.md."""
    with np.load(REFERENCES / name) as arrays:
        return dict(arrays)
