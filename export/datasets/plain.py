"""Pickles of plain data and arrays, and of nothing else: a file from elsewhere must run nothing."""

from __future__ import annotations

import pickle
from collections.abc import Set
from pathlib import Path
from typing import Any, ClassVar

from landseer.export.datasets.errors import DatasetError

_DAMAGED = (
    pickle.UnpicklingError,
    EOFError,
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    ImportError,
    KeyError,
    IndexError,
    MemoryError,
    OverflowError,
)
"""All that a damaged pickle is known to raise; `pickle`'s documentation promises no more than `Exception`."""


class PlainUnpickler(pickle.Unpickler):
    """Reads dicts, lists, strings, numbers and NumPy arrays."""

    ALLOWED: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return what is allowed. UnpicklingError for the rest."""
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no ground truth needs")
        # NumPy 2 writes a module name that NumPy 1 does not have.
        return super().find_class(module.replace("numpy._core.", "numpy.core."), name)


def unpickled(path: Path, *, keys: Set[str], kind: str) -> dict[str, Any]:
    """Return the dict that a file holds. DatasetError if it is none, would run code, or lacks one of `keys`.

    `kind` says in the error what the file should have been.
    """
    try:
        with path.open("rb") as stream:
            known = PlainUnpickler(stream).load()
    except _DAMAGED as error:
        raise DatasetError(f"cannot read {path}: {error or type(error).__name__}; expected {kind}") from error
    return checked(known, keys=keys, kind=kind, where=str(path))


def checked(known: Any, *, keys: Set[str], kind: str, where: str) -> dict[str, Any]:
    """Return what was read if it is a dict with these keys. DatasetError names those that it lacks."""
    if not isinstance(known, dict):
        raise DatasetError(f"{where} holds a {type(known).__name__}; expected {kind}")
    missing = sorted(keys - known.keys())
    if missing:
        raise DatasetError(f"{where} lacks {', '.join(missing)}; expected {kind}")
    return known
