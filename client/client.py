"""`SearchClient`: the Landseer API as coroutines.

Results are the messages of `landseer.v1`, not dataclasses made from them. They are typed (the package ships .pyi
files) and hold every documented field, so a new field needs no second definition that could disagree with the first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from landseer.client import forking, queries, tracing
from landseer.client.channel import MAX_ANSWER_BYTES, open_channel
from landseer.client.credentials import PLAIN, Credentials, TokenMetadata
from landseer.client.errors import DeadlinePassed, NotReady, RpcFailed, ServerUnavailable, ServerUnreachable
from landseer.client.queries import ExpansionName, FirstStageName, Image, Query, Region, RerankingName
from landseer.client.rpc_errors import from_rpc_error
from landseer.client.streaming import send_all
from landseer.v1.index_pb2 import (
    DeleteRequest,
    DeleteResponse,
    GetRequest,
    GetResponse,
    ListedPicture,
    ListRequest,
    ListResponse,
    Picture,
    StatsRequest,
    StatsResponse,
    UpsertManyRequest,
    UpsertManyResponse,
    UpsertRequest,
    UpsertResponse,
)
from landseer.v1.index_pb2_grpc import IndexServiceStub
from landseer.v1.search_pb2 import DescribeRequest, DescribeResponse, Expansion, Reranking, SearchResponse
from landseer.v1.search_pb2_grpc import SearchServiceStub

DEFAULT_SERVER = "127.0.0.1:7070"
"""Where `landseer up` listens by default."""
DEFAULT_TIMEOUT = 30.0
"""Deadline of a call in seconds."""
UPLOAD_TIMEOUT = 600.0
"""Deadline of a stream of uploads in seconds."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 2.0
"""Seconds between two tries while a server loads: the first, and the longest."""
_NOTHING_DONE = ("INDEX_LOADING", "MODELS_UNAVAILABLE", "OVERLOADED", "STOPPING")
"""Reasons of a server that did not begin the call."""
_SHORTEST_CHECK, _LONGEST_CHECK = 0.1, 5.0
"""Seconds that one check of `wait_ready` may take: a server that hangs may recover, or another take its address."""


class SearchClient:
    """Calls a Landseer server. Use it as `async with SearchClient() as client:`; any number of tasks can share one.

    Every call has a deadline (`timeout`, seconds). While the server is unavailable or stops, a call is tried up to four
    times within about two seconds, except `upsert_many` and `delete`; so it is while the server is overloaded, when
    that says so. A client whose calls mostly fail tries each once. Failures raise a `LandseerClientError`.

    With `patience`, in seconds, a call that a server refuses because it is still loading or stopping, has too much to
    do, or its models do not answer, is tried again for that long, except `upsert_many`; `on_wait` gets the reason
    before each pause. `delete` is sent again only if the server says that nothing was done. Where nothing answers at
    the address, a call fails as without.

    `max_answer_bytes` bounds an answer. A server started with a larger `--max-top-k` may send more than the default.

    `credentials` are for a server with TLS or tokens.

    A connection that went dead silently, as behind a firewall that forgot it, is noticed and replaced within 20 s.

    Make a client in each process: after a `fork`, one that has made no call works in the child, and any other raises
    ForkedClient.
    """

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        patience: float = 0.0,
        on_wait: Callable[[str], None] = lambda why: None,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        credentials: Credentials = PLAIN,
    ) -> None:
        self.server = server
        self.credentials = credentials
        self.timeout = timeout
        self.patience = patience
        self.max_answer_bytes = max_answer_bytes
        self._on_wait = on_wait
        self._token = TokenMetadata(credentials, server)
        self._opened: grpc.aio.Channel | None = None

    async def __aenter__(self) -> SearchClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection and cancel running calls. A later call reopens it."""
        if self._opened is not None:
            channel, self._opened = self._opened, None
            if not forking.broken():
                forking.closed(channel)
                await channel.close(None)

    async def search(
        self,
        query: Query,
        *,
        region: Region | None = None,
        top_k: int | None = None,
        expansion: Expansion | ExpansionName | None = None,
        reranking: Reranking | RerankingName | None = None,
        first_stage: FirstStageName | None = None,
        group_by: str | None = None,
        filter: str = "",
        page_size: int = 0,
        page_token: str = "",
        fields: Sequence[str] = (),
        explain: bool = False,
        timeout: float | None = None,
    ) -> SearchResponse:
        """Rank the indexed pictures by their similarity to a query.

        `query` is a picture (bytes), a file (Path), the id of an indexed picture (str) or a descriptor (floats). A
        `str` is never read as a file name. `region` is x, y, width, height in pixels and needs a picture. `None`
        means the server's default. `expansion` and `reranking` take a name, or the message for finer control.
        `group_by="near-identical"` returns copies of one photograph as one hit, `group_by="field:NAME"` the best hit
        of each value of a field of the metadata; `top_k` then counts groups.
        `filter` says which pictures are searched, such as `place = "Ely" AND year > 1990`.
        With `page_size` the `top_k` hits come in pages; `page_token` is the `next_page_token` of the page before.
        `fields` names the metadata that hits have: all if empty; `-NAME` leaves one out, `NAME*` is all that begin so.
        """
        grouping, group_field = queries.grouping(group_by)
        request = await queries.search_request(query)
        request.MergeFrom(
            type(request)(
                region=queries.box(region),
                top_k=top_k,
                expansion=queries.expansion(expansion),
                reranking=queries.reranking(reranking),
                first_stage=queries.first_stage(first_stage),
                group_by=grouping,
                group_field=group_field,
                filter=queries.utf8("filter", filter),
                page_size=queries.not_negative("page_size", page_size),
                page_token=queries.utf8("page_token", page_token),
                metadata_mask=queries.metadata_mask(fields),
                explain=explain,
            )
        )
        answer: SearchResponse = await self._call("SearchService/Search", self._search.Search, request, timeout)
        return answer

    async def describe(
        self, image: Image, *, region: Region | None = None, timeout: float | None = None
    ) -> DescribeResponse:
        """Return a picture's vectors, boxes and attention without indexing it."""
        request = DescribeRequest(image=await queries.image_bytes(image), region=queries.box(region))
        answer: DescribeResponse = await self._call("SearchService/Describe", self._search.Describe, request, timeout)
        return answer

    async def upsert(
        self, id: str, image: Image, *, metadata: Mapping[str, str] | None = None, timeout: float | None = None
    ) -> UpsertResponse:
        """Index a picture, replacing any with the same id. When the call returns, searches find the picture."""
        for name, value in (metadata or {}).items():
            queries.utf8("metadata", f"{name}={value}")
        picture = Picture(id=queries.utf8("id", id), image=await queries.image_bytes(image), metadata=metadata)
        answer: UpsertResponse = await self._call(
            "IndexService/Upsert", self._index.Upsert, UpsertRequest(picture=picture), timeout
        )
        return answer

    async def upsert_many(
        self, pictures: AsyncIterable[Picture] | Iterable[Picture], *, timeout: float = UPLOAD_TIMEOUT
    ) -> UpsertManyResponse:
        """Index a stream of pictures. A bad picture does not stop the others; the response lists it in `failures`.

        Pictures are taken from the iterable as the server reads them, so they need not fit in memory. A plain
        iterable runs on the event loop; use an asynchronous one for slow work. If the call fails, none, some or all
        pictures may be indexed; sending them again is safe.
        """
        try:
            with tracing.call("IndexService/UpsertMany") as metadata:
                call = self._index.UpsertMany(timeout=timeout, metadata=self._metadata(metadata))
                answer: UpsertManyResponse = await send_all(call, _requests(pictures))
        except grpc.aio.AioRpcError as error:
            _raise_if_cancelled(error)
            raise from_rpc_error(error, address=self.server, timeout=timeout) from error
        return answer

    async def delete(self, id: str, *, timeout: float | None = None) -> DeleteResponse:
        """Remove a picture from the index. Raises NotIndexed for an unknown id."""
        answer: DeleteResponse = await self._call(
            "IndexService/Delete",
            self._index.Delete,
            DeleteRequest(id=queries.utf8("id", id)),
            timeout,
            # One that was applied would find nothing the second time, and say so.
            repeatable=False,
        )
        return answer

    async def get(
        self, id: str, *, include_vectors: bool = False, fields: Sequence[str] = (), timeout: float | None = None
    ) -> GetResponse:
        """Return what the index stores about a picture. Raises NotIndexed for an unknown id. `fields`: as in search."""
        mask = queries.metadata_mask(fields)
        request = GetRequest(id=queries.utf8("id", id), include_vectors=include_vectors, metadata_mask=mask)
        answer: GetResponse = await self._call("IndexService/Get", self._index.Get, request, timeout)
        return answer

    async def list_page(
        self,
        prefix: str = "",
        *,
        page_size: int = 0,
        page_token: str = "",
        include_metadata: bool = False,
        filter: str = "",
        fields: Sequence[str] = (),
        timeout: float | None = None,
    ) -> ListResponse:
        """Return some of the indexed pictures whose ids start with `prefix`, sorted by the bytes of their ids.

        `page_token` is the `next_page_token` of the page before. `page_size` 0 leaves the size to the server. `filter`
        and `fields`: as in search; a page may be empty and not the last.
        """
        request = ListRequest(
            prefix=queries.utf8("prefix", prefix),
            page_size=queries.not_negative("page_size", page_size),
            page_token=queries.utf8("page_token", page_token),
            include_metadata=include_metadata,
            filter=queries.utf8("filter", filter),
            metadata_mask=queries.metadata_mask(fields),
        )
        answer: ListResponse = await self._call("IndexService/List", self._index.List, request, timeout)
        return answer

    async def list(
        self, prefix: str = "", *, include_metadata: bool = False, filter: str = "", fields: Sequence[str] = ()
    ) -> AsyncIterator[ListedPicture]:
        """Yield all indexed pictures whose ids start with `prefix`, sorted by the bytes of their ids.

        `filter` and `fields`: as in search. Pictures that are indexed or deleted meanwhile may be among them or not.
        """
        how: dict[str, Any] = {"include_metadata": include_metadata, "filter": filter, "fields": fields}
        token = ""
        while True:
            page = await self.list_page(prefix, page_token=token, **how)
            for picture in page.pictures:
                yield picture
            token = page.next_page_token
            if not token:
                return

    async def stats(self, *, timeout: float | None = None) -> StatsResponse:
        """Return the size, the models and the limits of the index."""
        answer: StatsResponse = await self._call("IndexService/Stats", self._index.Stats, StatsRequest(), timeout)
        return answer

    async def ready(self, *, timeout: float | None = None) -> bool:
        """Return whether the server is ready: models and index loaded. False if it does not answer in time."""
        return await self._why_not_ready(timeout) is None

    async def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until the server is ready. Raises NotReady after `timeout` seconds, with what it found last."""
        end, pause = time.monotonic() + timeout, 0.05
        while why := await self._why_not_ready(max(_SHORTEST_CHECK, min(_LONGEST_CHECK, end - time.monotonic()))):
            if time.monotonic() + pause > end:
                raise NotReady(f"the server at {self.server} was not ready within {timeout:g} s: {why}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)

    async def _why_not_ready(self, timeout: float | None) -> str | None:
        """Return why the server is not ready, None if it is."""
        try:
            health = await self._call("", HealthStub(self._channel).Check, HealthCheckRequest(), timeout)
        except (ServerUnreachable, ServerUnavailable, DeadlinePassed) as error:
            return str(error)
        serving = health.status == HealthCheckResponse.SERVING
        return None if serving else "it answers, but its models or its index are not loaded; see its log"

    @property
    def _channel(self) -> grpc.aio.Channel:
        forking.check()
        # Opened on the first call, so that it belongs to the event loop that uses it.
        if self._opened is None:
            self._opened = open_channel(
                queries.utf8("server", self.server),
                max_answer_bytes=self.max_answer_bytes,
                credentials=self.credentials.channel_credentials(),
            )
            forking.opened(self._opened)
        return self._opened

    @property
    def _search(self) -> Any:
        return SearchServiceStub(self._channel)  # type: ignore[no-untyped-call]

    @property
    def _index(self) -> Any:
        return IndexServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def _metadata(self, traced: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        return (*traced.items(), *self._token.current().items())

    async def _call(
        self,
        name: str,
        method: Callable[..., Any],
        request: Any,
        timeout: float | None,
        *,
        repeatable: bool = True,
    ) -> Any:
        """Call `method`, again while the server loads or has too much to do, for as long as patience lasts.

        repeatable: whether it may be called again if it may have been applied.
        """
        pause, end = _FIRST_PAUSE, time.monotonic() + self.patience
        while True:
            try:
                return await self._once(name, method, request, timeout)
            except RpcFailed as error:
                if not _passes(error, repeatable=repeatable) or time.monotonic() + pause > end:
                    raise
                self._on_wait(str(error))
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _once(self, name: str, method: Callable[..., Any], request: Any, timeout: float | None) -> Any:
        """Call `method` and trace it as `name`; an empty name is not traced."""
        limit = self.timeout if timeout is None else timeout
        try:
            with tracing.call(name) as metadata:
                return await method(request, timeout=limit, metadata=self._metadata(metadata))
        except grpc.aio.AioRpcError as error:
            _raise_if_cancelled(error)
            raise from_rpc_error(error, address=self.server, timeout=limit) from error


def _passes(error: RpcFailed, *, repeatable: bool) -> bool:
    """Return whether a failure may pass by itself, so that the call can be made again."""
    return error.reason in _NOTHING_DONE or (repeatable and isinstance(error, ServerUnavailable))


def _raise_if_cancelled(error: grpc.aio.AioRpcError) -> None:
    """Raise CancelledError if this task is being cancelled.

    When a call fails just as it is cancelled, grpc.aio raises only the failure, and the cancellation (Ctrl-C, or a
    timeout of the caller) would be lost. Python 3.10 cannot tell.
    """
    task = asyncio.current_task()
    if task is not None and getattr(task, "cancelling", int)():
        raise asyncio.CancelledError from error


async def _requests(pictures: AsyncIterable[Picture] | Iterable[Picture]) -> AsyncIterator[UpsertManyRequest]:
    if isinstance(pictures, AsyncIterable):
        async for picture in pictures:
            yield UpsertManyRequest(picture=picture)
    else:
        for picture in pictures:
            yield UpsertManyRequest(picture=picture)
