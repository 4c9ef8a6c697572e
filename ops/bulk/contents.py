"""Reads pictures from files and URLs, and tries again what may have failed by chance."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from landseer.ensemble.errors import InvalidInput
from landseer.ops.bulk.sources import is_url

PAUSES_S = (0.5, 2.0, 8.0)
"""Before each further try."""
AHEAD = 4
"""Pictures that are read while another is described: reading from afar takes a good part of the time of describing."""
_SURE = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
"""Errors that no further try mends."""


def contents(addresses: Sequence[str], *, most: int, pauses_s: Sequence[float] = PAUSES_S) -> Iterator[Future[bytes]]:
    """Yield what is at each address, in order: a future with the bytes, or with the InvalidInput that says why not.

    most: bytes of a picture.
    """
    reading = deque[Future[bytes]]()
    with ThreadPoolExecutor(AHEAD, thread_name_prefix="read") as threads:
        for address in addresses:
            reading.append(threads.submit(_read, address, most, pauses_s))
            if len(reading) > AHEAD:
                yield reading.popleft()
        while reading:
            yield reading.popleft()


def _read(address: str, most: int, pauses_s: Sequence[float]) -> bytes:
    for pause in pauses_s:
        try:
            return _read_once(address, most)
        except InvalidInput:
            raise
        except _SURE as error:
            raise _unreadable(error) from error
        except Exception:  # Each file system has errors of its own.
            time.sleep(pause)
    try:
        return _read_once(address, most)
    except InvalidInput:
        raise
    except Exception as error:
        raise _unreadable(error) from error


def _read_once(address: str, most: int) -> bytes:
    """Read a picture, but no more of it than tells that it is too large."""
    if is_url(address):
        import fsspec

        system, path = fsspec.core.url_to_fs(address)
        data: bytes = system.cat_file(path, start=0, end=most + 1)
    else:
        with Path(address).open("rb") as file:
            data = file.read(most + 1)
    if len(data) > most:
        raise InvalidInput("image", f"got more than {most:,} bytes; send a smaller picture, or raise the limit")
    return data


def _unreadable(error: Any) -> InvalidInput:
    return InvalidInput("image", f"cannot read it: {getattr(error, 'strerror', None) or error or type(error).__name__}")
