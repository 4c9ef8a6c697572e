"""Assemble an orchestrator and run it. `serve.py` is the command; tests and benchmarks call this module."""

from __future__ import annotations

import asyncio
import logging
import socket
from functools import partial
from typing import Any

import cv2
import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha._async import ReflectionServicer
from grpc_reflection.v1alpha.reflection_pb2_grpc import add_ServerReflectionServicer_to_server

from landseer.client import keepalive
from landseer.ensemble.api.authorization import Authorizer
from landseer.ensemble.api.decoding import Decoder
from landseer.ensemble.api.door import ANSWERING_S, Door
from landseer.ensemble.api.health import SERVICES, Health
from landseer.ensemble.api.interceptors import Observer
from landseer.ensemble.api.service import Gates, IndexService, SearchService, ServiceParts
from landseer.ensemble.app.heap import keep_trimmed
from landseer.ensemble.asmk.kernel import KERNELS
from landseer.ensemble.config import ServerConfig, split_address
from landseer.ensemble.index.codebooks import codebooks_of
from landseer.ensemble.index.readiness import Readiness
from landseer.ensemble.inference.triton import Triton
from landseer.ensemble.ingest.indexing import Indexer
from landseer.ensemble.keypoints.extractor import Extractor
from landseer.ensemble.keypoints.quantiser import Quantiser
from landseer.ensemble.pictures.decoders import Decode, Decoders, decode_here, memory_of
from landseer.ensemble.search.admission import Admission
from landseer.ensemble.search.describe import PATIENCE_S, Describer
from landseer.ensemble.search.gate import Gate
from landseer.ensemble.search.held_bytes import HeldBytes
from landseer.ensemble.security.certificates import certificates_of
from landseer.ensemble.security.tokens import TokenFile
from landseer.ensemble.telemetry.metrics import Metrics
from landseer.ensemble.telemetry.metrics_server import MetricsServer
from landseer.ensemble.telemetry.tracing import OFF, Tracing
from landseer.ensemble.workers import Workers
from landseer.v1 import index_pb2_grpc, search_pb2_grpc

log = logging.getLogger(__name__)

WINDOW_BYTES = 2**20
"""How far a call may send ahead of what was read: enough for streams of 20 MB/s at a round trip of 50 ms. A message
that is being read may be longer."""
RECEIVING = 4
"""Messages received at a time: enough to keep a core busy with copying them."""


class RunningServer:
    """A listening orchestrator, not necessarily SERVING yet: see `ready`.

    ValueError for an unknown kernel, or an unfit codebook, certificate or file of tokens; OSError if the codebook
    cannot be read.
    """

    def __init__(self, config: ServerConfig, tracing: Tracing = OFF) -> None:
        if config.kernel and config.kernel not in KERNELS:
            raise ValueError(f"kernel is {config.kernel!r}; expected one of {', '.join(KERNELS)}")
        self._config = config
        self._tracing = tracing
        self._certificates = certificates_of(config)
        self.metrics = Metrics()
        self.health = Health()
        self._triton = Triton(
            config.triton, timeout_s=config.inference_timeout_s, metrics=self.metrics, tracing=tracing
        )
        self._readiness = Readiness(config, self._triton, self.metrics, self._show_serving)
        self._query_workers = Workers("decode", threads=config.threads)
        self._index_workers = Workers("decode-bulk", threads=config.threads)
        self._decoders = Decoders(memory=memory_of(config.limits), seconds=config.decode_s)
        self._extractor = _extractor(config)
        self._held = HeldBytes(most=config.bytes_in_flight, metrics=self.metrics)
        self._door = self._make_door()
        self._grpc = self._grpc_server()
        self._http: MetricsServer | None = None
        self._watch: asyncio.Task[None] | None = None
        self._trim: asyncio.Task[None] | None = None
        self._stopped = False
        self.port = 0
        """The bound gRPC port."""

    @property
    def address(self) -> str:
        """HOST:PORT for clients."""
        host = split_address(self._config.listen)[0]
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def metrics_port(self) -> int:
        """The port of `/metrics`; 0 if there is none."""
        return self._http.port if self._http else 0

    async def start(self) -> None:
        """Bind and listen. OSError with a one-line message if a port is taken."""
        self._bind()
        if self._config.metrics:
            self._http = MetricsServer(self.metrics, self._config.metrics, self._certificates)
        if self._config.decode_processes:
            self._decoders.start()
        await self._grpc.start()
        self._watch = asyncio.create_task(self._readiness.watch(), name="landseer-watch")
        self._trim = asyncio.create_task(keep_trimmed(lambda: self._held.released), name="landseer-trim")
        log.info("listening on %s, metrics on port %s", self.address, self.metrics_port)

    async def ready(self, timeout_s: float | None = None) -> None:
        """Wait until SERVING. TimeoutError; raises the error that prevents serving, if there is one."""
        wait = asyncio.ensure_future(self.health.wait_until(True))
        done, _ = await asyncio.wait({wait, self._watching()}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        wait.cancel()
        if wait not in done:
            await self.failed(timeout_s=0.0)
            raise TimeoutError(f"the orchestrator was not SERVING within {timeout_s} s")

    async def failed(self, timeout_s: float | None = None) -> None:
        """Wait for an error that makes serving impossible and raise it; return after `timeout_s`."""
        done, _ = await asyncio.wait({self._watching()}, timeout=timeout_s)
        for task in done:
            task.result()

    async def stop(self, grace_s: float | None = None) -> None:
        """Report NOT_SERVING, let running requests finish for `grace_s`, then close the store. May be called twice.

        Meanwhile new requests are refused with Stopping, and so end those that do not finish in time.
        """
        if self._stopped:
            return
        self._stopped = True
        watched = self.health.watches > 0
        self.health.close()
        self.metrics.serving.set(0)
        self._mark(False)
        await self._end_calls(self._config.drain_s if grace_s is None else grace_s, watched=watched)
        for task in filter(None, (self._watch, self._trim)):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._readiness.close()
        await self._triton.close()
        await asyncio.to_thread(self._close_threads)

    async def _end_calls(self, grace_s: float, *, watched: bool) -> None:
        """Refuse new calls, and end the running ones after `grace_s`. watched: whether watches of health end, too.

        gRPC's `stop` tells callers to go elsewhere, and answers what has arrived and is not begun with CANCELLED, as
        if its caller had done it. So we first refuse, for a moment, what has arrived.
        """
        self._door.close()
        await self._door.quiet(grace_s)
        finishing = asyncio.create_task(self._door.finish(grace_s))
        left_s = grace_s if self._door.busy else 0.0
        await self._grpc.stop(left_s + ANSWERING_S if self._door.busy or watched else None)
        await finishing

    def _show_serving(self, serving: bool) -> None:
        self.health.set(serving)
        self.metrics.serving.set(self.health.serving)
        self._mark(self.health.serving)

    def _mark(self, serving: bool) -> None:
        """Show probes without a certificate whether we serve."""
        path = self._config.ready_file
        if path is None:
            return
        try:
            path.touch() if serving else path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("cannot write --ready-file %s: %s", path, error.strerror)

    def _close_threads(self) -> None:
        self._query_workers.close()
        self._index_workers.close()
        self._decoders.close()
        if self._extractor is not None:
            self._extractor.close()
        if self._http is not None:
            self._http.close()
        self._tracing.close()

    def _watching(self) -> asyncio.Task[None]:
        if self._watch is None:
            raise RuntimeError("the orchestrator was not started; await start() first")
        return self._watch

    def _bind(self) -> None:
        """Bind the gRPC port. gRPC only logs why it cannot bind, so try with a plain socket first."""
        try:
            _probe(self._config.listen)
            if self._certificates is None:
                self.port = self._grpc.add_insecure_port(self._config.listen)
            else:
                self.port = self._grpc.add_secure_port(self._config.listen, self._certificates.grpc_credentials())
        except (OSError, RuntimeError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise OSError(f"cannot listen on {self._config.listen}: {why}; choose another with --listen") from error

    def _grpc_server(self) -> grpc.aio.Server:
        server = grpc.aio.server(interceptors=self._interceptors(), options=_options(self._config))
        parts = self._parts()
        search_pb2_grpc.add_SearchServiceServicer_to_server(SearchService(parts), server)  # type: ignore[no-untyped-call]
        index_pb2_grpc.add_IndexServiceServicer_to_server(IndexService(parts), server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        names = (*(name for name in SERVICES if name), "grpc.health.v1.Health", reflection.SERVICE_NAME)
        add_ServerReflectionServicer_to_server(ReflectionServicer(names), server)
        return server

    def _interceptors(self) -> list[Any]:
        """Return the interceptors, the outermost first."""
        tokens = self._config.tokens
        authorizer = [] if tokens is None else [Authorizer(TokenFile(tokens))]
        return [Observer(self.metrics, self._door, self._tracing), Decoder(), *authorizer]

    def _make_door(self) -> Door:
        config = self._config
        slow = max(RECEIVING, config.bytes_in_flight // config.limits.max_bytes)
        return Door(calls=config.calls, receiving=RECEIVING, slow=slow, held=self._held, metrics=self.metrics)

    def _parts(self) -> ServiceParts:
        config, limits = self._config, self._config.limits
        admission = Admission(running=config.in_flight, metrics=self.metrics)
        # First, so that what was begun is ended.
        stages = admission.lane("stage", waiting=config.calls)
        searches = admission.lane("search", waiting=config.waiting)
        uploads = admission.lane("upload", waiting=16 * config.bulk_in_flight)
        decode: Decode = self._decoders.run if config.decode_processes else decode_here
        describing = partial(Describer, self._triton, limits=limits, decode=decode)
        describer = describing(searches, self._query_workers, self.metrics)
        # Separate threads, so that searches do not queue behind a bulk upload.
        bulk = describing(uploads, self._index_workers, self.metrics, patience_s=PATIENCE_S)
        return ServiceParts(
            config=config,
            metrics=self.metrics,
            tracing=self._tracing,
            readiness=self._readiness,
            gates=_gates(config, self.metrics),
            triton=self._triton,
            lane=stages,
            describer=describer,
            extractor=self._extractor,
            indexer=Indexer(
                self._readiness,
                bulk,
                self.metrics,
                thumbnails=config.thumbnails,
                extractor=self._extractor,
                local_features=config.deep,
                patches=config.keypoints,
                regions=config.regions,
                in_flight=config.bulk_in_flight,
                held=self._held,
            ),
        )


async def start_server(config: ServerConfig, tracing: Tracing = OFF) -> RunningServer:
    """Start an orchestrator in this event loop; it closes `tracing` when it stops.

    OSError with a one-line message if a port is taken.
    """
    server = RunningServer(config, tracing)
    try:
        await server.start()
    except BaseException:
        await server.stop(grace_s=0.0)
        raise
    return server


def _gates(config: ServerConfig, metrics: Metrics) -> Gates:
    most, late, threads = config.in_flight + config.waiting, config.refuse_after_s, config.threads
    return Gates(
        pictures=Gate("search", most=most, refuse_after_s=late, at_once=threads, metrics=metrics),
        lookups=Gate("lookup", most=most, refuse_after_s=late, at_once=threads, metrics=metrics),
        # Whoever indexes would rather wait.
        uploads=Gate("upload", most=16 * config.bulk_in_flight, metrics=metrics),
    )


def _extractor(config: ServerConfig) -> Extractor | None:
    # OpenCV finds keypoints on threads of its own, as many as the machine has cores.
    cv2.setNumThreads(config.threads)
    codebook = codebooks_of(config).keypoints
    return None if codebook is None else Extractor(Quantiser(codebook), threads=config.threads)


def _probe(address: str) -> None:
    """Raise OSError if the address cannot be bound."""
    host, port = split_address(address)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, name = found[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(name)


def _options(config: ServerConfig) -> list[tuple[str, Any]]:
    return [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", config.max_answer_bytes),
        # Otherwise two servers can listen on one port and silently share its connections.
        ("grpc.so_reuseport", 0),
        # A busy machine answers gRPC's bandwidth probes late. gRPC takes that for a long line and lets uploads send
        # ever further ahead of what was read: 84 MB were seen. A fixed window bounds what is buffered here.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
        *keepalive.server_options(),
    ]
