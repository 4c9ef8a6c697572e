"""Streams of pictures, and concurrent writers."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
from plain import PLAIN

from landseer.ensemble.config import NONE
from landseer.ensemble.ingest.indexing import MOST_LISTED
from landseer.v1 import index_pb2, index_pb2_grpc, search_pb2


def stream(pairs, sent=None):
    async def requests():
        for id, image in pairs:
            yield index_pb2.UpsertManyRequest(picture=index_pb2.Picture(id=id, image=image))
            if sent is not None:
                sent.append(id)

    return requests()


async def until(holds):
    while not holds():
        await asyncio.sleep(0.02)


async def test_a_stream_is_indexed_and_bad_pictures_are_reported(landseer, picture):
    pairs = [(f"p{seed:02}", picture(seed)) for seed in range(20)]
    pairs[3] = ("p03", b"junk")
    pairs[11] = ("", picture(11))
    answer = await landseer.index.UpsertMany(stream([*pairs, ("p00", picture(40))]))
    assert (answer.indexed, answer.replaced) == (19, 1)
    assert [(failure.position, failure.id, failure.code) for failure in answer.failures] == [(3, "p03", 3), (11, "", 3)]
    assert answer.failures[0].message.startswith("picture.image: ")
    assert (await landseer.index.Stats(index_pb2.StatsRequest())).pictures == 18
    hits = (await landseer.search.Search(search_pb2.SearchRequest(image=picture(40), top_k=1, **PLAIN))).hits
    assert (hits[0].id, round(hits[0].score, 3)) == ("p00", 1.0)


async def test_pictures_are_written_in_the_order_of_the_stream(landseer, picture):
    """Of several with one id the last counts, although they are described concurrently."""
    pairs = [("same", picture(seed, width=64 + 200 * (seed % 2))) for seed in range(12)]
    answer = await landseer.index.UpsertMany(stream(pairs))
    assert (answer.indexed, answer.replaced) == (12, 11)
    hits = (await landseer.search.Search(search_pb2.SearchRequest(image=picture(11), **PLAIN))).hits
    assert len(hits) == 1
    assert hits[0].score > 0.99


async def test_an_empty_stream_is_fine(landseer):
    assert await landseer.index.UpsertMany(stream([])) == index_pb2.UpsertManyResponse()


async def test_the_stream_is_held_back_while_triton_is_slow(start, picture):
    landseer = await start(bulk_in_flight=3)
    landseer.triton.delays["describe_full"] = 30.0
    big = picture(1, width=3000, height=2000, noise=1.0) + b"\0" * 3_000_000
    sent: list[str] = []
    call = landseer.index.UpsertMany(stream([(f"p{i}", big) for i in range(30)], sent))
    await asyncio.wait_for(until(lambda: len(landseer.triton.calls) == 3), 25.0)
    await asyncio.sleep(1.0)
    assert len(landseer.triton.calls) == 3
    # Three in hand, and what gRPC and TCP buffer on the way: its window, 4 MiB, and what their own buffers take.
    assert len(sent) < 9
    call.cancel()
    await asyncio.wait_for(until(lambda: len(landseer.triton.cancelled) == 3), 10.0)


async def test_a_stream_without_triton_reports_what_is_left(landseer, picture):
    async def requests():
        for seed in range(8):
            if seed == 4:
                await asyncio.sleep(0.3)
                await landseer.triton.stop()
            yield index_pb2.UpsertManyRequest(picture=index_pb2.Picture(id=f"p{seed}", image=picture(seed)))

    answer = await landseer.index.UpsertMany(requests())
    assert answer.indexed + len(answer.failures) == 8
    assert {failure.code for failure in answer.failures} == {grpc.StatusCode.UNAVAILABLE.value[0]}
    assert [failure.position for failure in answer.failures][-4:] == [4, 5, 6, 7]


async def test_a_full_queue_at_triton_is_waited_for(landseer, picture):
    landseer.triton.failures["describe_full"] = (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
    call = asyncio.ensure_future(landseer.index.UpsertMany(stream([("a", picture())])))
    # The second call shows that the first was refused.
    await asyncio.wait_for(until(lambda: len(landseer.triton.calls) >= 2), 25.0)
    landseer.triton.failures.clear()
    assert (await call).indexed == 1


async def test_writers_of_one_id_leave_store_and_index_agreeing(landseer, picture):
    def put(seed):
        value = index_pb2.Picture(id=f"p{seed % 3}", image=picture(seed))
        return landseer.index.Upsert(index_pb2.UpsertRequest(picture=value))

    answers = await asyncio.gather(*(put(seed) for seed in range(24)))
    assert sorted(answer.sequence for answer in answers) == list(range(1, 25))
    assert sum(not answer.replaced for answer in answers) == 3
    hits = (await landseer.search.Search(search_pb2.SearchRequest(image=picture(5), top_k=50, **PLAIN))).hits
    assert sorted(hit.id for hit in hits) == ["p0", "p1", "p2"]
    query = (await landseer.search.Describe(search_pb2.DescribeRequest(image=picture(5)))).descriptor.values
    for hit in hits:
        got = await landseer.index.Get(index_pb2.GetRequest(id=hit.id, include_vectors=True))
        assert abs(float(np.dot(got.descriptor, query)) - hit.score) < 1e-6


async def test_an_index_that_fails_to_update_is_rebuilt(landseer, picture, monkeypatch, rich):
    from landseer.ensemble.index.live_index import LiveIndex

    await landseer.put(a=picture(1))
    apply = LiveIndex.apply

    async def broken(self, added, vectors, removed):
        raise MemoryError("no room")

    monkeypatch.setattr(LiveIndex, "apply", broken)
    await landseer.put(b=picture(2))
    monkeypatch.setattr(LiveIndex, "apply", apply)
    await landseer.put(c=picture(3))
    hits = (await landseer.search.Search(search_pb2.SearchRequest(image=picture(2)))).hits
    assert hits[0].id == "b"
    assert sorted(hit.id for hit in hits) == ["a", "b", "c"]


async def test_failures_are_listed_up_to_what_any_client_accepts(start, picture):
    """With 4 MiB, gRPC's default; the good pictures are stored, so the answer must arrive."""
    landseer = await start(local_features=NONE)
    bad = [(f"{place}" + "\N{ELEPHANT}" * 600, b"") for place in range(MOST_LISTED + 2000)]
    async with grpc.aio.insecure_channel(landseer.server.address) as channel:
        stub = index_pb2_grpc.IndexServiceStub(channel)
        answer = await stub.UpsertMany(stream([("first", picture(1)), *bad, ("last", picture(2))]))
    assert (answer.indexed, len(answer.failures)) == (2, MOST_LISTED)
    assert [failure.position for failure in answer.failures] == list(range(1, MOST_LISTED + 1))
    assert "; and 2,000 more pictures of this stream failed" in answer.failures[-1].message
    assert not any("more pictures" in failure.message for failure in answer.failures[:-1])
    assert answer.ByteSize() < 3 * 2**20
