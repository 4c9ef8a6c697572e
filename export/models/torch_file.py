"""Read `torch.save` files without running code from them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch


class WeightsError(RuntimeError):
    """An unusable weights file; the message says why and what is expected."""


def torch_file(path: Path) -> Any:
    """Read tensors, NumPy arrays and plain data from a file, on the CPU. WeightsError for anything else.

    Uses torch's restricted unpickler, for both the zip format and that before torch 1.6, and additionally allows only
    the functions that rebuild NumPy arrays.
    """
    if not path.is_file():
        raise WeightsError(f"no weights file at {path}")
    try:
        with torch.serialization.safe_globals(list(_arrays())):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(f"{path} is not a torch state dict: {_reason(error)}") from error


def _arrays() -> Iterator[Any]:
    """Yield the globals in pickles of NumPy arrays and numbers, by the module names of NumPy 1 and 2."""
    from _codecs import encode

    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        for name, example in (("_reconstruct", np.zeros(0)), ("scalar", np.float64(0))):
            yield example.__reduce__()[0], f"{module}.{name}"
    yield from (np.ndarray, np.dtype, encode)
    yield from {type(np.dtype(code)) for code in "?bBhHiIlLqQefdFD"}


def _reason(error: Exception) -> str:
    """Return the line that names the rejected global; torch's first lines advise switching safety off."""
    text = str(error)
    asked = re.search(r"(?:Unsupported global: )?GLOBAL (\S+)", text)
    if asked:
        return f"it references {asked[1]}, which no weights need"
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if "WeightsUnpickler error" in line), lines[0])
