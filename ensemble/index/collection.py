"""The indexed pictures: the store, and the index of descriptors that is derived from it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.config import AUGMENTED, KEYPOINTS, RAW, ServerConfig
from landseer.ensemble.errors import Overloaded, StoreUnusable
from landseer.ensemble.filters.expression import Filter
from landseer.ensemble.index.codebooks import Codebooks, codebooks_of, local_sources
from landseer.ensemble.index.configured_store import open_store
from landseer.ensemble.index.deep_words import DeepWords, check_codebook
from landseer.ensemble.index.engines import ENGINES, IndexEngine
from landseer.ensemble.index.faiss_index import main_index_of
from landseer.ensemble.index.field_files import FieldFiles
from landseer.ensemble.index.field_footprint import fields_bytes
from landseer.ensemble.index.fields import Fields
from landseer.ensemble.index.footprint import DEEP_WORDS_BYTES, KEYPOINT_WORDS_BYTES, check_memory
from landseer.ensemble.index.index_setting import IndexSetting
from landseer.ensemble.index.keypoint_words import KeypointWords
from landseer.ensemble.index.live_index import Hits, LiveIndex
from landseer.ensemble.index.living_main import LivingMain
from landseer.ensemble.index.milvus_collection import MilvusCollection, MilvusLogin
from landseer.ensemble.index.milvus_engine import MilvusEngine
from landseer.ensemble.index.milvus_setting import milvus_index_of
from landseer.ensemble.index.opening import Opener, state_of
from landseer.ensemble.index.searched_vectors import SearchedVectors, searched_vectors
from landseer.ensemble.index.selection import Selecting
from landseer.ensemble.index.setting_choice import named, setting_for
from landseer.ensemble.index.versions import FIELDS, WORDS, Version, Versions
from landseer.ensemble.index.word_files import WordFiles
from landseer.ensemble.index.word_index import WordIndex
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.keypoints.compact import CompactKeypoints
from landseer.ensemble.keypoints.patches import Patches
from landseer.ensemble.milvus_address import MilvusAddress, milvus_address
from landseer.ensemble.store.listing import Page, PageQuery
from landseer.ensemble.store.local_features import LocalFeatures
from landseer.ensemble.store.postgres.postgres_store import PostgresStore
from landseer.ensemble.store.record import Record, Stored, StoreStats
from landseer.ensemble.store.record_store import RecordStore
from landseer.ensemble.store.store import Store
from landseer.ensemble.telemetry.metrics import Metrics, only_metrics
from landseer.ensemble.verify.keypoint_verifier import KeypointVerifier
from landseer.ensemble.verify.verifier import Verifier
from landseer.ensemble.workers import Workers

log = logging.getLogger(__name__)
T = TypeVar("T")
SENDING_S = 5.0
"""Most seconds to wait while another server sends Milvus what was written here."""
TURN_S = 0.02
"""Seconds from one look whether it has done so to the next."""
KEYPOINT_KERNEL = "how-idf"
"""Words that many pictures share count less. Among covers it finds as much as asmk: docs/research/keypoints.md."""


class Collection:
    """A store and its index. Reads go through this class, changes only through the `Writer`."""

    def __init__(
        self,
        store: RecordStore,
        *,
        profile: Profile,
        config: ServerConfig,
        metrics: Metrics,
        codebooks: Codebooks | None = None,
    ) -> None:
        self.store = store
        self.profile = profile
        """The profile that the store was opened with; version and untrained parts are those of the first check."""
        self._config = config
        self.metrics = metrics
        self._reads = Workers("reads", threads=4)
        # Apart from the reads of searches, as the writer waits for these.
        self._figures = Workers("figures", threads=1)
        self.verifier = Verifier(store.locals, threads=config.threads)
        """Verifies by deep local features."""
        waits = config.threads if isinstance(store, PostgresStore) else 1
        self.keypoint_verifier = KeypointVerifier(store.keypoints, store.patches, threads=waits)
        codebooks = codebooks or Codebooks()
        self.deep_words = _deep_words(codebooks, store, config)
        """Gives deep local features their words; None unless searches by words use them."""
        source = self.deep_words or _keypoint_words(codebooks, store, config)
        self.words = WordIndex(source, threads=config.threads) if source else None
        """The index of visual words; None without a codebook."""
        self.fields = Fields(store, config.index_fields)
        """Answers filters."""
        self.sources = local_sources(config, codebooks, profile)
        """Which local features the server uses for what."""
        self._augmented = config.vectors == AUGMENTED
        self._milvus = milvus_address(config.engine)
        self.files = Workers("index-files", threads=1)
        """One thread for the files of index versions, so that one thing at a time happens to them."""
        self._closing = threading.Event()
        """Set when what its threads read and write is not wanted any more."""
        self.shared = store if isinstance(store, PostgresStore) else None
        """The store, if other servers write it, too."""
        local = store if isinstance(store, Store) else None
        self._opener = None if local is None else self._make_opener(local)
        self.word_files = None if self.words is None or local is None else self._word_files(local, self.words)
        """The versions of words; None without words, or without a folder."""
        self.field_files = self._field_files(local) if config.index_fields and local is not None else None
        """The versions of indexed fields; None without any, or without a folder."""
        self._shared_pictures = 0
        """In the shared store, as far as it was followed."""
        self._index = self._empty()
        metrics.waiting.labels("index").set_function(lambda: self._index.waiting)
        self._applied = 0
        self._changing = asyncio.Lock()
        """Held while changes of a shared store are applied, or everything is loaded."""
        self._changing_words = asyncio.Lock()
        """Held while words are changed, or loaded anew."""
        self._stale = False
        """Whether applying a change of a shared store failed halfway."""
        self._compiled = False
        """Whether the loops of verification are compiled; once is enough."""

    @classmethod
    async def open(cls, config: ServerConfig, profile: Profile, metrics: Metrics) -> Collection:
        """Open the store, without loading its index.

        ProfileMismatch if its vectors, local features or the codebook were made by other models; StoreUnusable if
        augmented vectors are configured and there are none, or if its indexes do not fit in memory; ValueError for an
        invalid codebook or setting of the main index; OSError.
        """
        opener = Workers("open", threads=1)
        try:
            codebooks = await opener.run(codebooks_of, config)
            if codebooks.deep is not None:
                check_codebook(codebooks.deep, profile, str(config.codebook))
            store = await _opened(opener, config, profile, codebooks)
        finally:
            await asyncio.to_thread(opener.close)
        try:
            opened = cls(store, profile=profile, config=config, metrics=metrics, codebooks=codebooks)
        except BaseException:
            store.close()
            raise
        try:
            await opened._figures.run(lambda: opened.check(store.stats()))
        except BaseException:
            opened.close()
            raise
        return opened

    def check(self, stats: StoreStats) -> None:
        """StoreUnusable if there are no augmented vectors to search, or too little memory; stats: of the store.

        ValueError for a setting of the main index that cannot be built, though a small store needs none yet; OSError.
        """
        if self._milvus is None:
            self.setting(stats.pictures)
        if self._augmented and stats.augmentation is None:
            raise StoreUnusable(
                f"{self._config.store} has no augmented vectors; run `landseer augment {self._config.store}` first, "
                f"or start the server with --vectors {RAW}"
            )
        words = 0 if self.words is None else DEEP_WORDS_BYTES if self.deep_words else KEYPOINT_WORDS_BYTES
        check_memory(
            stats,
            self._config,
            0 if self.remote else self.profile.sizes.channels,
            words_bytes=words,
            in_files=stats.pictures if self.remote else _size(self.opener.usable(self._fits)),
            words_in_files=0 if self.word_files is None else _size(self.word_files.usable(lambda version: True)),
            fields=partial(fields_bytes, self.fields.kinds, self.store.metadata.sample() if self.fields.kinds else []),
        )

    @property
    def size(self) -> int:
        """Number of pictures that are searched."""
        return self._index.size

    @property
    def config(self) -> ServerConfig:
        """The server's."""
        return self._config

    @property
    def augmented(self) -> bool:
        """Whether augmented vectors are searched."""
        return self._augmented

    @property
    def remote(self) -> bool:
        """Whether the index is in another process, which has no versions and merges nothing here."""
        return self._milvus is not None

    @property
    def opener(self) -> Opener:
        """Maps index versions. RuntimeError for a store in a database, which has none."""
        if self._opener is None:
            raise RuntimeError(f"{self._config.store} has no index versions")
        return self._opener

    @property
    def versions(self) -> Versions:
        """The index versions of vectors. RuntimeError as for `opener`."""
        return self.opener.versions

    @property
    def applied(self) -> int:
        """Number of the store's last change that searches see, or one before it."""
        return self._index.sees(self._applied)

    @property
    def index(self) -> LiveIndex:
        """The index that is searched; another one after `load`."""
        return self._index

    def engine(self) -> IndexEngine:
        """Return an empty engine for what lies beside the main index, or for all vectors."""
        return ENGINES[self._config.engine](self.profile.sizes.channels, threads=self._config.threads)

    def setting(self, size: int) -> IndexSetting:
        """Return how the main index of so many pictures is to be built. ValueError for a damaged setting; OSError."""
        return setting_for(size, self._config, dimension=self.profile.sizes.channels)

    async def tidy_versions(self) -> None:
        """Delete index versions that are half built or too many. OSError. None may be under construction."""
        every = (self._opener, self.word_files, self.field_files)
        for versions in [files.versions for files in every if files is not None]:
            await self.files.run(versions.tidy, kept=self._config.versions_kept)

    async def load(self) -> None:
        """Build the index from a version and the store, and switch to it. The previous one is used until then."""
        async with self._changing:
            await self._load()

    async def _load(self) -> None:
        main = None if self.remote else await self.files.run(self.opener.first, self._fits)
        # Not among the reads: those may be overloaded, and the writer waits for this.
        sequence = await self._figures.run(self.store.metadata.sequence)
        if self.shared is not None:
            self._shared_pictures = await self._figures.run(self.shared.count)
        fresh, stop = self._empty(main), threading.Event()
        try:
            await (self._follow(fresh) if self.remote else self._read(fresh, main, stop))
            await self._load_words(stop)
            await self._load_fields(stop)
            if self.sources.verification == KEYPOINTS and not self._compiled:
                await self.keypoint_verifier.prepare()
                self._compiled = True
        except BaseException:
            stop.set()
            await asyncio.to_thread(fresh.close)
            raise
        before, self._index, self._applied, self._stale = self._index, fresh, sequence, False
        await asyncio.to_thread(before.close)
        self.metrics.index_built.set_to_current_time()
        if main is not None:
            how = "exactly" if main.exact else "approximately (--index Flat searches exactly)"
            log.info("index version %d serves: %s, searched %s", main.number, named(main.setting), how)
        stats = await self.show_size()
        if stats is not None and (searched := self.searched(stats)).not_augmented:
            log.warning("%s", searched.warning)

    async def _read(self, fresh: LiveIndex, main: LivingMain | None, stop: threading.Event) -> None:
        """Read the vectors that the main index lacks from the store into a fresh index."""
        after, there = (0, 0) if main is None else (main.sequence, main.size)
        stored = self.opener.scan(after)
        expected = max(0, self.store.count() - there)
        # Room for what is added until the first version is built: else all would be copied, and searches wait.
        room = expected // 20 if expected >= self._config.versions_from else 0
        await fresh.load(_until(stop, stored), _report, expected=expected + room)

    async def _follow_part(self, shared: PostgresStore) -> bool:
        """Apply the next changes of the store; return False if there are none."""
        if self._stale:
            await self._load()
        found = await self._figures.run(shared.changes_after, self._applied)
        if found is None:
            return False
        self._stale = True
        records = [one.record for one in found.added]
        vectors = np.array([one.descriptor for one in records], np.float32)
        self._shared_pictures = found.pictures
        await self.apply([one.key for one in found.added], vectors, records, list(found.removed), found.upto)
        self._stale = False
        return True

    async def _follow(self, fresh: LiveIndex) -> None:
        """Send Milvus what it lacks; if it is away, that comes later. StoreUnusable if the collection is another's."""
        while await fresh.tend():
            log.info("sending Milvus what it lacks of %s pictures", f"{fresh.size:,}")
        if fresh.refusal is not None:
            raise fresh.refusal

    async def search(self, vector: NDArray[np.float32], k: int, selection: Selecting | None = None) -> Hits:
        """Return keys and cosines of the k pictures nearest to a query, float32 [D], best first. Overloaded.

        selection: which pictures may be found; None for all.
        """
        try:
            return await self._index.search(vector, k, selection)
        except Overloaded:
            self.metrics.shed.labels("index", "full").inc()
            raise

    async def apply(
        self,
        added: list[int],
        vectors: NDArray[np.float32],
        records: list[Record],
        removed: list[int],
        sequence: int,
    ) -> None:
        """Apply a change of the store to the index: vectors [n, D] and records [n] under the keys `added` [n].

        Filters know a picture before searches can find it, and until they cannot, so that none is missing meanwhile.
        sequence: number of the change.
        """
        if added:
            await self.fields.add(added, records)
        await self._index.apply(np.array(added, np.int64), vectors, np.array(removed, np.int64))
        if self.words is not None:
            async with self._changing_words:
                await self.words.apply(added, records, removed)
        await self.fields.remove(removed)
        self._applied = sequence

    async def follow(self, upto: int | None = None) -> None:
        """Apply what was written into a shared store, by whomever, since the last change that was applied.

        upto: the change at which to stop; None for the last one. StoreUnavailable; if something else fails, all is
        loaded anew the next time.
        """
        while self.shared is not None and (upto is None or self._stale or self._applied < upto):
            # Part by part, as the writer waits for its own change, and others may be writing without a pause.
            async with self._changing:
                if not await self._follow_part(self.shared):
                    return

    async def follow_own(self, upto: int) -> None:
        """Do the work of `follow`, and wait until searches here find what was written up to then. StoreUnavailable."""
        await self.follow(upto)
        until, more = time.monotonic() + SENDING_S, True
        while (more or self._index.waits) and self._index.sees(upto) < upto and time.monotonic() < until:
            if self._index.waits:
                await asyncio.sleep(TURN_S)
            more = await self._index.tend()

    async def sequence(self) -> int:
        """Return the number of changes of the store, those too that searches do not see yet."""
        return await self._reads.run(self.store.metadata.sequence)

    async def get(self, id: str) -> Stored:
        """Return a picture by its id. NotFound."""
        return await self._reads.run(self.store.get, id)

    async def pictures(self, keys: NDArray[np.int64], *, thumbnails: bool, vectors: bool) -> list[Stored | None]:
        """Return pictures by key, optionally without thumbnails or vectors; None for a deleted one.

        Their descriptors are the searched vectors, raw or augmented.
        """
        how = {"thumbnails": thumbnails, "vectors": vectors, "augmented": self._augmented}
        return await self._reads.run(self.store.by_keys, keys.tolist(), **how)

    async def descriptors(self, keys: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the searched vectors, float32 [C', D], without those of deleted pictures."""
        found = await self._reads.run(self._vectors, keys)
        return np.asarray(found[found.any(axis=1)])

    async def likenesses(self, keys: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the cosines of pictures [C] with each other by their own descriptors, [C, C]; 0 for deleted ones."""
        found = await self._reads.run(self.store.vectors.descriptors, keys.tolist())
        return await asyncio.to_thread(np.matmul, found, found.T)

    async def cosines(self, vector: NDArray[np.float32], keys: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the cosines of a query, float32 [D], with the searched vectors [C]; NaN for deleted pictures."""
        found = await self._reads.run(self._vectors, keys)
        return np.where(found.any(axis=1), found @ vector, np.float32(np.nan))

    async def clusters(self, keys: NDArray[np.int64]) -> tuple[NDArray[np.float16], NDArray[np.int32]]:
        """Return the stored clusters, float16 [C, K, P], and the number of clusters per picture, int32 [C]."""
        return await self._reads.run(self.store.vectors.clusters, keys.tolist())

    async def local_features(self, key: int) -> LocalFeatures | None:
        """Return the local features of a picture by key, or None."""
        return (await self._reads.run(self.store.locals.read, [key]))[0]

    async def keypoints(self, key: int) -> CompactKeypoints | None:
        """Return the keypoints of a picture by key, or None."""
        return (await self._reads.run(self.store.keypoints.read, [key]))[0]

    async def patches(self, key: int) -> Patches | None:
        """Return the patches of a picture by key, or None."""
        return (await self._reads.run(self.store.patches.read, [key]))[0]

    async def page(self, query: PageQuery, filter: Filter | None) -> tuple[Page, int | None]:
        """List pictures in the order of their ids; return how many a filter lets through, too. Errors of `Fields`."""
        if filter is None:
            return await self._reads.run(self.store.page, query), None
        filtered = await self.fields.select(filter)
        return await self._reads.run(self.store.page, query, filtered.listed), filtered.matched

    async def stats(self) -> StoreStats:
        """Return the size and limits of the store."""
        return await self._reads.run(self.store.stats)

    async def show_size(self) -> StoreStats | None:
        """Update the size metrics, and return what they show; None if it cannot be read, which is only logged."""
        with only_metrics():
            stats = await self._figures.run(self.store.stats)
            self.metrics.pictures.set(self.size)
            if not self.remote:
                self.metrics.index_added.set(self._index.added)
            self.metrics.index_tombstones.set(self._index.tombstones)
            self.metrics.index_version.set(self._index.main.number if self._index.main else 0)
            self.metrics.store_bytes.set(stats.used_bytes)
            self.metrics.store_limit.set(stats.limit_bytes)
            self.metrics.index_changed.set(stats.last_change or 0.0)
            return stats
        return None

    def searched(self, stats: StoreStats) -> SearchedVectors:
        """Return which vectors are searched. stats: the current figures of the store."""
        return searched_vectors(stats, augmented=self._augmented)

    def close(self) -> None:
        """Finish pending reads and close; blocks briefly: a save or a check of files ends soon."""
        self._closing.set()
        self._reads.close()
        self._figures.close()
        self.files.close()
        self.verifier.close()
        self.keypoint_verifier.close()
        if self.deep_words is not None:
            self.deep_words.close()
        if self.words is not None:
            self.words.close()
        self.fields.close()
        self._index.close()
        self.store.close()

    def _vectors(self, keys: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the searched vectors of pictures [C], zeros for deleted ones: [C, D]."""
        main = self._index.main
        found = np.zeros((len(keys), self.profile.sizes.channels), np.float32)
        there = np.zeros(len(keys), np.bool_)
        if main is not None:
            there, vectors = main.held(keys)
            found[there] = vectors
        if len(left := keys[~there]):
            stored = self.store.vectors.descriptors(left.tolist(), augmented=self._augmented)
            found[~there, : stored.shape[1]] = stored
        return found

    def _make_opener(self, store: Store) -> Opener:
        return Opener(
            Versions(self._config.folder),
            store,
            fingerprint=self.profile.fingerprint,
            augmented=self._augmented,
            threads=self._config.threads,
            damaged=self.metrics.index_damaged.inc,
            stop=self._closing,
        )

    def _word_files(self, store: Store, words: WordIndex) -> WordFiles:
        versions = Versions(self._config.folder, WORDS)
        return WordFiles(store, words, versions=versions, damaged=self.metrics.index_damaged.inc, stop=self._closing)

    def _field_files(self, store: Store) -> FieldFiles:
        versions = Versions(self._config.folder, FIELDS)
        damaged = self.metrics.index_damaged.inc
        return FieldFiles(store, self.fields, versions=versions, damaged=damaged, stop=self._closing)

    async def _load_fields(self, stop: threading.Event) -> None:
        """Load the indexed fields from a version and the store, or from the store alone."""
        found = None if self.field_files is None else await self.files.run(self.field_files.first)
        columns, after = (None, 0) if found is None else found
        await self.fields.load(_until(stop, self.store.metadata.scan(after=after)), columns)

    async def reload_words(self) -> None:
        """Load the words anew, as their version was damaged. Searches use the present ones until then; changes wait."""
        async with self._changing_words:
            await self._load_words(self._closing)

    async def _load_words(self, stop: threading.Event) -> None:
        """Load the words from a version and the store, or from the store alone."""
        if self.words is None:
            return
        found = None if self.word_files is None else await self.files.run(self.word_files.first)
        if found is None or self.word_files is None:
            await self.words.load(stop)
            return
        version, saved = found
        try:
            await self.words.load(stop, saved)
        except (ValueError, OSError) as error:
            await self.files.run(self.word_files.discard, version.number, error)
            await self.words.load(stop)

    def _empty(self, main: LivingMain | None = None) -> LiveIndex:
        engine = self.engine() if self._milvus is None else self._milvus_engine(self._milvus)
        return LiveIndex(engine, main=main, searched=self.metrics.search_batch.observe)

    def _milvus_engine(self, address: MilvusAddress) -> MilvusEngine:
        config, fingerprint = self._config, self.profile.fingerprint
        vectors = state_of(self.store.stats(), fingerprint, augmented=True).vectors if self._augmented else RAW
        collection = MilvusCollection(
            MilvusLogin(address=address, token=config.milvus_token, ca=config.milvus_ca),
            milvus_index_of(config.index),
            dimension=self.profile.sizes.channels,
            metrics=self.metrics,
        )
        return MilvusEngine(
            collection,
            self.store.outbox,
            made_of=f"{vectors} of models {hashlib.sha256(fingerprint.encode()).hexdigest()[:12]}",
            augmented=self._augmented,
            stored=partial(self.store.vectors.descriptors, augmented=self._augmented),
            pictures=self.store.count if self.shared is None else lambda: self._shared_pictures,
            behind=self.metrics.index_added.set,
        )

    def _fits(self, version: Version) -> bool:
        """Return whether an index version may serve: not an approximate one where exact search is configured."""
        wanted = self.setting(version.manifest.size)
        return main_index_of(version.manifest.setting).exact or not main_index_of(wanted).exact


async def _opened(opener: Workers, config: ServerConfig, profile: Profile, codebooks: Codebooks) -> RecordStore:
    """Open the store on a thread. If the caller is cancelled, the store is closed as soon as it is open."""
    opening = asyncio.ensure_future(opener.run(open_store, config, profile, codebooks))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        for store in await asyncio.gather(opening, return_exceptions=True):
            if not isinstance(store, BaseException):
                store.close()
        raise


def _size(versions: Iterator[Version]) -> int:
    """Return how many pictures the first of the versions has; 0 without any."""
    version = next(versions, None)
    return 0 if version is None else version.manifest.size


def _deep_words(codebooks: Codebooks, store: RecordStore, config: ServerConfig) -> DeepWords | None:
    if codebooks.deep is None:
        return None
    if not isinstance(store, Store):
        raise ValueError(
            f"codebook {config.codebook} is of deep local features, whose words a store in a database does not keep; "
            "leave it out, or give one of keypoints, or a folder as --store"
        )
    kernel = config.kernel or ("r-asmk" if config.regions else "asmk")
    return DeepWords(codebooks.deep, store, kernel=kernel, threads=config.threads)


def _keypoint_words(codebooks: Codebooks, store: RecordStore, config: ServerConfig) -> KeypointWords | None:
    if codebooks.keypoints is None:
        return None
    return KeypointWords(codebooks.keypoints, store.keypoints, kernel=config.kernel or KEYPOINT_KERNEL)


def _report(done: int) -> None:
    log.info("loading the index: %s pictures so far", f"{done:,}")


def _until(stop: threading.Event, batches: Iterator[T]) -> Iterator[T]:
    """Yield batches until `stop` is set: the thread that reads them cannot be cancelled."""
    for batch in batches:
        if stop.is_set():
            return
        yield batch
