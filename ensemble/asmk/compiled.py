"""Loops that numba compiles for this processor.

The machine code is kept beside the file of the loop, or in the user's cache if that cannot be written; where neither
can, every process compiles anew. The loops hold no lock of Python, so threads run them side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def compiled(loop: Callable[..., None], signature: str) -> Any:
    """Compile a loop for arguments of this signature, or load its machine code. Takes up to some seconds."""
    import numba

    try:
        return numba.njit([signature], nogil=True, cache=True)(loop)
    except (RuntimeError, OSError):
        # No folder for the machine code can be written.
        return numba.njit([signature], nogil=True)(loop)
