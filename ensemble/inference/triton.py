"""The client of Triton: inference, readiness, and served models. No other module calls Triton."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from landseer.client.keepalive import client_options
from landseer.ensemble.deadline import Deadline, bounded
from landseer.ensemble.errors import (
    CheckMissed,
    DeadlinePassed,
    InferenceFailed,
    LandseerError,
    ModelsUnavailable,
    Overloaded,
    ProfileMismatch,
    reason_of,
)
from landseer.ensemble.inference.contracts import RELAYED, ensembles
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.telemetry.metrics import Metrics
from landseer.ensemble.telemetry.tracing import OFF, Tracing

GRAPHS = ("backbone", "detector", "cluster", "lattqe", "coattention")
MODELS = (*GRAPHS, *ensembles())
"""The models that Triton serves."""
OPTIONAL = ("lattqe", "coattention")
"""Those that only optional stages use: while they are not loaded, searches skip these stages."""
PROFILE_PARAMETER = "landseer_profile"
"""Parameter in the model configuration of `describe` that contains `Profile.to_json`."""
TIMEOUT_PARAMETER = "landseer_timeout"
"""Request parameter, `CLOCK SENT TIMEOUT`: a name for our clock, its reading and the timeout in microseconds. Ensembles
pass it on, and our backend drops late requests, whatever its own clock says. Triton's own `timeout` works only with a
queue policy, which makes the pip release stall (docs/triton.md)."""
_CUT = "Received RST_STREAM"
"""What gRPC says, with the code INTERNAL, if a proxy before Triton lost it during a call."""
MENDED = (2, 57)
"""The first release of Triton that does not crash when an inference is cancelled (its pull requests 7840 and 8078)."""
_UNHEARD: set[asyncio.Future[Any]] = set()
"""Calls that go on without their callers: asyncio itself keeps no task alive."""
T = TypeVar("T")
_CHANNEL = [
    # A picture of 1,600 px is 7.7 MB; the clusters of 1,000 candidates are 10 MB.
    ("grpc.max_send_message_length", 256 * 2**20),
    ("grpc.max_receive_message_length", 256 * 2**20),
    # Triton takes seconds to start. Retry often, so that we reconnect as soon as it is back.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


@dataclass(frozen=True, kw_only=True)
class Served:
    """The models that Triton serves."""

    profile: Profile
    versions: tuple[tuple[str, str], ...]
    """(model, version) of every loaded model, sorted by name."""
    server: str = ""
    """The release of Triton, such as 2.51.0."""
    relayed: bool = False
    """Whether a relay stands before it, which cancels no inference."""

    @property
    def fragile(self) -> bool:
        """Whether this release may crash when an inference is cancelled or its caller is gone."""
        return may_crash(self.server)


class Triton:
    """An asynchronous client of one Triton server. Create it inside a running event loop."""

    def __init__(self, address: str, *, timeout_s: float, metrics: Metrics, tracing: Tracing = OFF) -> None:
        self.address = address
        self._tracing = tracing
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._last_answer = -math.inf
        self._known: Served | None = None
        self.replaced = asyncio.Event()
        """Set when an answer shows that the models are not those last checked: time to check again."""
        self._clock = secrets.token_hex(8)
        # Triton 2.51 cuts off a client that pings twice in 5 minutes without data in between. We ping only when nothing
        # came back for seconds, and the checks of readiness make it send something twice a second.
        self._client = InferenceServerClient(address, channel_args=[*_CHANNEL, *client_options()])

    async def infer(
        self, model: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str], deadline: Deadline
    ) -> dict[str, NDArray[Any]]:
        """Run one inference and return the requested outputs, each with its batch axis.

        The request names the model's version as last checked by `served`, and the answer must have that version:
        otherwise ModelsUnavailable, and `replaced` is set. The deadline is passed to gRPC, which gives up then, and to
        Triton, which drops requests that have not started. Cancelling the caller cancels the call, unless that may
        crash Triton. Raises DeadlinePassed, Overloaded, ModelsUnavailable, InferenceFailed.
        """
        deadline.check(f"`{model}`")
        left = deadline.remaining()
        timeout = self._timeout_s if left is None else min(left, self._timeout_s)
        with self._observed(model), self._tracing.triton(model) as headers:
            found = await self._infer(model, inputs, outputs, deadline, timeout, headers=headers)
        self._last_answer = time.monotonic()
        return found

    def answered_since(self, when: float) -> bool:
        """Return whether an inference succeeded since `when`, a point of `time.monotonic`."""
        return self._last_answer >= when

    async def _infer(
        self,
        model: str,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Sequence[str],
        deadline: Deadline,
        timeout: float,
        *,
        headers: dict[str, str] | None,
    ) -> dict[str, NDArray[Any]]:
        version = self._version(model)
        fragile = self._known is not None and self._known.fragile and not self._known.relayed
        call = self._client.infer(
            model,
            [_input(name, array) for name, array in inputs.items()],
            model_version=version,
            outputs=[InferRequestedOutput(name) for name in outputs],
            timeout=max(1, int(timeout * 1e6)),
            client_timeout=None if fragile else timeout,
            headers=headers,
            parameters={TIMEOUT_PARAMETER: f"{self._clock} {time.monotonic_ns() // 1000} {int(timeout * 1e6)}"},
        )
        try:
            result = await (uncancelled(call, timeout) if fragile else call)
        except asyncio.TimeoutError as error:
            raise self._late(model, deadline) from error
        except InferenceServerException as error:
            raise self._translated(error, model, deadline, version) from error
        self._check_version(model, version, result.get_response().model_version)
        return {name: _output(result, name, model) for name in outputs}

    def _version(self, model: str) -> str:
        """Return the version of a model as last checked; empty, for any, if it is not known."""
        return dict(self._known.versions).get(model, "") if self._known else ""

    def _check_version(self, model: str, checked: str, answered: str) -> None:
        """ModelsUnavailable if another version answered than was checked."""
        if checked and answered != checked:
            self.replaced.set()
            raise ModelsUnavailable(
                f"Triton at {self.address} answered with version {answered or 'unknown'} of `{model}`, but version "
                f"{checked} was checked; its models are being checked again: try again"
            )

    @contextmanager
    def _observed(self, model: str) -> Iterator[None]:
        """Count and time a call; the outcome is OK, the error's reason, or CANCELLED."""
        outcome, started = "OK", time.perf_counter()
        try:
            yield
        except BaseException as error:
            outcome = reason_of(error)
            raise
        finally:
            self._metrics.triton.labels(model).observe(time.perf_counter() - started)
            self._metrics.triton_requests.labels(model, outcome).inc()

    async def served(self, timeout_s: float, known: Served | None = None) -> Served:
        """Return the served models, once all but optional ones are loaded.

        known: the previous answer, which saves looking up versions.

        Raises CheckMissed without an answer; ModelsUnavailable if Triton says that a model is not loaded;
        ProfileMismatch if `describe` has no profile.
        """
        if self.replaced.is_set():
            known = None
        self.replaced.clear()
        try:
            self._known = await bounded(self._served(timeout_s, known), timeout_s)
            return self._known
        except asyncio.TimeoutError as error:
            raise CheckMissed(f"Triton at {self.address} did not answer within {timeout_s:g} s") from error
        except InferenceServerException as error:
            said = _first_line(error.message())
            raise CheckMissed(f"Triton at {self.address} cannot be used now: {said}") from error

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def _served(self, timeout_s: float, known: Served | None) -> Served:
        ready = await asyncio.gather(*(self._client.is_model_ready(name, client_timeout=timeout_s) for name in MODELS))
        missing = [name for name, there in zip(MODELS, ready, strict=True) if not there and name not in OPTIONAL]
        if missing:
            raise ModelsUnavailable(f"Triton at {self.address} has not loaded {', '.join(missing)}")
        config = await self._client.get_model_config("describe", client_timeout=timeout_s)
        profile = self._profile(config.config)
        if known is not None and known.profile == profile:
            return known
        # Not at each check: for this, Triton reads the folders of its repository, which may be on a slow disk.
        index = await self._client.get_model_repository_index(client_timeout=timeout_s)
        versions = sorted((model.name, model.version) for model in index.models if model.state == "READY")
        server = await self._client.get_server_metadata(client_timeout=timeout_s)
        return Served(
            profile=profile,
            versions=tuple(versions),
            server=server.version,
            relayed=RELAYED in server.extensions,
        )

    def _profile(self, config: Any) -> Profile:
        text = config.parameters[PROFILE_PARAMETER].string_value if PROFILE_PARAMETER in config.parameters else ""
        try:
            return Profile.from_json(text)
        except ValueError as error:
            said = f"Triton's model `describe` has no valid parameter {PROFILE_PARAMETER}: {error}"
            raise ProfileMismatch(said) from error

    def _translated(
        self, error: InferenceServerException, model: str, deadline: Deadline, version: str
    ) -> LandseerError:
        """Translate Triton's error for a request of that version. Its status is the name of a gRPC code."""
        code, said = str(error.status() or "").rpartition(".")[2], _first_line(error.message())
        if code == "DEADLINE_EXCEEDED" or (_timed_out(said) and deadline.remaining() == 0.0):
            return self._late(model, deadline)
        if "Exceeds maximum queue size" in said or _timed_out(said) or code == "RESOURCE_EXHAUSTED":
            return Overloaded(
                f"Triton's queue for `{model}` is full; try again later, or send fewer requests at a time"
            )
        if code in ("UNAVAILABLE", "NOT_FOUND", "CANCELLED") or _CUT in said:
            if version and "unknown model" in said:
                # That version is not loaded any more.
                self.replaced.set()
            return ModelsUnavailable(f"Triton at {self.address} cannot run `{model}` now: {said}")
        return InferenceFailed(f"Triton failed to run `{model}`: {said}")

    def _late(self, model: str, deadline: Deadline) -> LandseerError:
        left = deadline.remaining()
        if left is None or left > 0.1:
            return ModelsUnavailable(f"Triton at {self.address} did not answer `{model}` within {self._timeout_s:g} s")
        return DeadlinePassed(f"the deadline passed while Triton ran `{model}`; set a longer one")


def may_crash(version: str) -> bool:
    """Return whether a release of Triton, such as 2.51.0, crashes now and then when an inference is cancelled."""
    numbers = [int(part) for part in version.split(".")[:2] if part.isdigit()]
    return bool(numbers) and tuple(numbers) < MENDED


async def uncancelled(call: Coroutine[Any, Any, T], timeout_s: float) -> T:
    """Await a call that goes on, unheard, when the time is over or the caller is cancelled. asyncio.TimeoutError."""
    running = asyncio.ensure_future(call)
    _UNHEARD.add(running)
    running.add_done_callback(_heard)
    return await bounded(asyncio.shield(running), timeout_s)


def _heard(ended: asyncio.Future[Any]) -> None:
    _UNHEARD.discard(ended)
    if not ended.cancelled():
        ended.exception()  # retrieved, as its caller may have gone


def _input(name: str, array: NDArray[Any]) -> InferInput:
    tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array)
    return tensor


def _output(result: Any, name: str, model: str) -> NDArray[Any]:
    array: NDArray[Any] | None = result.as_numpy(name)
    if array is None:
        raise InferenceFailed(f"Triton's model `{model}` returned no output `{name}`; export the models again")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InferenceFailed(f"Triton's model `{model}` returned values in `{name}` that are not finite")
    return array


def _timed_out(said: str) -> bool:
    """Return whether this is Triton's message for a request that waited in its queue too long."""
    return "timeout expired" in said.lower()


def _first_line(text: str | None) -> str:
    return (text or "no message").strip().splitlines()[0][:300]
