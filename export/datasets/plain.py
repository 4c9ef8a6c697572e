"""Unpickle plain data and arrays only, so that foreign files cannot run code."""

from __future__ import annotations

import pickle
from collections.abc import Set
from pathlib import Path
from typing import Any, ClassVar

from landseer.export.datasets.errors import DatasetError


class PlainUnpickler(pickle.Unpickler):
    """Unpickler for dicts, lists, strings, numbers and NumPy arrays."""

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
        """Return an allowed global. UnpicklingError for any other."""
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it references {module}.{name}, which no ground truth needs")
        # NumPy 2 writes a module name that NumPy 1 lacks.
        return super().find_class(module.replace("numpy._core.", "numpy.core."), name)


def unpickled(path: Path, *, keys: Set[str], kind: str) -> dict[str, Any]:
    """Return the dict in a file. DatasetError if it is not one, would run code, or lacks one of `keys`.

    kind: what the file should be, for the error.
    """
    try:
        with path.open("rb") as stream:
            known = PlainUnpickler(stream).load()
    # A damaged file calls what is allowed with any arguments, so anything may be raised: even LookupError, for a codec.
    except Exception as error:
        raise DatasetError(f"cannot read {path}: {error or type(error).__name__}; expected {kind}") from error
    return checked(known, keys=keys, kind=kind, where=str(path))


def checked(known: Any, *, keys: Set[str], kind: str, where: str) -> dict[str, Any]:
    """Return `known` if it is a dict with these keys. DatasetError names missing keys."""
    if not isinstance(known, dict):
        raise DatasetError(f"{where} holds a {type(known).__name__}; expected {kind}")
    missing = sorted(keys - known.keys())
    if missing:
        raise DatasetError(f"{where} lacks {', '.join(missing)}; expected {kind}")
    return known
