"""Uploads many files in chunks. Progress counts finished pictures, and a finished chunk stays indexed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from landseer.client.client import SearchClient
from landseer.client.errors import (
    Exhausted,
    LandseerClientError,
    NotIndexed,
    RpcFailed,
    ServerUnavailable,
    UnusableInput,
)
from landseer.client.picture_files import PictureFile
from landseer.client.queries import image_bytes
from landseer.client.readable import one_line
from landseer.client.sidecar import Sidecar
from landseer.v1.index_pb2 import GetResponse, Picture, UpsertManyResponse

# google.rpc.Code and grpc.StatusCode use the same numbers.
_NAMES: dict[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}
_TRY_AGAIN = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
# How calls end when the server is killed; which one depends on the moment.
_LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN)
_LONGEST_PAUSE = 5.0
VERSION = "file_version"
"""Key of the metadata that tells whether a file has changed: its size and the time of its last change."""


@dataclass(frozen=True, kw_only=True)
class UploadPlan:
    """Settings of an upload."""

    metadata: Mapping[str, str] = field(default_factory=dict)
    """Stored with every picture, in addition to its `path` and `file_version`."""
    sidecar: Sidecar = field(default_factory=Sidecar)
    """Metadata of single pictures, which win over those of all."""
    skip_indexed: bool = False
    """Skip pictures whose id is already indexed, unless the file has changed since."""
    chunk: int = 16
    """Pictures per UpsertMany call."""
    concurrency: int = 2
    """Chunks in flight at once: the next keeps the server busy while one finishes."""
    patience: float = 120.0
    """Seconds to keep retrying a chunk while the server is unavailable or full."""
    first_pause: float = 0.5
    """Seconds before the first retry; doubles with each retry, up to 5 s."""


@dataclass(frozen=True, kw_only=True)
class FailedPicture:
    """A picture that was not indexed."""

    picture: PictureFile
    code: str
    """Name of a grpc.StatusCode."""
    message: str


@dataclass(kw_only=True)
class UploadTally:
    """Counts of an upload. They grow while it runs and remain valid if it is interrupted."""

    total: int
    indexed: int = 0
    replaced: int = 0
    skipped: int = 0
    failures: list[FailedPicture] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Number of pictures that need no more work."""
        return self.indexed + self.skipped + len(self.failures)


class Upload:
    """Sends pictures to a server and keeps the tally.

    `on_progress` is called after each chunk, `on_trouble` with the reason before a chunk is retried.
    """

    def __init__(
        self,
        client: SearchClient,
        plan: UploadPlan,
        tally: UploadTally,
        *,
        on_progress: Callable[[], None],
        on_trouble: Callable[[str], None],
    ) -> None:
        self._client, self._plan, self._tally = client, plan, tally
        self._on_progress, self._on_trouble = on_progress, on_trouble
        self._limit = 0

    async def run(self, pictures: Sequence[PictureFile]) -> None:
        """Index the pictures. Raises LandseerClientError for a failure that would affect all the remaining pictures."""
        self._limit = (await self._client.stats()).max_image_bytes
        size = self._plan.chunk
        chunks = iter([pictures[at : at + size] for at in range(0, len(pictures), size)])

        async def work() -> None:
            for chunk in chunks:
                await self._settle(chunk)
                self._on_progress()

        await _together([work() for _ in range(self._plan.concurrency)])

    async def _settle(self, chunk: Sequence[PictureFile]) -> None:
        """Send a chunk until each of its pictures is indexed, skipped or has failed for good."""
        waiting = await self._not_indexed(chunk) if self._plan.skip_indexed else list(chunk)
        pause, end, before = self._plan.first_pause, time.monotonic() + self._plan.patience, self._tally.indexed
        while waiting:
            refused = await self._send(waiting)
            if refused and time.monotonic() + pause > end:
                return self._give_up(refused, any_success=self._tally.indexed > before)
            if refused:
                self._on_trouble(refused[0].message)
                await asyncio.sleep(pause)
            waiting, pause = [failure.picture for failure in refused], min(2 * pause, _LONGEST_PAUSE)
        return None

    def _give_up(self, refused: list[FailedPicture], *, any_success: bool) -> None:
        if not any_success:
            raise LandseerClientError(f"gave up after retrying for {self._plan.patience:g} s: {refused[0].message}")
        self._tally.failures += refused

    async def _send(self, pictures: Sequence[PictureFile]) -> list[FailedPicture]:
        """Send pictures once; return those to retry, each with the reason."""
        batch = _Batch(pictures, self._plan, self._limit)
        try:
            answer = await self._client.upsert_many(batch.messages())
        except RpcFailed as error:
            return await self._after(error, pictures)
        return self._count(answer, batch)

    async def _after(self, error: RpcFailed, pictures: Sequence[PictureFile]) -> list[FailedPicture]:
        """Handle a call that failed as a whole; return the pictures to retry."""
        if _is_lost(error) or error.reason == "OVERLOADED":
            return [_failure(picture, "UNAVAILABLE", str(error)) for picture in pictures]
        if not isinstance(error, Exhausted) or error.reason == "STORE_FULL":
            raise error  # Every other chunk would fail too.
        if len(pictures) == 1:
            self._tally.failures.append(_failure(pictures[0], error.code.name, str(error)))
            return []
        # One of them exceeds the message limit and made the whole call fail: send each in its own call.
        return [refused for picture in pictures for refused in await self._send([picture])]

    def _count(self, answer: UpsertManyResponse, batch: _Batch) -> list[FailedPicture]:
        """Add a response to the tally; return the pictures to retry."""
        self._tally.indexed += answer.indexed
        self._tally.replaced += answer.replaced
        named = [
            _failure(batch.sent[bad.position], _NAMES.get(bad.code, "UNKNOWN"), bad.message)
            for bad in answer.failures
            if bad.position < len(batch.sent)
        ]
        self._tally.failures += batch.unreadable + [failure for failure in named if failure.code not in _TRY_AGAIN]
        return [failure for failure in named if failure.code in _TRY_AGAIN]

    async def _not_indexed(self, chunk: Sequence[PictureFile]) -> list[PictureFile]:
        known = await asyncio.gather(*(self._is_indexed(picture) for picture in chunk))
        self._tally.skipped += sum(known)
        return [picture for picture, there in zip(chunk, known, strict=True) if not there]

    async def _is_indexed(self, picture: PictureFile) -> bool:
        """Return whether the index has the file as it is now."""
        try:
            found = await self._client.get(picture.id)
            return not _changed(picture, found)
        except (NotIndexed, UnusableInput):
            return False
        except OSError:
            return False  # Sending it reports the reason.
        except RpcFailed as error:
            if not _is_lost(error):
                raise
            return False  # Unknown for now. Sending it waits for the server, and indexing it twice is harmless.


def _is_lost(error: RpcFailed) -> bool:
    """Return whether the server, or a proxy before it, ended a call: it may be well soon."""
    return isinstance(error, ServerUnavailable) or error.code in _LOST


class _Batch:
    """The pictures of one call, each read when the call needs it."""

    def __init__(self, pictures: Sequence[PictureFile], plan: UploadPlan, limit: int) -> None:
        self._pictures, self._plan, self._limit = pictures, plan, limit
        self.sent: list[PictureFile] = []
        """Pictures sent so far, in the order of the stream."""
        self.unreadable: list[FailedPicture] = []
        """Pictures that could not be read."""

    async def messages(self) -> AsyncIterator[Picture]:
        """Yield the pictures that can be read."""
        for picture in self._pictures:
            try:
                message = await self._message(picture)
            except UnusableInput as error:
                self.unreadable.append(_failure(picture, "INVALID_ARGUMENT", str(error)))
            else:
                self.sent.append(picture)
                yield message

    async def _message(self, picture: PictureFile) -> Picture:
        self._check_size(picture.path)
        version = _version(picture)  # Before it is read: what changes meanwhile is indexed again.
        image = await image_bytes(picture.path)
        given = {**self._plan.metadata, **self._plan.sidecar.of(picture)}
        metadata = {"path": picture.absolute, **given, VERSION: version}
        try:
            return Picture(id=picture.id, image=image, metadata=metadata)
        except (UnicodeEncodeError, ValueError) as error:
            raise UnusableInput("the name is not UTF-8; rename the file") from error

    def _check_size(self, path: Path) -> None:
        try:
            size = path.stat().st_size
        except OSError:
            return  # Reading the file reports the reason.
        if self._limit and size > self._limit:
            raise UnusableInput(f"{size:,} bytes, above the server's limit of {self._limit:,}")


def _version(picture: PictureFile) -> str:
    try:
        return picture.version()
    except OSError:
        return ""  # Reading the file reports the reason.


def _changed(picture: PictureFile, found: GetResponse) -> bool:
    """Return whether a file differs from the indexed one; by the time alone for a record without a version."""
    if VERSION in found.metadata:
        return picture.version() != found.metadata[VERSION]
    return picture.changed_since(found.indexed_at.ToNanoseconds() / 1e9)


def _failure(picture: PictureFile, code: str, message: str) -> FailedPicture:
    return FailedPicture(picture=picture, code=code, message=one_line(message))


async def _together(coroutines: Sequence[Any]) -> None:
    """Run coroutines concurrently; the first error cancels the others and is raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
