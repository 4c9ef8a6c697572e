"""Following: what other servers write into a shared store is put into the indexes of this one."""

from __future__ import annotations

import asyncio
import logging

from landseer.ensemble.errors import LandseerError
from landseer.ensemble.index.collection import Collection

log = logging.getLogger(__name__)
LOOK_S = 0.5
"""Seconds from one look at the store to the next."""


class Follower:
    """Looks for changes of a collection's shared store, and applies them."""

    def __init__(self, collection: Collection, *, look_s: float = LOOK_S) -> None:
        self._collection, self._look_s = collection, look_s
        self.fault: LandseerError | None = None
        """Why the store could not be followed the last time; None if it could."""
        self._task = asyncio.create_task(self._run(), name="landseer-follower")

    async def close(self) -> None:
        """Follow no more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._look_s)
            try:
                await self._collection.follow()
            except LandseerError as error:
                if str(error) != str(self.fault):
                    log.warning("%s; this server is not ready until it can follow the store", error)
                self.fault = error
                continue
            except Exception:
                log.exception("following the store failed; all is read from it again")
                continue
            if self.fault is not None:
                log.info("the store is followed again")
            self.fault = None
