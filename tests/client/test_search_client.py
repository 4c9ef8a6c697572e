from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from landseer.client import BlockingSearchClient, Box, Descriptor, Expansion, Picture, Reranking, SearchClient
from landseer.client.client import DEFAULT_TIMEOUT
from landseer.client.errors import (
    DeadlinePassed,
    Exhausted,
    InvalidRequest,
    NotIndexed,
    NotReady,
    Refused,
    ServerFault,
    ServerUnavailable,
    ServerUnreachable,
    UnusableInput,
)
from landseer.v1.search_pb2 import (
    EXPANSION_METHOD_RANK_CURVE,
    FIRST_STAGE_UNSPECIFIED,
    FIRST_STAGE_WORDS,
    GROUPING_NEAR_IDENTICAL,
    GROUPING_UNSPECIFIED,
    RERANKING_METHOD_COATTENTION,
    RERANKING_METHOD_SPATIAL,
)


async def test_each_kind_of_query_reaches_its_field(fake, tmp_path: Path) -> None:
    file = tmp_path / "q.jpg"
    file.write_bytes(b"file")
    async with SearchClient(fake.address) as client:
        for query in (b"bytes", file, "an-id", [0.5, 1.0], Descriptor(values=[2.0])):
            await client.search(query)
    sent = fake.requests["Search"]
    assert [request.WhichOneof("query") for request in sent] == ["image", "image", "id", "descriptor", "descriptor"]
    assert sent[1].image == b"file"
    assert list(sent[3].descriptor.values) == [0.5, 1.0]


async def test_options_reach_their_fields_and_silence_stays_silence(fake) -> None:
    async with SearchClient(fake.address) as client:
        await client.search(b"x")
        await client.search(
            b"x", region=(1, 2, 3, 4), top_k=5, expansion="rank-curve", reranking=Reranking(candidates=7), explain=True
        )
        await client.search(b"x", region=Box(x=1), expansion=Expansion(neighbours=3), reranking="coattention")
        await client.search(b"x", first_stage="words", reranking="spatial")
        with pytest.raises(UnusableInput, match="first_stage: got 'bow', expected one of global, words, both"):
            await client.search(b"x", first_stage="bow")  # type: ignore[arg-type]
        await client.search(b"x", group_by="near-identical")
        with pytest.raises(UnusableInput, match="group_by: got 'id', expected one of none, near-identical"):
            await client.search(b"x", group_by="id")  # type: ignore[arg-type]
    bare, full, messages, wordy, grouped = fake.requests["Search"]
    assert (bare.group_by, grouped.group_by) == (GROUPING_UNSPECIFIED, GROUPING_NEAR_IDENTICAL)
    assert not any(bare.HasField(name) for name in ("region", "top_k", "expansion", "reranking"))
    assert (full.region.height, full.top_k, full.explain) == (4, 5, True)
    assert full.expansion.method == EXPANSION_METHOD_RANK_CURVE
    assert full.reranking.candidates == 7
    assert messages.reranking.method == RERANKING_METHOD_COATTENTION
    assert (bare.first_stage, wordy.first_stage) == (FIRST_STAGE_UNSPECIFIED, FIRST_STAGE_WORDS)
    assert wordy.reranking.method == RERANKING_METHOD_SPATIAL


async def test_pictures_go_in_and_out(fake) -> None:
    async with SearchClient(fake.address) as client:
        assert not (await client.upsert("a", b"1", metadata={"k": "v"})).replaced
        assert (await client.upsert("a", b"2", metadata={"k": "w"})).replaced
        assert dict((await client.get("a")).metadata) == {"k": "w"}
        assert (await client.stats()).pictures == 1
        assert (await client.describe(b"x", region=(0, 0, 1, 1))).width == 3
        await client.delete("a")
        with pytest.raises(NotIndexed, match="no picture 'a'"):
            await client.get("a")


async def test_upsert_many_takes_both_kinds_of_iterable(fake) -> None:
    async def pictures():
        for name in "cd":
            yield Picture(id=name, image=b"1")

    async with SearchClient(fake.address) as client:
        assert (await client.upsert_many(Picture(id=name, image=b"1") for name in "ab")).indexed == 2
        assert (await client.upsert_many(pictures())).indexed == 2
        assert (await client.upsert_many([])).indexed == 0
    assert sorted(fake.pictures) == ["a", "b", "c", "d"]


async def test_an_iterable_that_fails_fails_the_upload_with_its_own_error(fake) -> None:
    def pictures():
        yield Picture(id="a", image=b"1")
        raise LookupError("no more")

    async with SearchClient(fake.address) as client:
        with pytest.raises(LookupError, match="no more"):
            await client.upsert_many(pictures())
        assert (await client.upsert_many([Picture(id="b", image=b"1")])).indexed == 1


async def test_a_server_that_ends_a_stream_early_is_heard(fake) -> None:
    fake.fail("UpsertMany", "FAILED_PRECONDITION", "the store was made by other models", reason="PROFILE_MISMATCH")

    async def endless():
        while True:
            yield Picture(id="a", image=bytes(10_000))

    async with SearchClient(fake.address) as client:
        with pytest.raises(Refused, match="other models") as caught:
            await client.upsert_many(endless(), timeout=10)
    assert caught.value.reason == "PROFILE_MISMATCH"


async def test_every_call_has_a_deadline(fake) -> None:
    async with SearchClient(fake.address) as client:
        await client.stats()
        await client.stats(timeout=3)
    # On the wire a timeout is rounded up a little.
    assert DEFAULT_TIMEOUT - 5 < fake.deadlines[0] < DEFAULT_TIMEOUT + 1
    assert fake.deadlines[1] < 4


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        ("UNAVAILABLE", "MODELS_UNAVAILABLE", ServerUnavailable),
        ("INVALID_ARGUMENT", "INVALID_INPUT", InvalidRequest),
        ("NOT_FOUND", "NOT_INDEXED", NotIndexed),
        ("FAILED_PRECONDITION", "MODEL_UNTRAINED", Refused),
        ("RESOURCE_EXHAUSTED", "STORE_FULL", Exhausted),
        ("DEADLINE_EXCEEDED", "DEADLINE", DeadlinePassed),
        ("INTERNAL", "UNEXPECTED", ServerFault),
    ],
)
async def test_errors_are_typed_and_take_one_line(fake, code: str, reason: str, kind: type) -> None:
    fake.fail("Search", code, "what was wrong\nand how to mend it", reason=reason, times=4)
    async with SearchClient(fake.address) as client:
        with pytest.raises(kind) as caught:
            await client.search(b"x")
    assert str(caught.value) == "what was wrong and how to mend it"
    assert caught.value.reason == reason


async def test_field_violations_are_read(fake) -> None:
    fake.fail("Search", "INVALID_ARGUMENT", "bad request", reason="INVALID_INPUT", top_k="got 0, expected 1 to 1000")
    async with SearchClient(fake.address) as client:
        with pytest.raises(InvalidRequest) as caught:
            await client.search(b"x")
    assert caught.value.violations == (("top_k", "got 0, expected 1 to 1000"),)
    assert str(caught.value) == "top_k: got 0, expected 1 to 1000"


async def test_an_unreachable_server_is_reported_with_its_address_and_a_remedy() -> None:
    async with SearchClient("unix:/nowhere/s") as client:
        with pytest.raises(ServerUnreachable) as caught:
            await client.stats()
        assert not await client.ready()
    assert "unix:/nowhere/s" in str(caught.value)
    assert "landseer up" in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_unavailable_is_retried_even_with_a_large_picture(fake) -> None:
    fake.fail("Search", "UNAVAILABLE", "starting", times=2)
    async with SearchClient(fake.address) as client:
        await client.search(bytes(3_000_000))
    assert len(fake.requests["Search"]) == 3


async def test_a_server_that_is_overloaded_says_when_to_come_back(fake) -> None:
    fake.fail("Search", "RESOURCE_EXHAUSTED", "full", reason="OVERLOADED", pushback="300", times=2)
    began = time.monotonic()
    async with SearchClient(fake.address) as client:
        await client.search(b"x")
    assert len(fake.requests["Search"]) == 3
    assert time.monotonic() - began >= 0.6


async def test_what_no_retry_can_mend_is_not_retried(fake) -> None:
    fake.fail("Upsert", "RESOURCE_EXHAUSTED", "full", reason="STORE_FULL", pushback="-1")
    async with SearchClient(fake.address) as client:
        with pytest.raises(Exhausted):
            await client.upsert("a", b"x")
    assert len(fake.requests["Upsert"]) == 1


async def test_retries_have_a_budget(fake) -> None:
    """When all calls fail, they are soon sent once each: four times the load is the last that a full server needs."""
    calls = 100
    fake.fail("Search", "RESOURCE_EXHAUSTED", "full", reason="OVERLOADED", pushback="1", times=4 * calls)
    async with SearchClient(fake.address) as client:
        for _ in range(calls):
            with pytest.raises(Exhausted):
                await client.search(b"x")
    assert calls <= len(fake.requests["Search"]) <= calls + 20


async def test_patience_outlasts_overload(fake) -> None:
    fake.fail("Search", "RESOURCE_EXHAUSTED", "full", reason="OVERLOADED", pushback="-1", times=2)
    waits: list[str] = []
    async with SearchClient(fake.address, patience=10.0, on_wait=waits.append) as client:
        await client.search(b"x")
    assert waits == ["full", "full"]


async def test_what_somebody_else_cancels_is_retried_and_told_and_what_its_caller_cancels_is_not(fake) -> None:
    async with SearchClient(fake.address) as client:
        fake.fail("Search", "CANCELLED", "CANCELLED", times=2)
        await client.search(b"x")
        assert len(fake.requests["Search"]) == 3
        fake.fail("Delete", "CANCELLED", "CANCELLED")
        with pytest.raises(
            ServerUnavailable, match=f"the server at {fake.address}, or a proxy before it, ended the call"
        ):
            await client.delete("a")
        # What a proxy says that lost the server: gRPC does not retry it, patience does.
        fake.fail("Stats", "INTERNAL", "Received RST_STREAM with error code 2")
        async with SearchClient(fake.address, patience=5.0) as patient:
            await patient.stats()
        assert len(fake.requests["Stats"]) == 2
        call = asyncio.ensure_future(client.upsert_many(endless()))
        while not fake.requests["UpsertMany"]:
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert len(fake.requests["UpsertMany"]) == 1


async def endless():
    while True:
        yield Picture(id="a", image=b"1")
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("method", ["Delete", "UpsertMany"])
async def test_calls_that_cannot_be_repeated_are_not_retried(fake, method: str) -> None:
    fake.fail(method, "UNAVAILABLE", "starting")
    async with SearchClient(fake.address) as client:
        with pytest.raises(ServerUnreachable):
            await (client.delete("a") if method == "Delete" else client.upsert_many([Picture(id="a")]))
    assert len(fake.requests[method]) == 1


async def test_patience_repeats_no_delete_that_may_have_been_applied(fake) -> None:
    cut = [("CANCELLED", ""), ("UNAVAILABLE", "UNFINISHED"), ("UNAVAILABLE", "")]
    async with SearchClient(fake.address, patience=5.0) as client:
        for calls, (code, reason) in enumerate(cut, start=1):
            fake.fail("Delete", code, "GOAWAY received", reason=reason)
            with pytest.raises(ServerUnavailable):
                await client.delete("a")
            assert len(fake.requests["Delete"]) == calls
        for reason in ("STOPPING", "OVERLOADED"):
            fake.fail("Delete", "UNAVAILABLE", "nothing was done", reason=reason)
        fake.fail("Stats", "UNAVAILABLE", "may have been applied", reason="UNFINISHED", times=5)
        with pytest.raises(NotIndexed):
            await client.delete("a")
        assert len(fake.requests["Delete"]) == 3 + 3
        await client.stats()


async def test_ready_follows_the_health_service(fake) -> None:
    async with SearchClient(fake.address) as client:
        fake.set_serving(False)
        assert not await client.ready()
        with pytest.raises(NotReady, match=r"within 0\.2 s"):
            await client.wait_ready(0.2)
        threading.Timer(0.3, fake.set_serving, [True]).start()
        await client.wait_ready(10)
        assert await client.ready()


async def test_a_server_that_comes_back_is_found(fake) -> None:
    async with SearchClient(fake.address) as client:
        await client.stats()
        fake.stop()
        assert not await client.ready()
        fake.start()
        fake.set_serving(True)
        await client.wait_ready(10)
        assert (await client.stats()).backbone == "lite0"


@pytest.mark.parametrize("name", ["gone.jpg", "."])
async def test_a_file_that_cannot_be_read(fake, tmp_path: Path, name: str) -> None:
    async with SearchClient(fake.address) as client:
        with pytest.raises(UnusableInput, match="give the path"):
            await client.search(tmp_path / name)
        with pytest.raises(UnusableInput, match="expected one of none, lattqe"):
            await client.search(b"x", expansion="nothing")  # type: ignore[arg-type]


async def test_cancelling_a_task_cancels_the_call(fake) -> None:
    async with SearchClient("unix:/nowhere/s") as client:
        task = asyncio.ensure_future(client.wait_ready(30))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_blocking_does_the_same_from_any_thread(fake, tmp_path: Path) -> None:
    with BlockingSearchClient(fake.address) as client:
        client.upsert("a", b"1")
        client.upsert_many(Picture(id=name, image=b"1") for name in "bc")
        sizes: list[int] = []
        threads = [threading.Thread(target=lambda: sizes.append(client.stats().pictures)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sizes == [3] * 4
        assert [hit.id for hit in client.search("a", top_k=2).hits] == ["a", "b"]
        with pytest.raises(NotIndexed):
            client.get("z")
    with pytest.raises(RuntimeError, match="closed"):
        client.stats()
    client.close()


async def test_a_patient_client_waits_while_the_server_loads_and_says_why(fake) -> None:
    loading = {"code": "UNAVAILABLE", "message": "the index is being loaded", "reason": "INDEX_LOADING"}
    told: list[str] = []
    async with SearchClient(fake.address, patience=20, on_wait=told.append) as client:
        fake.fail("Delete", times=2, **loading)
        with pytest.raises(NotIndexed):
            await client.delete("z")
    assert told == ["the index is being loaded"] * 2
    fake.fail("Delete", times=9, **loading)
    async with SearchClient(fake.address, patience=0.6, on_wait=told.append) as client:
        with pytest.raises(ServerUnavailable, match="the index is being loaded"):
            await client.delete("z")
    assert 3 <= len(told) < 6
    async with SearchClient("unix:/nowhere/s", patience=20, on_wait=told.append) as client:
        with pytest.raises(ServerUnreachable):
            await client.stats()


def test_blocking_leaves_no_thread(fake) -> None:
    before = {thread for thread in threading.enumerate() if thread.name == "landseer-client"}
    BlockingSearchClient(fake.address).close()
    time.sleep(0)
    assert {thread for thread in threading.enumerate() if thread.name == "landseer-client"} == before


def test_blocking_offers_every_method_with_its_documentation() -> None:
    methods = {name for name, value in vars(SearchClient).items() if asyncio.iscoroutinefunction(value)}
    methods = {name for name in methods if not name.startswith("_")} - {"close"}
    client = BlockingSearchClient("unix:/nowhere/s")
    try:
        assert methods <= set(vars(BlockingSearchClient))
        assert {getattr(client, name).__doc__ for name in methods} == {vars(SearchClient)[n].__doc__ for n in methods}
    finally:
        client.close()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="a task of Python 3.10 does not tell that it is being cancelled")
async def test_a_call_that_fails_as_it_is_cancelled_is_cancelled() -> None:
    """What gRPC does when the connection breaks at the moment of Ctrl-C."""
    client, called = SearchClient(), asyncio.Event()

    async def breaks(request: object, **options: object) -> None:
        called.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise AioRpcError(grpc.StatusCode.UNAVAILABLE, Metadata(), Metadata(), "connection reset") from None

    task = asyncio.create_task(client._call("", breaks, b"", None))
    await called.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
