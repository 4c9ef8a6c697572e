"""Finds an indexed picture whose id was typed with decomposed characters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from landseer.client.errors import NotIndexed
from landseer.client.picture_files import composed

_T = TypeVar("_T")


async def as_indexed(id: str, call: Callable[[str], Awaitable[_T]]) -> _T:
    """Call with an id as it was typed; if no picture has it, with composed characters, as `landseer index` writes ids.

    macOS completes names with decomposed characters, and stores from before may hold such ids.
    """
    try:
        return await call(id)
    except NotIndexed:
        if composed(id) == id:
            raise
    return await call(composed(id))
