"""Merging: a new version of the main index takes the place of the present one and of the changes beside it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from landseer.client.readable import one_line
from landseer.ensemble.errors import LandseerError
from landseer.ensemble.index.building import LOWEST, MODULE, BuildOrder
from landseer.ensemble.index.choosing import Chooser
from landseer.ensemble.index.collection import Collection
from landseer.ensemble.index.index_setting import IndexSetting
from landseer.ensemble.index.live_index import LiveIndex
from landseer.ensemble.index.living_main import LivingMain
from landseer.ensemble.index.manifest import VersionDamaged
from landseer.ensemble.index.version_room import (
    last_manifest,
    require_disk,
    require_memory,
    training_bytes,
    vectors_bytes,
    version_bytes,
)
from landseer.ensemble.index.versions import Version
from landseer.ensemble.memory import memory_left
from landseer.ensemble.store.folder import DATA
from landseer.ensemble.store.record import StoreStats
from landseer.ensemble.telemetry.metrics import only_metrics

log = logging.getLogger(__name__)
LOOK_S = 1.0
"""Seconds from one look at the changes to the next."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 30.0, 3600.0
"""Seconds after a merge that failed, and after many."""
BEHIND = 4
"""Times the changes that make a merge due, from which on it must not starve on a busy machine."""
HURRY = 5
"""Niceness of a merge then: it gets a quarter of a core for which one other process competes."""
_FAILURES = (LandseerError, VersionDamaged, OSError, RuntimeError, ValueError)


class MergeFailed(RuntimeError):
    """The process that builds versions ended with an error."""


async def build_in_a_process(order: BuildOrder) -> None:
    """Build a version with one thread, in a process of low priority. MergeFailed; cancelling kills it."""
    alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    pipe, none = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", MODULE, stdin=pipe, stdout=none, stderr=pipe, env={**os.environ, **alone}
    )
    try:
        assert process.stdin is not None and process.stderr is not None
        # It stays open: when it is closed, the process ends.
        process.stdin.write(order.to_json().encode())
        said = (await process.stderr.read()).decode(errors="replace").strip()
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code:
        why = said.splitlines()[-1] if said else "it said nothing"
        raise MergeFailed(f"the process that builds it ended with {code}: {why}")


class Merger:
    """Builds versions of a collection's main index in the background, and has them searched.

    A merge that fails leaves everything as it was. It is logged, counted, and tried again after a pause, which doubles
    from one failure to the next.
    """

    def __init__(
        self,
        collection: Collection,
        *,
        build: Callable[[BuildOrder], Awaitable[None]] = build_in_a_process,
        look_s: float = LOOK_S,
        pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        """build: builds a version aside. look_s, pause_s: seconds between two looks, and after a failure."""
        self._collection, self._build, self._look_s, self._pause_s = collection, build, look_s, pause_s
        self._distrusted: int | None = None
        self._task = asyncio.create_task(self._run(), name="landseer-merger")

    async def close(self) -> None:
        """Give up the merge that is under way, if there is one."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        pause = self._pause_s
        with contextlib.suppress(*_FAILURES):
            await self._collection.tidy_versions()
        try:
            await self._check()
        except _FAILURES as error:
            log.error("what was found damaged serves on until the next start: %s", error)
        while True:
            await asyncio.sleep(self._look_s)
            merged = None
            for work in (self._merged, self._saved_words, self._saved_fields):
                merged = await self._try(work) if merged is None else merged
            if merged is None:
                continue
            with only_metrics():
                self._collection.metrics.index_merges.labels("done" if merged else "failed").inc()
            await asyncio.sleep(0 if merged else pause)
            pause = self._pause_s if merged else min(LONGEST_PAUSE_S, 2 * pause)

    async def _check(self) -> None:
        """Check every byte of large versions that serve; damaged vectors are replaced soon, words are loaded anew."""
        collection = self._collection
        main, words = collection.index.main, collection.word_files
        if main is not None and not await self._sound(collection.opener, main.number):
            self._distrusted = main.number
        number = None if words is None else words.versions.active
        if words is not None and number is not None and not await self._sound(words, number):
            await collection.reload_words()

    async def _sound(self, files: Chooser, number: int) -> bool:
        """Return False if not every byte of a version is as it was written; True for one that was checked before."""
        if files.versions.unchecked != number:
            return True
        try:
            return await self._collection.files.run(files.check, number)
        except OSError as error:
            log.warning("index version %d could not be checked: %s", number, error)
            return True

    def _due(self) -> bool:
        collection, index = self._collection, self._collection.index
        main = index.main
        if collection.remote or not index.size:
            return False
        if main is None:
            return index.size >= collection.config.versions_from
        # Also of a collection that has shrunk since: what is damaged must not serve on.
        if main.number == self._distrusted:
            return True
        # Asked for both sizes, as the setting depends on the size: a collection may grow and shrink across a limit.
        if main.setting not in (collection.setting(main.size), collection.setting(index.size)):
            return True
        return index.added + index.tombstones > self._allowed(main)

    def _allowed(self, main: LivingMain) -> float:
        """Return how many changes may lie beside a version. One that is small is not replaced after each few."""
        config = self._collection.config
        return config.merge_share * max(main.size, config.versions_from)

    def _behind(self) -> bool:
        """Return whether so much changed that searches become slow."""
        index = self._collection.index
        due = self._collection.config.versions_from if index.main is None else self._allowed(index.main)
        return index.added + index.tombstones > BEHIND * due

    async def _try(self, work: Callable[[], Awaitable[str]]) -> bool | None:
        """Do what tells what it did, or nothing if it was not time; return whether it was done, None if not tried."""
        began = time.monotonic()
        try:
            done = await work()
        except _FAILURES as error:
            why = one_line(str(error)) or type(error).__name__
            log.warning("no new index version, and the present one serves on: %s", why)
            return False
        except Exception:
            log.exception("no new index version, and the present one serves on")
            return False
        if not done:
            return None
        seconds = time.monotonic() - began
        log.info("%s, made in %.0f s", done, seconds)
        with only_metrics():
            self._collection.metrics.index_merge.observe(seconds)
            self._collection.metrics.index_built.set_to_current_time()
        return True

    async def _merged(self) -> str:
        index = self._collection.index
        if not self._due():
            return ""
        version = await self._merge(index)
        # The index may have been rebuilt from the store meanwhile, from the version before.
        main = self._collection.index.main
        when = "" if main is not None and main.number == version.number else " from the next start on"
        return f"index version {version.number} serves{when}: {version.manifest.size:,} pictures"

    async def _saved_words(self) -> str:
        """Save the words if enough of them changed."""
        collection = self._collection
        words, files = collection.words, collection.word_files
        if words is None or files is None or not self._many(words.changed, words.stats.pictures):
            return ""
        version = await self._saved(words.stats.bytes, files.save)
        return f"version {version.number} of the words serves: {version.manifest.size:,} pictures"

    async def _saved_fields(self) -> str:
        """Save the indexed fields if enough of them changed."""
        fields, files = self._collection.fields, self._collection.field_files
        if files is None or not self._many(fields.changed, self._collection.index.size):
            return ""
        version = await self._saved(fields.nbytes, files.save)
        return f"version {version.number} of the fields is read at the next start: {version.manifest.size:,} pictures"

    def _many(self, changed: int, pictures: int) -> bool:
        """Return whether so many changes are worth a new version. A small collection has none."""
        config = self._collection.config
        return self._collection.index.size >= config.versions_from and changed > config.merge_share * pictures

    async def _saved(self, size: int, save: Callable[[], Version]) -> Version:
        """Save a version of so many bytes, about. NoRoom."""
        collection = self._collection
        await collection.files.run(require_disk, await collection.stats(), collection.config.folder, size)
        version = await collection.files.run(save)
        await collection.tidy_versions()
        return version

    async def _merge(self, index: LiveIndex) -> Version:
        collection = self._collection
        await collection.tidy_versions()
        upto = await index.begin_exchange(collection.engine())
        try:
            version = await self._built(upto, collection.setting(index.size))
            main = await collection.files.run(self._mapped, version)
            before = await index.exchange(main) if collection.index is index else []
        except BaseException:
            with contextlib.suppress(RuntimeError):
                await index.abandon_exchange()
            raise
        # Freeing it unmaps files, for which searches need not wait.
        await collection.files.run(before.clear)
        await collection.show_size()
        await collection.tidy_versions()
        return version

    async def _built(self, upto: int, setting: IndexSetting) -> Version:
        collection = self._collection
        await collection.files.run(self._require_room, setting, await collection.stats())
        token, folder = await collection.files.run(collection.versions.aside)
        try:
            state = await collection.files.run(collection.opener.state)
            order = BuildOrder(
                store=str(collection.config.folder),
                folder=str(folder),
                token=token,
                built=replace(state, sequence=upto),
                augmented=collection.augmented,
                setting=setting,
                dimension=collection.profile.sizes.channels,
                expected=collection.index.size,
                nice=HURRY if self._behind() else LOWEST,
                read_ahead=await collection.files.run(self._fits),
            )
            await self._build(order)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        # Not cleared up here if it fails: its thread runs on when the merge is given up. The next merge tidies.
        return await collection.files.run(collection.opener.publish, folder)

    def _require_room(self, setting: IndexSetting, stats: StoreStats) -> None:
        """NoRoom unless there is memory to build a version of so many pictures, and disk to keep it."""
        collection, dimension = self._collection, self._collection.profile.sizes.channels
        pictures, last = collection.index.size, last_manifest(collection.versions)
        size = version_bytes(setting, pictures=pictures, dimension=dimension, last=last)
        require_memory(size, training_bytes(setting, dimension))
        size += vectors_bytes(setting, pictures=pictures, dimension=dimension)
        require_disk(stats, collection.config.folder, size)

    def _fits(self) -> bool:
        """Return whether the store's file fits into memory, with as much left for what searches read."""
        left = memory_left()
        return left is None or 2 * (self._collection.config.folder / DATA).stat().st_size <= left

    def _mapped(self, version: Version) -> LivingMain:
        main = self._collection.opener.living(version)
        main.warm()
        return main
