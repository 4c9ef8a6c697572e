"""A server that keeps pictures in a dict and misbehaves when told to, on an abstract socket: no port is taken."""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from landseer.client.cli import main
from landseer.v1 import common_pb2, index_pb2, index_pb2_grpc, search_pb2, search_pb2_grpc


def status_bytes(code: str, reason: str, message: str = "", violations: dict[str, str] | None = None) -> bytes:
    status = status_pb2.Status(code=code_pb2.Code.Value(code), message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="landseer"))
    if violations:
        fields = [error_details_pb2.BadRequest.FieldViolation(field=f, description=d) for f, d in violations.items()]
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=fields))
    return status.SerializeToString()


class Fake(search_pb2_grpc.SearchServiceServicer, index_pb2_grpc.IndexServiceServicer):
    """Both services. `fail(method, ...)` makes the next calls of a method fail."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.pictures: dict[str, index_pb2.Picture] = {}
        self.requests: dict[str, list] = defaultdict(list)
        self.deadlines: list[float] = []
        self.judge: Callable[[index_pb2.Picture], tuple[int, str] | None] = lambda picture: None
        self.answer: search_pb2.SearchResponse | None = None
        self.max_image_bytes = 1000
        self.indexed_at = datetime.now(timezone.utc)
        self.health = health.HealthServicer()
        self._failures: dict[str, list] = defaultdict(list)
        self._server: grpc.Server | None = None

    def fail(
        self,
        method: str,
        code: str,
        message: str,
        *,
        reason: str = "",
        times: int = 1,
        pushback: str = "",
        **violations: str,
    ) -> None:
        trailing = (("grpc-status-details-bin", status_bytes(code, reason, message, violations)),) if reason else ()
        trailing += (("grpc-retry-pushback-ms", pushback),) if pushback else ()
        self._failures[method] += [(grpc.StatusCode[code], message, trailing)] * times

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", 8 << 20)])
        search_pb2_grpc.add_SearchServiceServicer_to_server(self, self._server)
        index_pb2_grpc.add_IndexServiceServicer_to_server(self, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        self._bind(time.monotonic() + 5)
        self._server.start()

    def stop(self) -> None:
        if self._server:
            self._server.stop(0).wait()
            self._server = None

    def _bind(self, end: float) -> None:
        """Take the address; after a stop it may be held for a moment longer."""
        try:
            self._server.add_insecure_port(self.address)
        except RuntimeError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
            self._bind(end)

    def set_serving(self, serving: bool) -> None:
        states = health_pb2.HealthCheckResponse
        self.health.set("", states.SERVING if serving else states.NOT_SERVING)

    def _seen(self, method: str, request: object, context: grpc.ServicerContext) -> None:
        self.requests[method].append(request)
        self.deadlines.append(context.time_remaining())
        if self._failures[method]:
            code, message, trailing = self._failures[method].pop(0)
            context.set_trailing_metadata(trailing)
            context.abort(code, message)

    def Search(self, request, context):
        self._seen("Search", request, context)
        if self.answer is not None:
            return self.answer
        hits = [search_pb2.Hit(id=id, score=1 / place) for place, id in enumerate(self.pictures, start=1)]
        for hit in hits:
            hit.scores.CopyFrom(search_pb2.StageScores(**{"global": hit.score}))
        timings = [common_pb2.StageTiming(stage="total", seconds=0.07)]
        return search_pb2.SearchResponse(hits=hits[: request.top_k or 10], timings=timings, index_size=len(hits))

    def Describe(self, request, context):
        self._seen("Describe", request, context)
        return search_pb2.DescribeResponse(width=3, height=2, descriptor=search_pb2.Descriptor(values=[1.0, 0.0]))

    def Upsert(self, request, context):
        self._seen("Upsert", request, context)
        return index_pb2.UpsertResponse(replaced=self._put(request.picture), sequence=len(self.pictures))

    def UpsertMany(self, request_iterator, context):
        self._seen("UpsertMany", None, context)
        answer = index_pb2.UpsertManyResponse()
        for position, request in enumerate(request_iterator):
            verdict = self.judge(request.picture)
            if verdict:
                code, message = verdict
                answer.failures.add(id=request.picture.id, position=position, code=code, message=message)
            else:
                answer.replaced += self._put(request.picture)
                answer.indexed += 1
        return answer

    def Delete(self, request, context):
        self._seen("Delete", request, context)
        if self.pictures.pop(request.id, None) is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no picture {request.id!r} is indexed")
        return index_pb2.DeleteResponse(sequence=1)

    def Get(self, request, context):
        self._seen("Get", request, context)
        if request.id not in self.pictures:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no picture {request.id!r} is indexed")
        found = self.pictures[request.id]
        boxes = [common_pb2.DetectedBox(box=common_pb2.Box(x=1, y=2, width=3, height=4), score=0.5)]
        return index_pb2.GetResponse(
            id=found.id,
            metadata=found.metadata,
            width=640,
            height=480,
            boxes=boxes,
            sequence=7,
            indexed_at=self.indexed_at,
            thumbnail=b"\xff\xd8\xff",
        )

    def List(self, request, context):
        self._seen("List", request, context)
        ids = sorted((id for id in self.pictures if id.startswith(request.prefix)), key=str.encode)
        ids = [id for id in ids if id > request.page_token]
        page = ids[: request.page_size or 2]
        listed = [
            index_pb2.ListedPicture(id=id, metadata=self.pictures[id].metadata if request.include_metadata else {})
            for id in page
        ]
        return index_pb2.ListResponse(pictures=listed, next_page_token=page[-1] if len(ids) > len(page) else "")

    def Stats(self, request, context):
        self._seen("Stats", request, context)
        return index_pb2.StatsResponse(
            pictures=len(self.pictures),
            backbone="lite0",
            untrained=["whitening", "lattqe"],
            store_bytes=4096,
            max_image_bytes=self.max_image_bytes,
        )

    def _put(self, picture: index_pb2.Picture) -> bool:
        replaced = picture.id in self.pictures
        self.pictures[picture.id] = picture
        return replaced


@pytest.fixture
def fake() -> Iterator[Fake]:
    server = Fake(f"unix-abstract:landseer-{uuid.uuid4()}")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with photos/a.jpg, photos/b.PNG, photos/deep/a.jpg and files that are none."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.PNG", "deep/a.jpg", "notes.txt", ".hidden.jpg", ".git/c.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() if name == "notes.txt" else b"\xff\xd8\xff" + name.encode())
    return tmp_path / "photos"


@pytest.fixture
def run(fake, capsys, monkeypatch):
    """Run a command against the fake server: status, stdout, stderr."""
    monkeypatch.setenv("LANDSEER_SERVER", fake.address)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(list(arguments))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
