"""Load a running Landseer over gRPC with all kinds of searches, and some uploads.

    locust -f ops/locustfile.py --host 127.0.0.1:7070 --photos FOLDER                # page at 127.0.0.1:8089
    locust -f ops/locustfile.py --host 127.0.0.1:7070 --photos FOLDER --headless --load-shape ramp

`make load` starts the servers, runs this file and writes a report. The photographs are indexed first, under
`load/NAME`. Each user waits for an answer before the next call; an indexed picture must be its own first hit, or score
as high. The number of users follows the plan of `--load-shape`; without one it is `--users`.
"""

from __future__ import annotations

# Must come first, before any channel exists: otherwise gRPC blocks the only thread that gevent has.
import grpc.experimental.gevent

grpc.experimental.gevent.init_gevent()

import gevent

# Every waiting call takes one of these threads. With gevent's default of ten, the eleventh user would wait for another
# user's answer, and that would be counted as the server's time.
gevent.get_hub().threadpool.maxsize = 1024

import logging
import random
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from locust import LoadTestShape, User, constant_throughput, events, task
from locust.env import Environment

from landseer.client import Box
from landseer.ops.load.shapes import SHAPES
from landseer.v1 import index_pb2, index_pb2_grpc, search_pb2, search_pb2_grpc

log = logging.getLogger(__name__)
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
MOST_PHOTOS = 200
TOP_K = 10
SAME_SCORE = 1e-3
"""Scores of the same search differ by rounding, which depends on the batch."""
PAUSE_S = 1.0
"""Wait after being rejected, as in the server's RetryInfo."""
AGAIN = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
PLAIN = search_pb2.Reranking(method=search_pb2.RERANKING_METHOD_NONE)
COATTENTION = search_pb2.Reranking(method=search_pb2.RERANKING_METHOD_COATTENTION, candidates=50)
RANK_CURVE = search_pb2.Expansion(method=search_pb2.EXPANSION_METHOD_RANK_CURVE)


@dataclass(frozen=True)
class Photo:
    """An encoded photograph and the id that it is indexed under."""

    id: str
    data: bytes


PHOTOS: list[Photo] = []
"""Filled when the test starts; all users share them."""


@events.init_command_line_parser.add_listener
def options(parser: ArgumentParser) -> None:
    """Declare our options; they also appear in the web page's form."""
    parser.add_argument("--photos", default="", help="folder of photographs to index and to search with")
    parser.add_argument("--load-shape", default="", choices=("", *SHAPES), help="plan for the number of users")
    parser.add_argument("--peak", type=int, default=16, help="maximum number of users of a plan")
    parser.add_argument("--length", type=float, default=60.0, help="length of a plan in seconds")
    parser.add_argument("--only", default="", help="tasks to run, such as search_picture,search_id (default: all)")
    parser.add_argument("--deadline", type=float, default=30.0, help="deadline of a call in seconds")
    parser.add_argument("--pace", type=float, default=0.0, help="maximum calls per second of one user (0: no limit)")


@events.init.add_listener
def check_photos(environment: Environment, **_: Any) -> None:
    """Exit at once if there is nothing to send."""
    asked: Any = environment.parsed_options
    if not asked.photos or not read_photos(Path(asked.photos)):
        sys.exit(
            f"no photographs ({', '.join(sorted(SUFFIXES))}) in {asked.photos!r}; choose a folder: --photos FOLDER"
        )


@events.test_start.add_listener
def index_photos(environment: Environment, **_: Any) -> None:
    """Index the photographs before the first user starts."""
    asked: Any = environment.parsed_options
    photos = read_photos(Path(asked.photos))
    with grpc.insecure_channel(address(environment.host)) as channel:
        stub = index_pb2_grpc.IndexServiceStub(channel)
        pictures = (index_pb2.Picture(id=photo.id, image=photo.data) for photo in photos)
        answer = stub.UpsertMany((index_pb2.UpsertManyRequest(picture=one) for one in pictures), timeout=600)
    for failure in answer.failures:
        log.warning("%s was not indexed: %s", failure.id, failure.message)
    refused = {failure.id for failure in answer.failures}
    PHOTOS[:] = [photo for photo in photos if photo.id not in refused]
    environment.stats.clear_all()  # otherwise the time of indexing would count in every rate
    log.info("indexed %d photographs", len(PHOTOS))


def read_photos(folder: Path) -> list[Photo]:
    """Return up to `MOST_PHOTOS` photographs of a folder, sorted by name."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)[:MOST_PHOTOS]
    return [Photo(f"load/{path.relative_to(folder)}", path.read_bytes()) for path in found]


def address(host: str | None) -> str:
    """Return the host:port of --host, which may be a URL when it comes from the web page."""
    return (host or "127.0.0.1:7070").rpartition("//")[2].rstrip("/")


class CallFailed(Exception):
    """A failed call; its text, a gRPC code or WRONG_HIT, is the name under which the report counts it."""


class Recorder(grpc.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    """Reports every call to locust: name, time, size of the answer, error code."""

    def __init__(self, environment: Environment, deadline_s: float) -> None:
        self.name = ""
        """Name of the next call. A user makes one call at a time, so the recorder can hold it."""
        self.wrong: Callable[[Any], bool] = lambda answer: False
        """Returns whether the next answer is wrong although the call succeeded."""
        self._environment = environment
        self._deadline_s = deadline_s

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        """Make the call with our deadline and wait for it."""
        bounded = details._replace(timeout=self._deadline_s)
        began, started = time.time(), time.perf_counter()
        call = continuation(bounded, request)
        code = call.code()
        answer = call.result() if code is grpc.StatusCode.OK else None
        failed = CallFailed(code.name) if answer is None else CallFailed("WRONG_HIT") if self.wrong(answer) else None
        self._environment.events.request.fire(
            request_type="grpc",
            name=self.name,
            start_time=began,
            response_time=(time.perf_counter() - started) * 1e3,
            response_length=0 if answer is None else answer.ByteSize(),
            response=answer,
            context={},
            exception=failed,
        )
        if code in AGAIN:
            gevent.sleep(PAUSE_S)
        return call


class Searcher(User):
    """A user who makes calls with the probabilities given by the tasks' weights."""

    host = "127.0.0.1:7070"

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        asked: Any = environment.parsed_options
        if asked.pace > 0:
            self.wait_time = constant_throughput(asked.pace).__get__(self)
        if asked.only:
            self.tasks = chosen(self.tasks, asked.only.split(","))
        self._recorder = Recorder(environment, asked.deadline)
        self._channel = grpc.insecure_channel(
            # Its own connection, like a separate client.
            address(self.host),
            options=[("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)],
        )
        observed = grpc.intercept_channel(self._channel, self._recorder)
        self._search = search_pb2_grpc.SearchServiceStub(observed)
        self._index = index_pb2_grpc.IndexServiceStub(observed)

    def on_stop(self) -> None:
        """Close the connection."""
        self._channel.close()

    @task(10)
    def search_picture(self) -> None:
        """Search with a whole picture."""
        photo = random.choice(PHOTOS)
        self._searched("search picture", photo, image=photo.data)

    @task(2)
    def search_box(self) -> None:
        """Search with part of a picture: the upper left 64 x 64 pixels, which every photograph has."""
        box = Box(x=0, y=0, width=64, height=64)
        self._searched("search picture, box", None, image=random.choice(PHOTOS).data, region=box)

    @task(3)
    def search_id(self) -> None:
        """Search with an indexed picture, by id."""
        self._searched("search id", None, id=random.choice(PHOTOS).id)

    @task(4)
    def search_coattention(self) -> None:
        """Search with a picture and re-rank."""
        photo = random.choice(PHOTOS)
        self._searched("search picture, co-attention", None, image=photo.data, reranking=COATTENTION)

    @task(2)
    def search_expanded(self) -> None:
        """Search with a picture and expand the query."""
        photo = random.choice(PHOTOS)
        self._searched("search picture, rank curve", None, image=photo.data, expansion=RANK_CURVE)

    @task(1)
    def search_id_everything(self) -> None:
        """Search by id, expand and re-rank: all stages except describing."""
        self._searched(
            "search id, rank curve, co-attention",
            None,
            id=random.choice(PHOTOS).id,
            expansion=RANK_CURVE,
            reranking=COATTENTION,
        )

    @task(1)
    def upsert(self) -> None:
        """Index a picture again."""
        photo = random.choice(PHOTOS)
        self._recorder.name, self._recorder.wrong = "upsert", lambda answer: False
        self._call(self._index.Upsert, index_pb2.UpsertRequest(picture={"id": photo.id, "image": photo.data}))

    def _searched(self, name: str, expected: Photo | None, **query: Any) -> None:
        self._recorder.name = name
        self._recorder.wrong = lambda answer: expected is not None and not is_among_the_best(expected.id, answer.hits)
        # Every stage is named, so that the load does not depend on the server's defaults.
        stages = {"first_stage": search_pb2.FIRST_STAGE_GLOBAL, "reranking": PLAIN}
        self._call(self._search.Search, search_pb2.SearchRequest(**{"top_k": TOP_K, **stages, **query}))

    @staticmethod
    def _call(method: Callable[[Any], Any], request: Any) -> None:
        try:
            method(request)
        except grpc.RpcError:
            log.debug("call failed; the recorder has counted it", exc_info=True)


def is_among_the_best(id: str, hits: Sequence[Any]) -> bool:
    """Return whether a picture is the best hit or tied with it: it may be indexed under other ids too."""
    best = [hit.id for hit in hits if hit.score >= hits[0].score - SAME_SCORE]
    # With more copies than hits there is no way to tell.
    return id in best or len(best) == TOP_K


def chosen(tasks: Sequence[Any], names: Sequence[str]) -> list[Any]:
    """Return the tasks with these names. ValueError for an unknown name."""
    known = {one.__name__ for one in tasks}
    if unknown := sorted(set(names) - known):
        raise ValueError(f"--only names {', '.join(unknown)}; expected some of {', '.join(sorted(known))}")
    return [one for one in tasks if one.__name__ in names]


class Planned(LoadTestShape):
    """Follows the plan of --load-shape; without one, runs --users for --run-time."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """Return the number of users for now and how many may start per second; None at the end."""
        if self.runner is None:
            return None
        asked: Any = self.runner.environment.parsed_options
        if not PHOTOS:
            self.reset_time()  # The plan starts after indexing.
        if not asked.load_shape:
            over = asked.run_time and self.get_run_time() > asked.run_time
            return None if over else (asked.users or 1, asked.spawn_rate or 1)
        gone = self.get_run_time() / asked.length
        return None if gone >= 1 else (SHAPES[asked.load_shape](gone, asked.peak), asked.peak)
