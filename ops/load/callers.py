"""Callers of an overload test: in this event loop, each with a deadline, obeying what a refusal asks of them."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from google.rpc import error_details_pb2, status_pb2

SEARCH = "/landseer.v1.SearchService/Search"
DETAILS = "grpc-status-details-bin"
PAUSE_S = 1.0
"""After a refusal that does not say when to come back."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A finished call."""

    ended: float
    """A point of `time.monotonic`."""
    seconds: float
    code: str
    """Name of a grpc.StatusCode."""
    retry_s: float | None = None
    """`google.rpc.RetryInfo` of a refusal."""

    @property
    def began(self) -> float:
        """A point of `time.monotonic`."""
        return self.ended - self.seconds

    @property
    def answered(self) -> bool:
        """Whether it was answered, so before its deadline."""
        return self.code == "OK"


@dataclass(frozen=True, kw_only=True)
class Calls:
    """The calls of a time span."""

    calls: Sequence[Call]
    seconds: float
    began: float = 0.0
    """When the span began, a point of `time.monotonic`."""

    def split(self, after_s: float) -> tuple[Sequence[Call], Sequence[Call]]:
        """Return the calls that began within so many seconds, and the later ones."""
        at = self.began + after_s
        return [call for call in self.calls if call.began < at], [call for call in self.calls if call.began >= at]

    def count(self, code: str) -> int:
        """Return how many calls ended so."""
        return sum(call.code == code for call in self.calls)

    @property
    def goodput(self) -> float:
        """Answers per second."""
        return self.count("OK") / self.seconds

    def quantile_ms(self, q: float, code: str = "OK") -> float:
        """Return a quantile of the time that calls took which ended so, in ms; NaN without any."""
        took = [call.seconds for call in self.calls if call.code == code]
        return float(np.quantile(took, q)) * 1e3 if took else float("nan")

    @property
    def shed(self) -> list[Call]:
        """The refused calls."""
        return [call for call in self.calls if call.code == "RESOURCE_EXHAUSTED"]


class Callers:
    """Makes searches over one connection and notes how they end. Nothing is serialised or parsed meanwhile."""

    def __init__(self, address: str, requests: Sequence[bytes], *, deadline_s: float) -> None:
        """requests: SearchRequests, serialised."""
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self._channel = grpc.aio.insecure_channel(address, options=[*options, ("grpc.enable_retries", 0)])
        self._search: Any = self._channel.unary_unary(SEARCH, None, None)
        self._requests: Iterator[bytes] = itertools.cycle(requests)
        self._deadline_s = deadline_s
        self.calls: list[Call] = []

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close(None)

    async def one(self) -> Call:
        """Make a call and note it."""
        began, code, retry_s = time.monotonic(), grpc.StatusCode.OK, None
        try:
            await self._search(next(self._requests), timeout=self._deadline_s)
        except grpc.aio.AioRpcError as error:
            code, retry_s = error.code(), retry_of(error)
        ended = time.monotonic()
        call = Call(ended=ended, seconds=ended - began, code=code.name, retry_s=retry_s)
        self.calls.append(call)
        return call

    async def waiting(self, count: int, seconds: float) -> Calls:
        """Run `count` callers who wait for each answer before the next call, and after a refusal as long as it asks.

        Calls begun within `seconds` count, and the time until the last of them ends.
        """

        async def caller() -> None:
            while time.monotonic() < end:
                call = await self.one()
                if call.code == "RESOURCE_EXHAUSTED":
                    # Twice as long at most, as gRPC's own jitter is less than that.
                    await asyncio.sleep((call.retry_s or PAUSE_S) * random.uniform(1, 2))

        began = time.monotonic()
        end = began + seconds
        await asyncio.gather(*(caller() for _ in range(count)))
        return self._since(began)

    async def arriving(self, rate: float, seconds: float) -> Calls:
        """Let calls arrive at random (a Poisson process) at `rate` a second, whatever becomes of those before."""
        began, tasks, rng = time.monotonic(), [], random.Random(0)
        while time.monotonic() < began + seconds:
            tasks.append(asyncio.create_task(self.one()))
            await asyncio.sleep(rng.expovariate(rate))
        await asyncio.gather(*tasks)
        return self._since(began)

    async def together(self, count: int) -> Calls:
        """Make `count` calls at once."""
        began = time.monotonic()
        await asyncio.gather(*(self.one() for _ in range(count)))
        return self._since(began)

    def _since(self, began: float) -> Calls:
        calls = [call for call in self.calls if call.ended >= began]
        return Calls(calls=calls, seconds=max(call.ended for call in calls) - began, began=began)


def retry_of(error: Any) -> float | None:
    """Return the seconds of the RetryInfo that a failed call carries, or None."""
    status = status_pb2.Status.FromString(dict(error.trailing_metadata() or ()).get(DETAILS, b""))
    retry = error_details_pb2.RetryInfo()
    found = any(detail.Unpack(retry) for detail in status.details)
    return retry.retry_delay.ToTimedelta().total_seconds() if found else None
