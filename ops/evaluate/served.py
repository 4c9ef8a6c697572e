"""A running service, searched with the public client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np
from rich.console import Console

from landseer.client.client import SearchClient
from landseer.client.commands.connection import waiting
from landseer.client.commands.output import tell
from landseer.client.credentials import PLAIN, Credentials
from landseer.client.errors import LandseerClientError, RpcFailed
from landseer.client.picture_files import PictureFile, picture_id
from landseer.client.queries import EXPANSIONS, FirstStageName
from landseer.client.readable import plural
from landseer.client.uploads import Upload, UploadPlan, UploadTally
from landseer.ensemble.config import Limits
from landseer.ensemble.errors import InvalidInput
from landseer.ensemble.evaluation import Ids
from landseer.ensemble.index.collection import KEYPOINT_KERNEL
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.pictures.pictures import Region, prepare
from landseer.ensemble.search.expansion.methods import LATTQE, VERIFIED
from landseer.ensemble.search.expansion.recipe import Recipe
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.database import Begin
from landseer.ops.evaluate.dataset import Dataset, Query, Shot
from landseer.ops.evaluate.methods import BOTH, DEFAULT, KEYPOINT_WORDS, NONE, ONCE, Method
from landseer.ops.evaluate.system import About, Rank, Searched
from landseer.ops.evaluate.turning import shown
from landseer.ops.evaluate.words import ASMK, RASMK
from landseer.ops.progress import bars
from landseer.ops.run.ports import parse_address
from landseer.v1.index_pb2 import SearchedVectors, StatsResponse, VisualWordsStats
from landseer.v1.search_pb2 import Expansion, SearchResponse

AT_ONCE = 4
"""Concurrent searches."""
KERNELS: Mapping[str, str] = {ASMK: "asmk", RASMK: "r-asmk", KEYPOINT_WORDS: KEYPOINT_KERNEL}
"""Rows that search by words alone, and how the service must compare words for them."""
FIRST_STAGES: Mapping[str, FirstStageName] = {
    **dict.fromkeys((name for name in EXPANSIONS if name != VERIFIED), "global"),
    **dict.fromkeys(KERNELS, "words"),
    BOTH: "both",
}
"""By the method's name."""
_T = TypeVar("_T")


class ServedSystem:
    """The service at an address. References that it lacks are indexed first, with their path as the id."""

    def __init__(self, address: str, *, patience: float = 0.0, credentials: Credentials = PLAIN) -> None:
        """Read the status of the service. OpsError if it does not answer.

        patience: seconds to wait, at each call, for a service that is still loading; a line on stderr says so.
        """
        parse_address(address, "--server")
        self._address, self._references = address, 0
        self._patience, self._on_wait, self._credentials = patience, waiting(patience, tell), credentials
        self._set(self._call(lambda client: client.stats()))

    def check(self, methods: Sequence[Method]) -> None:
        """Raise OpsError for a method that the service lacks, or for another database augmentation than its own."""
        for method in methods:
            if method.name not in (DEFAULT, ONCE, VERIFIED, *FIRST_STAGES):
                known = ", ".join([DEFAULT, ONCE, VERIFIED, *FIRST_STAGES])
                raise OpsError(f"{method.name} is not a method of the service; it has {known}")
            if method.reranking is not None:
                raise OpsError(
                    f"{method} re-ranks, which can only be evaluated in process; omit {method.reranking}, or evaluate "
                    "without --server"
                )
            if method.database is not None:
                self._check_database(method, method.database)
            if FIRST_STAGES.get(method.name, "global") != "global":
                self._check_words(method)

    def _check_words(self, method: Method) -> None:
        if not self._words.codebook:
            raise OpsError(
                f"{self._address} has no visual words, so it cannot evaluate {method}; start the service with "
                "`landseer serve --local-features keypoints`, the default, or with deep local features and a codebook "
                "from `landseer codebook`, or omit the row"
            )
        if method.words not in (0, self._words.words):
            raise OpsError(f"{self._address} has {self._words.words:,} words; got {method}: leave the number out")
        if KERNELS.get(method.name, self._words.kernel) != self._words.kernel:
            named = {kernel: name for name, kernel in KERNELS.items()}
            instead = f"name {named[self._words.kernel]}" if self._words.kernel in named else "omit the row"
            raise OpsError(f"{self._address} compares words by {self._words.kernel}, not by {method}; {instead}")

    def _check_database(self, method: Method, recipe: Recipe) -> None:
        held = self._searched
        if held.augmentation == str(recipe) and not held.not_augmented and not held.removed:
            return
        since = f" before {held.not_augmented:,} were added and {held.removed:,} removed" if held.augmentation else ""
        what = f"vectors augmented by {held.augmentation}{since}" if held.augmentation else "raw vectors"
        raise OpsError(
            f"{self._address} searches {what}, so it cannot evaluate {method}; stop it, run `landseer augment --method "
            f"{recipe}` and `landseer serve --vectors augmented`, or evaluate without --server"
        )

    def prepare(self, dataset: Dataset, methods: Sequence[Method], console: Console) -> dict[Path, str]:
        """Index the references that the service lacks; check that the queries can be decoded."""
        _check_turned(dataset, methods)
        pictures = [PictureFile(id=picture_id(path), path=path) for path in dataset.references]
        tally = UploadTally(total=len(pictures))
        with bars(console) as progress:
            task = progress.add_task(f"indexing at {self._address}", total=tally.total)

            async def upload(client: SearchClient) -> StatsResponse:
                await Upload(
                    client,
                    UploadPlan(skip_indexed=True),
                    tally,
                    on_progress=lambda: progress.update(task, completed=tally.done),
                    on_trouble=lambda why: console.print(f"trying again: {why}", markup=False, soft_wrap=True),
                ).run(pictures)
                return await client.stats()

            shared = any(row is not None for row in dataset.own_rows())
            self._set(self._call(upload), known=tally.total - len(tally.failures), shared=shared)
        console.print(f"{plural(tally.indexed, 'picture')} indexed at {self._address}, {tally.skipped:,} already there")
        return self._unreadable(dataset) | {failure.picture.path: failure.message for failure in tally.failures}

    def ranker(self, dataset: Dataset) -> Rank:
        """Return a function that ranks by searching; other pictures of the service follow the references."""
        rows: dict[str, int] = {}
        self._references = len(dataset.references)
        for row, path in enumerate(dataset.references):
            rows.setdefault(picture_id(path), row)
        wanted = list(zip(dataset.queries, dataset.own_rows(), strict=True))

        def rank(method: Method, begin: Begin) -> Searched:
            self.check([method])  # Again: pictures indexed meanwhile are not augmented.
            progress = begin("searching", len(wanted))

            async def one(client: SearchClient, query: Query, own: int | None) -> Ids:
                answer = await self._answer(client, query, own, method)
                progress()
                # Keeps rows, not answers: a thousand hits with their metadata take a megabyte.
                return self._ranking(answer, query, own, rows)

            orders = self._call(lambda client: _some_at_once([partial(one, client, *pair) for pair in wanted]))
            return Searched(orders=orders)

        return rank

    async def _answer(self, client: SearchClient, query: Query, own: int | None, method: Method) -> SearchResponse:
        path, region = query.shot.path, query.shot.region
        # A query by id is also excluded from its own neighbours; the picture of an id is upright.
        asked: Path | str | bytes = path if own is None else picture_id(path)
        if query.shot.turn:
            asked, region = await asyncio.to_thread(self._shown, query.shot)
        answer = await client.search(
            asked,
            region=None if region is None else (region.x, region.y, region.width, region.height),
            top_k=self._depth,
            **_stages(method),
        )
        if answer.degradations:
            left_out = answer.degradations[0]
            raise OpsError(
                f"{self._address} left out {left_out.stage} for {path} ({left_out.reason}), so the figures would not "
                f"be those of {method}; run again when it is less busy"
            )
        return answer

    def _ranking(self, answer: SearchResponse, query: Query, own: int | None, rows: dict[str, int]) -> Ids:
        """Return the rows of the hits; an id that is not in the data set gets the next free row."""
        itself = picture_id(query.shot.path)
        if query.shot.region is not None or (own is None and rows.get(itself, self._references) < self._references):
            itself = ""
        ids = [hit.id for hit in answer.hits if hit.id != itself]
        return np.array([rows.setdefault(id, self._references + len(rows)) for id in ids], np.int64)

    def _unreadable(self, dataset: Dataset) -> dict[Path, str]:
        found = {}
        for query, own in zip(dataset.queries, dataset.own_rows(), strict=True):
            try:
                if own is None or query.shot.turn:
                    data, region = self._shown(query.shot)
                    prepare(data, profile=self._profile, limits=self._limits, region=region)
            except InvalidInput as error:
                found[query.shot.path] = error.description
            except OSError as error:
                found[query.shot.path] = str(error.strerror)
        return found

    def _shown(self, shot: Shot) -> tuple[bytes, Region | None]:
        return shown(shot, shot.path.read_bytes(), self._limits)

    def _set(self, stats: StatsResponse, *, known: int | None = None, shared: bool = False) -> None:
        """Store the status of the service.

        known: how many of its pictures belong to the data set, None before indexing; shared: whether queries are among
        them.
        """
        self._searched, self._words = stats.searched_vectors, stats.visual_words
        self._profile = Profile(
            backbone=stats.backbone,
            weights_sha256="",
            sizes=Sizes(channels=stats.descriptor_size),
            long_side=stats.long_side,
        )
        self._limits = Limits(max_bytes=stats.max_image_bytes, max_pixels=stats.max_image_pixels)
        self._depth = max(1, min(stats.max_top_k, stats.pictures))
        self.about = About(
            name=f"{self._address} {stats.backbone}",
            long_side=stats.long_side,
            augmentation=self._searched.augmentation,
            untrained=tuple(stats.untrained),
            details={
                "server": self._address,
                "backbone": stats.backbone,
                "pictures": stats.pictures,
                "hits": self._depth,
                "searched_vectors": _told(self._searched),
                "visual_words": _told(self._words),
            },
            notes=tuple(_notes(stats, known=known, shared=shared)),
        )

    def _call(self, do: Callable[[SearchClient], Awaitable[_T]]) -> _T:
        async def run() -> _T:
            async with SearchClient(
                self._address, patience=self._patience, on_wait=self._on_wait, credentials=self._credentials
            ) as client:
                return await do(client)

        try:
            return asyncio.run(run())
        except RpcFailed as error:
            if error.code is grpc.StatusCode.UNIMPLEMENTED:
                raise OpsError(
                    f"{self._address} answers, but not as this version's Landseer server; name the search service "
                    "(`landseer serve`), or bring both to the same version"
                ) from error
            raise OpsError(str(error)) from error
        except LandseerClientError as error:
            raise OpsError(str(error)) from error


async def _some_at_once(jobs: Sequence[Callable[[], Awaitable[_T]]]) -> list[_T]:
    """Run jobs, `AT_ONCE` at a time; the first error cancels the others and is raised."""
    places = asyncio.Semaphore(AT_ONCE)

    async def run(job: Callable[[], Awaitable[_T]]) -> _T:
        async with places:
            return await job()

    tasks = [asyncio.ensure_future(run(job)) for job in jobs]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def _told(status: SearchedVectors | VisualWordsStats) -> dict[str, str | int]:
    """Return a part of the service's status for JSON."""
    return {field.name: getattr(status, field.name) for field in status.DESCRIPTOR.fields}


def _notes(stats: StatsResponse, *, known: int | None, shared: bool) -> Iterator[str]:
    """Yield notes on how to read the figures; for the arguments see `ServedSystem._set`."""
    searched = stats.searched_vectors
    if known is not None and stats.pictures > known:
        more = plural(stats.pictures - known, "other picture")
        yield f"the service also searches {more}, which count as distractors"
    if stats.pictures > stats.max_top_k:
        yield f"the service returns at most {stats.max_top_k:,} hits: pictures beyond them count as not found"
    if searched.augmentation:
        yield f"every row, none included, searches the database augmented by {searched.augmentation}"
    if searched.augmentation and shared:
        yield "queries are part of the augmented vectors of others, so they help to find themselves"
    if searched.not_augmented or searched.removed:
        added = f"{plural(searched.not_augmented, 'picture')} added, searched by raw vectors"
        yield f"since the augmentation: {added}, and {searched.removed:,} removed"


def _check_turned(dataset: Dataset, methods: Sequence[Method]) -> None:
    """Raise OpsError for turned queries that would be expanded by themselves."""
    if not dataset.turn or all(row is None for row in dataset.own_rows()):
        return
    for method in methods:
        if _expands(method):
            raise OpsError(
                f"--turn with {method}: queries are pictures of the index, and a turned one is sent as a picture, so "
                "the service would expand it by its own upright self; omit the row, or use queries outside of the "
                "references"
            )


def _expands(method: Method) -> bool:
    return method.name in EXPANSIONS and method.name != NONE


def _stages(method: Method) -> dict[str, Any]:
    """Return the arguments of a search that name every stage; the rows of the default leave them to the service."""
    if method.name == DEFAULT:
        return {}
    if method.name == ONCE:
        return {"expansion": NONE}
    if method.name == VERIFIED:
        return {"expansion": _expansion(method)}
    expansion = _expansion(method) if _expands(method) else NONE
    return {"first_stage": FIRST_STAGES[method.name], "expansion": expansion, "reranking": "none"}


def _expansion(method: Method) -> Expansion:
    """Return the message. An untrained LAttQE is allowed, as in process; the report says that it is untrained."""
    return Expansion(
        method=EXPANSIONS[method.name],
        neighbours=method.neighbours,
        alpha=method.alpha if method.name == "alphaqe" else None,
        allow_untrained=method.name == LATTQE,
    )
