"""`landseer serve` that kills or stops itself when a write, or a merge of the index, reaches a stage.

Runs as a module in place of the command line. A file `tripwire` in the folder LANDSEER_TRIPWIRES, with a stage and the
number of a signal, arms it once: the stage that finds it removes it and sends itself the signal.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

FOLDER = "LANDSEER_TRIPWIRES"
FILE = "tripwire"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A method of the orchestrator, and which end of it."""

    module: str
    method: str
    """Class and name."""
    after: bool


def _place(module: str, method: str, *, after: bool) -> Place:
    return Place(module=f"landseer.ensemble.{module}", method=method, after=after)


STAGES: dict[str, Place] = {
    "received": _place("ingest.indexing", "Indexer.upsert", after=False),
    "decoded": _place("search.describe", "Describer.infer", after=False),
    "described": _place("search.describe", "Describer.infer", after=True),
    "written, not committed": _place("store.store", "Store._put", after=True),
    "committed, not indexed": _place("store.store", "Store.put_many", after=True),
    "indexed, not answered": _place("index.collection", "Collection.apply", after=True),
    "deleted, not indexed": _place("store.store", "Store.delete", after=True),
}
"""The stages of a write, in order; the last one is that of a deletion."""

MERGE_STAGES: dict[str, Place] = {
    "merge begun": _place("index.merging", "Merger._built", after=False),
    "version built, not published": _place("index.choosing", "Chooser.publish", after=False),
    "version published, not active": _place("index.versions", "Versions.activate", after=False),
    "version active, not searched": _place("index.live_index", "LiveIndex.exchange", after=False),
    "version searched, the former one not freed": _place("index.live_index", "LiveIndex.exchange", after=True),
}
"""The stages of a merge, in order."""


def arm(folder: Path, stage: str, signal: int) -> None:
    """Let the next write or merge that reaches `stage` send the orchestrator a signal."""
    armed = folder / f"{FILE}.new"
    armed.write_text(f"{signal} {stage}")
    armed.rename(folder / FILE)


def is_armed(folder: Path) -> bool:
    """Return whether none has reached the stage yet."""
    return (folder / FILE).exists()


def disarm(folder: Path) -> None:
    """Let nothing happen."""
    (folder / FILE).unlink(missing_ok=True)


def set_up(folder: Path) -> None:
    """Watch every stage in this process."""
    for stage, place in {**STAGES, **MERGE_STAGES}.items():
        owner, name = place.method.split(".")
        held = getattr(import_module(place.module), owner)
        setattr(held, name, _watched(getattr(held, name), functools.partial(_trip, folder, stage), after=place.after))


def _watched(method: Callable[..., Any], trip: Callable[[], None], *, after: bool) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def coroutine(*args: Any, **options: Any) -> Any:
            if not after:
                trip()
            result = await method(*args, **options)
            if after:
                trip()
            return result

        return coroutine

    @functools.wraps(method)
    def function(*args: Any, **options: Any) -> Any:
        if not after:
            trip()
        result = method(*args, **options)
        if after:
            trip()
        return result

    return function


def _trip(folder: Path, stage: str) -> None:
    try:
        signal, armed = (folder / FILE).read_text().split(" ", 1)
        if armed == stage:
            (folder / FILE).unlink()
            os.kill(os.getpid(), int(signal))
    except FileNotFoundError:
        return


if __name__ == "__main__":
    from landseer.client.cli import main

    set_up(Path(os.environ[FOLDER]))
    sys.exit(main())
