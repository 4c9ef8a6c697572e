"""Readiness: whether requests can be answered, kept up to date by polling Triton."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from landseer.ensemble.config import ServerConfig
from landseer.ensemble.errors import (
    CheckMissed,
    IndexLoading,
    LandseerError,
    ModelsUnavailable,
    ProfileMismatch,
    StoreUnavailable,
)
from landseer.ensemble.index.collection import Collection
from landseer.ensemble.index.following import Follower
from landseer.ensemble.index.merging import Merger
from landseer.ensemble.index.writer import Writer
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.inference.triton import MENDED, Served, Triton
from landseer.ensemble.telemetry.metrics import Metrics, only_metrics

log = logging.getLogger(__name__)
AGAIN_S = 1.0
"""Seconds from one try to open a store in a database that does not answer to the next."""


class Readiness:
    """Polls Triton, opens the collection once the models are known, and reports whether requests can be answered.

    A store belongs to one profile, so it cannot be opened before Triton has reported its models once. After that,
    requests that need no model (Get, List, Delete, Stats, Search by id or descriptor) work even while Triton is
    unavailable.

    A check without an answer may only say that Triton is busy. So its models are given up after `poll_misses` of them
    in a row, and inferences that succeed meanwhile count as answers. What Triton does answer counts at once: that a
    model is not loaded, or that it is another.
    """

    def __init__(self, config: ServerConfig, triton: Triton, metrics: Metrics, report: Callable[[bool], None]) -> None:
        """report: called after each check, with whether requests can be answered."""
        self._config = config
        self._triton = triton
        self._report = report
        self._metrics = metrics
        self._served: Served | None = None
        self._fault: LandseerError = ModelsUnavailable(f"Triton at {config.triton} has not answered yet; try again")
        self._profile: Profile | None = None
        """The profile that the store is opened with: the first one reported."""
        self._collection: Collection | None = None
        self._writer: Writer | None = None
        self._merger: Merger | None = None
        self._follower: Follower | None = None
        self._away: StoreUnavailable | None = None
        """Why the store cannot be opened yet."""
        self._opening: asyncio.Task[None] | None = None
        self._misses = 0
        """Checks without an answer since the last one."""

    def models(self) -> Served:
        """Return the served models. ModelsUnavailable or ProfileMismatch if they cannot be used."""
        if self._served is None:
            raise self._fault
        return self._served

    def models_if_there(self) -> Served | None:
        """Return the served models, or None while they cannot be used."""
        return self._served

    def profile(self) -> Profile:
        """Return the served profile, or the collection's while Triton is unavailable; errors of `collection`."""
        return self._served.profile if self._served else self.collection().profile

    def collection(self) -> Collection:
        """Return the collection. IndexLoading before it is loaded; ProfileMismatch if Triton serves other models."""
        if isinstance(self._fault, ProfileMismatch) and self._served is None:
            raise self._fault
        if self._collection is None:
            if self._served is None:
                raise self._fault
            raise self._away or IndexLoading("the index is being loaded from the store; try again")
        return self._collection

    def writer(self) -> Writer:
        """Return the writer of `collection`; raises the same errors."""
        self.collection()
        if self._writer is None:
            raise IndexLoading("the index is being loaded from the store; try again")
        return self._writer

    async def watch(self) -> None:
        """Poll Triton until cancelled. Raises errors that make serving impossible, such as an unusable store."""
        while True:
            began = time.monotonic()
            await self._look()
            if self._opening is not None and self._opening.done():
                self._opening.result()
            self._show()
            await self._pause(max(0.0, began + self._config.poll_s - time.monotonic()))

    async def close(self) -> None:
        """Finish pending writes and close the store."""
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._writer is not None:
            await self._writer.close()
        if self._merger is not None:
            await self._merger.close()
        if self._follower is not None:
            await self._follower.close()
        if self._collection is not None:
            await asyncio.to_thread(self._collection.close)

    async def _look(self) -> None:
        began = time.monotonic()
        try:
            served = await self._triton.served(self._config.poll_timeout_s, self._served)
            self._check(served)
        except CheckMissed as error:
            self._miss(error, began)
            return
        except LandseerError as error:
            self._lose(error)
            return
        except Exception as error:
            log.exception("checking Triton failed")
            self._lose(ModelsUnavailable(f"checking Triton at {self._config.triton} failed: {error}"))
            return
        self._misses = 0
        if served != self._served:
            profile = served.profile
            log.info("Triton at %s serves %s, version %s", self._config.triton, profile.backbone, profile.version)
            _tell_of_fault(served, self._config.triton)
            with only_metrics():
                self._metrics.show_models(served.versions)
        self._served = served
        if self._opening is None:
            self._profile = served.profile
            self._opening = asyncio.create_task(self._open(served), name="landseer-open")

    def _miss(self, error: CheckMissed, began: float) -> None:
        """Count a check without an answer; lose the models after too many."""
        self._misses = 0 if self._triton.answered_since(began) else self._misses + 1
        if self._served is None or self._misses >= self._config.poll_misses:
            self._lose(error)
        else:
            log.info("check of Triton missed, %d of %d in a row: %s", self._misses, self._config.poll_misses, error)

    def _lose(self, error: LandseerError) -> None:
        if self._served is not None or str(error) != str(self._fault):
            log.warning("cannot use Triton's models: %s", error)
        self._served, self._fault = None, error

    def _check(self, served: Served) -> None:
        ours, theirs = self._profile, served.profile
        if ours is None:
            return
        if self._config.deep and theirs.locals_sha256 != ours.locals_sha256:
            raise ProfileMismatch(
                f"the local features were made by other models (SHA-256 {ours.locals_sha256[:12]}) than Triton now "
                f"serves ({theirs.locals_sha256[:12]}); serve the previous models again, or start with another --store "
                "or without deep local features"
            )
        if self._config.keypoints and theirs.patches_sha256 != ours.patches_sha256:
            # A store takes patches of one model, or none; only those of two exclude each other.
            another = " with another --store" if theirs.patches_sha256 and ours.patches_sha256 else ""
            raise ProfileMismatch(
                f"the patches were made by other models (SHA-256 {ours.patches_sha256[:12] or 'none'}) than Triton now "
                f"serves ({theirs.patches_sha256[:12] or 'none'}); serve the previous models again, or start the "
                f"server again{another}"
            )
        if theirs.fingerprint == ours.fingerprint:
            return
        raise ProfileMismatch(
            f"the index was made by {ours.backbone} at {ours.long_side} px (weights {ours.weights_sha256[:12]}), but "
            f"Triton now serves {theirs.backbone} at {theirs.long_side} px (weights {theirs.weights_sha256[:12]}); "
            "serve the previous models again, or start with another --store"
        )

    async def _open(self, served: Served) -> None:
        """Open and load the collection; wait for a store in a database that does not answer."""
        while True:
            try:
                collection = await self._loaded(served)
                break
            except StoreUnavailable as error:
                if self._away is None:
                    log.warning("%s; the server waits for it", error)
                self._away = error
                await asyncio.sleep(AGAIN_S)
        log.info("index loaded: %s pictures", f"{collection.size:,}")
        self._collection, self._writer, self._away = collection, Writer(collection), None
        if collection.shared is None:
            self._merger = Merger(collection)
        else:
            self._follower = Follower(collection)

    async def _loaded(self, served: Served) -> Collection:
        collection = await Collection.open(self._config, served.profile, self._metrics)
        try:
            await collection.load()
        except BaseException:
            await asyncio.to_thread(collection.close)
            raise
        return collection

    def _show(self) -> None:
        there = self._follower is None or self._follower.fault is None
        self._report(self._served is not None and self._writer is not None and there)

    async def _pause(self, seconds: float) -> None:
        """Wait until the next check: sooner if the index is loaded, or an answer shows that models were replaced."""
        replaced = asyncio.ensure_future(self._triton.replaced.wait())
        loading = [] if self._opening is None or self._opening.done() else [self._opening]
        try:
            await asyncio.wait([replaced, *loading], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            replaced.cancel()


def _tell_of_fault(served: Served, address: str) -> None:
    """Log whether this release of Triton may crash when an inference is cancelled."""
    if not served.fragile:
        return
    fault = f"Triton {served.server} at {address} may crash when an inference is cancelled or its caller is killed"
    if served.relayed:
        log.info("%s; the relay before it cancels none", fault)
    else:
        log.warning(
            "%s. This server cancels none, but if it is itself killed, Triton may crash, and all its callers wait for "
            "its restart. Use Triton %d.%d or later, or start this one with `landseer triton`",
            fault,
            *MENDED,
        )
