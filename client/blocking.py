"""`BlockingSearchClient`: the client for code without an event loop."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from landseer.client import forking
from landseer.client.channel import MAX_ANSWER_BYTES
from landseer.client.client import DEFAULT_SERVER, DEFAULT_TIMEOUT, SearchClient
from landseer.client.credentials import PLAIN, Credentials
from landseer.v1.index_pb2 import ListedPicture

_P = ParamSpec("_P")
_R = TypeVar("_R")


class _Blocking(Generic[_P, _R]):
    """Turns a method of `SearchClient` into a blocking one with the same signature."""

    def __init__(self, method: Callable[Concatenate[SearchClient, _P], Coroutine[Any, Any, _R]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, instance: BlockingSearchClient, owner: type[BlockingSearchClient]) -> Callable[_P, _R]:
        @functools.wraps(self._method)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            return instance._run(self._method(instance._client, *args, **kwargs))

        return call


class BlockingSearchClient:
    """A `SearchClient` with blocking calls. Use it as `with BlockingSearchClient() as client:`.

    It runs the async client on an event loop in its own thread; any number of threads may call it at once.
    `SearchClient` documents the methods.
    """

    search = _Blocking(SearchClient.search)
    describe = _Blocking(SearchClient.describe)
    upsert = _Blocking(SearchClient.upsert)
    upsert_many = _Blocking(SearchClient.upsert_many)
    delete = _Blocking(SearchClient.delete)
    get = _Blocking(SearchClient.get)
    list_page = _Blocking(SearchClient.list_page)
    stats = _Blocking(SearchClient.stats)
    ready = _Blocking(SearchClient.ready)
    wait_ready = _Blocking(SearchClient.wait_ready)

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
        self._client = SearchClient(
            server,
            timeout=timeout,
            patience=patience,
            on_wait=on_wait,
            max_answer_bytes=max_answer_bytes,
            credentials=credentials,
        )
        self._starting = threading.Lock()
        self._running: _Loop | None = None
        self._closed = False

    def __enter__(self) -> BlockingSearchClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def list(
        self, prefix: str = "", *, include_metadata: bool = False, filter: str = "", fields: Sequence[str] = ()
    ) -> Iterator[ListedPicture]:
        """Yield all indexed pictures whose ids start with `prefix`, as `SearchClient.list` does."""
        how: dict[str, Any] = {"include_metadata": include_metadata, "filter": filter, "fields": fields}
        token = ""
        while True:
            page = self.list_page(prefix, page_token=token, **how)
            yield from page.pictures
            token = page.next_page_token
            if not token:
                return

    def close(self) -> None:
        """Close the connection and stop the thread. Closing twice is harmless."""
        self._closed = True
        running, self._running = self._running, None
        # A forked child has no thread to stop; the connection is its parent's.
        if running is not None and running.pid == os.getpid():
            running.run(self._client.close())
            running.stop()

    def _run(self, coroutine: Coroutine[Any, Any, _R]) -> _R:
        try:
            loop = self._loop()
        except BaseException:
            coroutine.close()
            raise
        return loop.run(coroutine)

    def _loop(self) -> _Loop:
        """Return the event loop of this process, started on the first call."""
        forking.check()
        with self._starting:
            if self._closed:
                raise RuntimeError("this client is closed; make a new one")
            if self._running is None:
                self._running = _Loop()
            return self._running


class _Loop:
    """An event loop in its own thread."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        """The process that has the thread."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="landseer-client", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, _R]) -> _R:
        """Run a coroutine to its end."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C must not leave the call running; no effect on a finished future.
            raise

    def stop(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
