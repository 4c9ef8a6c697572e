"""Stand-ins for `prepare` that do to a decoder what hostile pictures do. Decoders import this module by its name."""

from __future__ import annotations

import os
import signal
from collections import deque
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from landseer.ensemble.pictures.pictures import Prepared, Region, prepare


def crash(data: bytes, **options: Any) -> Prepared:
    signal.raise_signal(signal.SIGSEGV)
    raise AssertionError


def leave(data: bytes, **options: Any) -> Prepared:
    os._exit(0)


def loop(data: bytes, **options: Any) -> Prepared:
    deque(repeat(0), maxlen=0)
    raise AssertionError


def hang(data: bytes, **options: Any) -> Prepared:
    signal.pause()
    raise AssertionError


def bloat(data: bytes, **options: Any) -> Prepared:
    bytearray(1 << 40)
    raise AssertionError


def fail(data: bytes, **options: Any) -> Prepared:
    raise RuntimeError("a mistake of ours")


def lie(data: bytes, **options: Any) -> Prepared:
    """Tell of more than there is, as a decoder might that was taken over."""
    ready = prepare(data, **options)
    whole = Region(x=0, y=0, width=1, height=1)
    return Prepared(pixels=ready.pixels, width=float("nan"), height=1, region=whole, thumbnail=b"")  # type: ignore[arg-type]


def killed_once(data: bytes, **options: Any) -> Prepared:
    """The kernel kills the first process, for lack of memory, and no other."""
    flag = Path(data.decode())
    if not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    raise InterruptedError


def killed(data: bytes, **options: Any) -> Prepared:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def by_name(data: bytes, **options: Any) -> Prepared:
    """The fault that the bytes name, or the picture."""
    faults = {b"crash": crash, b"loop": loop, b"killed": killed}
    return faults[data](data, **options) if data in faults else prepare(data, **options)


def process(data: bytes, **options: Any) -> Prepared:
    """The process id of the decoder, as a width."""
    pixels, whole = np.zeros((1, 1, 3), np.uint8), Region(x=0, y=0, width=1, height=1)
    return Prepared(pixels=pixels, width=os.getpid(), height=1, region=whole, thumbnail=b"")
