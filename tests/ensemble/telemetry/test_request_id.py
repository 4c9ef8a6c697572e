"""Request ids in answers, errors and the log."""

from __future__ import annotations

import logging

import grpc
import pytest

from landseer.ensemble.telemetry.logs import TextFormatter
from landseer.ensemble.telemetry.request_id import KEY, request_id_of
from landseer.v1 import index_pb2, search_pb2

Search = search_pb2.SearchRequest


@pytest.mark.parametrize("sane", ["a", "order 7/8", "x" * 128, "~!"])
def test_a_sane_id_of_the_caller_is_kept(sane):
    assert request_id_of([("user-agent", "me"), (KEY, sane)]) == sane


@pytest.mark.parametrize("other", ["", " ", "x" * 129, "line\nend", "naïve", " padded", b"bytes"])
def test_another_is_replaced(other):
    assert len(request_id_of([(KEY, other)])) == 16


def test_new_ids_differ():
    assert len({request_id_of(metadata) for metadata in [(), [(KEY, "")], [("user-agent", "me")]]}) == 3


async def id_of(call):
    """Return the id that came back in the initial metadata."""
    return dict(await call.trailing_metadata()).get(KEY)


async def test_an_answer_carries_the_id(landseer, picture):
    await landseer.put(a=picture())
    call = landseer.search.Search(Search(id="a"), metadata=[(KEY, "mine")])
    await call
    assert await id_of(call) == "mine"
    call = landseer.index.Stats(index_pb2.StatsRequest())
    await call
    assert len(await id_of(call)) == 16


async def test_a_stream_of_uploads_carries_the_id(landseer, picture):
    pictures = [index_pb2.UpsertManyRequest(picture=index_pb2.Picture(id="a", image=picture()))]
    call = landseer.index.UpsertMany(iter(pictures), metadata=[(KEY, "many")])
    await call
    assert await id_of(call) == "many"


async def test_an_error_carries_the_id_and_may_still_be_retried(landseer, rich):
    call = landseer.search.Search(Search(id="nowhere"), metadata=[(KEY, "lost")])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert rich(caught.value).request_id == "lost"
    assert dict(caught.value.trailing_metadata())[KEY] == "lost"
    assert not caught.value.initial_metadata(), "gRPC retries no call whose response has begun"


async def test_health_is_left_alone(landseer):
    from grpc_health.v1 import health_pb2

    call = landseer.health.Check(health_pb2.HealthCheckRequest())
    await call
    assert await id_of(call) is None


@pytest.fixture
def lines(caplog):
    """The log so far as lines of text, formatted where the record was made."""
    found = []

    class Keep(logging.Handler):
        def emit(self, record):
            found.append(self.format(record))

    handler = Keep()
    handler.setFormatter(TextFormatter())
    caplog.set_level(logging.DEBUG)
    logging.getLogger().addHandler(handler)
    yield found
    logging.getLogger().removeHandler(handler)


async def test_the_log_names_the_request(landseer, picture, lines):
    await landseer.put(a=picture())
    await landseer.search.Search(Search(id="a"), metadata=[(KEY, "good")])
    assert [line.split(" ", 2)[2] for line in lines if "[request good]" in line][-1].startswith(
        "DEBUG landseer.ensemble.api.interceptors: landseer.v1.SearchService/Search: OK after "
    )
    landseer.triton.failures["describe"] = (grpc.StatusCode.INTERNAL, "broken")
    with pytest.raises(grpc.aio.AioRpcError):
        await landseer.search.Search(Search(image=picture()), metadata=[(KEY, "bad")])
    [line] = [line for line in lines if "[request bad]" in line and "landseer" in line]
    assert " INFO " in line and "INTERNAL" in line and "INFERENCE_FAILED: Triton failed to run `describe`" in line


async def test_threads_log_under_the_request_too(landseer, picture, lines, monkeypatch):
    from landseer.ensemble.search import describe

    def prepare(*args, **options):
        logging.getLogger("threads").warning("decoding")
        return original(*args, **options)

    original = describe.prepare
    monkeypatch.setattr(describe, "prepare", prepare)
    await landseer.search.Search(Search(image=picture()), metadata=[(KEY, "threaded")])
    assert any("decoding [request threaded]" in line for line in lines)


async def test_an_unexpected_error_is_logged_with_the_request_id(landseer, rich, lines, monkeypatch):
    from landseer.ensemble.api import service

    def broken(*args, **kwargs):
        raise RuntimeError("no such luck")

    monkeypatch.setattr(service, "search_plan", broken)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await landseer.search.Search(Search(id="a"))
    error = rich(caught.value)
    assert error.info["request_id"] == error.request_id
    [line] = [line for line in lines if "no such luck" in line]
    assert f"[request {error.request_id}]\nTraceback" in line


async def test_a_picture_of_a_stream_that_fails_unforeseen_names_the_request(landseer, picture, lines, monkeypatch):
    from landseer.ensemble.ingest import indexing

    def broken(*args, **kwargs):
        raise RuntimeError("no such luck")

    monkeypatch.setattr(indexing, "record_of", broken)
    pictures = [index_pb2.UpsertManyRequest(picture=index_pb2.Picture(id="a", image=picture()))]
    answer = await landseer.index.UpsertMany(iter(pictures), metadata=[(KEY, "many")])
    assert [failure.message for failure in answer.failures] == [
        "unexpected error; see the server's log for request many"
    ]
    assert any("no such luck" in line and "[request many]" in line for line in lines)
