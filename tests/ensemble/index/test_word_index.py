"""Searches by visual words, and the word filter, over real gRPC and a real store."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fake_triton import PROFILE, SIZES
from grpc.aio import AioRpcError
from records import plain_record

from landseer.ensemble.app.server import RunningServer
from landseer.ensemble.asmk.aggregate import asmk, rasmk
from landseer.ensemble.asmk.codebook import Codebook, train
from landseer.ensemble.asmk.kernel import KERNELS, similarity
from landseer.ensemble.errors import ProfileMismatch
from landseer.ensemble.index.deep_words import DeepWords
from landseer.ensemble.index.word_index import WordIndex
from landseer.ensemble.store.local_features import LocalFeatures
from landseer.ensemble.store.store import Store
from landseer.v1 import index_pb2, search_pb2

WORDS = search_pb2.FIRST_STAGE_WORDS
COATTENTION = search_pb2.RERANKING_METHOD_COATTENTION
COUNT = 12


def words_of(dimension=SIZES.local, *, words=16, sha=PROFILE.locals_sha256):
    rows = np.random.default_rng(0).standard_normal((400, dimension)).astype(np.float32)
    trained = train(rows / np.linalg.norm(rows, axis=1, keepdims=True), words=words, rounds=3)
    return dataclasses.replace(trained, card={"locals_sha256": sha})


@pytest.fixture
def codebook(tmp_path):
    path = tmp_path / "words.safetensors"
    words_of().save(path)
    return path


@pytest.fixture
async def wordy(start, codebook, picture):
    landseer = await start(local_features="deep", codebook=codebook)
    await landseer.put(**{f"p{seed}": picture(seed) for seed in range(COUNT)})
    return landseer


async def search(landseer, **fields):
    return await landseer.search.Search(search_pb2.SearchRequest(**fields))


async def stats(landseer):
    return (await landseer.index.Stats(index_pb2.StatsRequest())).visual_words


def by_hand(folder, query, *, kernel="asmk"):
    """Return the score by words of each picture of a store against the one under the id `query`, by the definition."""
    store, book = Store.open(folder, fingerprint=PROFILE.fingerprint, clusters_shape=(4, 12)), words_of()
    keys = [key for found, _ in store.locals.scan() for key in found.tolist()]
    ids = [stored.record.id for stored in store.by_keys(keys, vectors=False)]
    features = dict(zip(ids, store.locals.read(keys), strict=True))
    store.close()
    asked = asmk(features[query].descriptors, book).binarised()
    divisor = 1 if KERNELS[kernel].normalised else len(asked.words)
    pictures = {id: asmk(some.descriptors, book).binarised() for id, some in features.items() if id != query}
    scores = {id: similarity(asked, one, KERNELS[kernel]) / divisor for id, one in pictures.items()}
    shared = {id: len(np.intersect1d(asked.words, one.words)) for id, one in pictures.items()}
    return scores, shared


@pytest.mark.parametrize("kernel", ["asmk", "r-asmk"])
async def test_a_search_by_words_is_the_kernel_over_the_stored_features(start, codebook, picture, config, kernel):
    landseer = await start(local_features="deep", codebook=codebook, kernel=kernel)
    await landseer.put(**{f"p{seed}": picture(seed) for seed in range(COUNT)})
    answer = await search(landseer, id="p3", first_stage=WORDS, top_k=50)
    told = await stats(landseer)
    assert (told.words, told.kernel, told.pictures) == (16, kernel, COUNT) and told.bytes > 0
    assert told.codebook == words_of().fingerprint
    vector = (await landseer.index.Get(index_pb2.GetRequest(id="p3", include_vectors=True))).descriptor
    cosines = {hit.id: hit.score for hit in (await search(landseer, descriptor={"values": vector}, top_k=50)).hits}
    await landseer.server.stop(0.0)
    scores, shared = by_hand(config.store, "p3", kernel=kernel)
    expected = {id: score for id, score in scores.items() if shared[id]}
    assert {hit.id for hit in answer.hits} == set(expected)
    for hit in answer.hits:
        assert hit.score == hit.scores.words == pytest.approx(expected[hit.id], abs=1e-6)
        assert getattr(hit.scores, "global") == pytest.approx(cosines[hit.id], abs=1e-3)
    found = [hit.score for hit in answer.hits]
    assert found == sorted(found, reverse=True) and min(found) >= 0 and max(found) <= 1


async def test_a_picture_finds_itself_and_requests_only_needed_outputs(wordy, picture):
    answer = await search(wordy, image=picture(7), first_stage=WORDS, top_k=3)
    assert answer.hits[0].id == "p7" and answer.hits[0].scores.words == pytest.approx(1.0, abs=0.02)
    assert {"local_descriptors", "box_count", "cluster_count"} < set(wordy.triton.calls[-1].outputs)
    plain = await search(wordy, image=picture(7), top_k=3)
    assert not plain.hits[0].scores.HasField("words")
    assert wordy.triton.calls[-1].model == "describe"


async def test_additions_and_deletions_are_followed(wordy, picture):
    await wordy.put(twin=picture(7), p1=picture(50))
    await wordy.index.Delete(index_pb2.DeleteRequest(id="p7"))
    hits = (await search(wordy, image=picture(7), first_stage=WORDS, top_k=50)).hits
    assert hits[0].id == "twin" and "p7" not in {hit.id for hit in hits}
    assert (await stats(wordy)).pictures == COUNT
    hits = (await search(wordy, image=picture(50), first_stage=WORDS, top_k=50)).hits
    assert hits[0].id == "p1"
    many = [index_pb2.Picture(id=f"m{seed % 5}", image=picture(60 + seed)) for seed in range(9)]
    answer = await wordy.index.UpsertMany(index_pb2.UpsertManyRequest(picture=one) for one in many)
    assert answer.indexed == 9
    assert (await stats(wordy)).pictures == COUNT + 5
    assert (await search(wordy, image=picture(68), first_stage=WORDS)).hits[0].id == "m3"


async def test_started_again_it_answers_the_same(wordy, start, codebook, picture):
    query = {"image": picture(4, noise=40.0), "first_stage": WORDS, "top_k": 50}
    await wordy.put(p2=picture(80))
    await wordy.index.Delete(index_pb2.DeleteRequest(id="p5"))
    before = await search(wordy, **query)
    await wordy.server.stop(0.0)
    again = await start(local_features="deep", codebook=codebook)
    after = await search(again, **query)
    assert [(hit.id, hit.score) for hit in after.hits] == [(hit.id, hit.score) for hit in before.hits]
    # An index that could not follow the store is built anew from it, words and all.
    await again.server._readiness.collection().load()
    once_more = await search(again, **query)
    assert [(hit.id, hit.score) for hit in once_more.hits] == [(hit.id, hit.score) for hit in before.hits]


async def test_pictures_without_local_features_are_not_found_by_words(start, codebook, picture, rich):
    landseer = await start(local_features="none")
    await landseer.put(old=picture(1))
    await landseer.server.stop(0.0)
    landseer = await start(local_features="deep", codebook=codebook)
    await landseer.put(new=picture(2))
    hits = (await search(landseer, image=picture(1), first_stage=WORDS)).hits
    assert "old" not in {hit.id for hit in hits}
    with pytest.raises(AioRpcError) as caught:
        await search(landseer, id="old", first_stage=WORDS)
    assert rich(caught.value).reason == "LOCAL_FEATURES_MISSING"


async def test_expansion_and_reranking_go_on_from_it(wordy, picture):
    answer = await search(
        wordy,
        image=picture(4, noise=20.0),
        first_stage=WORDS,
        reranking={"method": COATTENTION},
        expansion={"method": search_pb2.EXPANSION_METHOD_AQE},
    )
    assert not answer.degradations
    scores = answer.hits[0].scores
    assert answer.hits[0].id == "p4"
    assert all(scores.HasField(name) for name in ("global", "words", "expanded", "coattention"))


@pytest.mark.parametrize("method", [COATTENTION, search_pb2.RERANKING_METHOD_SPATIAL])
async def test_only_candidates_that_share_words_are_scored_again(wordy, start, codebook, config, method):
    plain = await search(wordy, id="p3", top_k=50)
    first, rest = [hit.id for hit in plain.hits][:8], [hit.id for hit in plain.hits][8:]
    await wordy.server.stop(0.0)
    _, shared = by_hand(config.store, "p3")
    wanted = max(shared[id] for id in first)
    chosen = {id for id in first if shared[id] >= wanted}
    assert 0 < len(chosen) < 8
    wordy = await start(local_features="deep", codebook=codebook)
    how = {"method": method, "require_shared_words": wanted, "candidates": 8}
    answer = await search(wordy, id="p3", top_k=50, reranking=how)
    everyone = await search(wordy, id="p3", top_k=50, reranking={"method": method, "require_shared_words": 1})
    ids = [hit.id for hit in answer.hits]
    assert set(ids[: len(chosen)]) == chosen
    assert ids[len(chosen) :] == [id for id in first if id not in chosen] + rest
    name = "coattention" if method == COATTENTION else "inliers"
    assert [hit.scores.HasField(name) for hit in answer.hits] == [True] * len(chosen) + [False] * (11 - len(chosen))
    scores = [hit.score for hit in answer.hits]
    assert scores == sorted(scores, reverse=True)
    assert sum(hit.scores.HasField(name) for hit in everyone.hits) == sum(count > 0 for count in shared.values())


async def test_if_none_shares_enough_the_ranking_stays(wordy, picture):
    plain = await search(wordy, id="p3")
    how = {"method": COATTENTION, "require_shared_words": SIZES.locals}
    answer = await search(wordy, id="p3", reranking=how)
    assert not answer.degradations
    assert [(hit.id, hit.score) for hit in answer.hits] == [(hit.id, hit.score) for hit in plain.hits]


async def test_a_server_without_words_says_what_to_do(start, picture, rich):
    landseer = await start(local_features="deep")
    await landseer.put(a=picture(1))
    for fields in ({"first_stage": WORDS}, {"reranking": {"method": COATTENTION, "require_shared_words": 1}}):
        with pytest.raises(AioRpcError) as caught:
            await search(landseer, image=picture(1), **fields)
        error = rich(caught.value)
        assert (error.code.name, error.reason) == ("FAILED_PRECONDITION", "CODEBOOK_MISSING")
        assert "landseer codebook" in error.message
    assert (await stats(landseer)) == index_pb2.VisualWordsStats()


async def test_an_invalid_request_names_the_field(wordy, picture, rich):
    vector = {"values": [1.0] * SIZES.channels}
    for fields, field in (
        ({"descriptor": vector, "first_stage": WORDS}, "first_stage"),
        ({"id": "p1", "first_stage": 99}, "first_stage"),
        ({"id": "p1", "reranking": {"require_shared_words": 1}}, "reranking.require_shared_words"),
        (
            {"id": "p1", "reranking": {"method": COATTENTION, "require_shared_words": SIZES.locals + 1}},
            "reranking.require_shared_words",
        ),
    ):
        with pytest.raises(AioRpcError) as caught:
            await search(wordy, **fields)
        assert (rich(caught.value).code.name, rich(caught.value).fields) == ("INVALID_ARGUMENT", [field])


@pytest.mark.parametrize(
    ("book", "message"),
    [
        (words_of(sha="9" * 64), "SHA-256 999999999999, 32 values.*than are served now .SHA-256 111111111111, 32"),
        (words_of(sha=""), "SHA-256 unknown, 32 values"),
        (words_of(8), "8 values"),
    ],
)
async def test_words_of_other_models_are_not_served(start, tmp_path, book, message):
    book.save(tmp_path / "other")
    refused = await start(local_features="deep", codebook=tmp_path / "other", wait=False)
    with pytest.raises(ProfileMismatch, match=message):
        await refused.server.ready(60.0)


@pytest.mark.parametrize("content", [None, b"garbage" * 100])
async def test_a_file_that_is_not_a_codebook_is_named(start, tmp_path, content):
    if content:
        (tmp_path / "other").write_bytes(content)
    with pytest.raises((ValueError, OSError), match="other"):
        await start(local_features="deep", codebook=tmp_path / "other")


def test_settings_that_cannot_work_are_refused(config, tmp_path):
    with pytest.raises(ValueError, match="codebook needs local features"):
        dataclasses.replace(config, local_features="none", codebook=tmp_path / "words")
    with pytest.raises(ValueError, match="kernel is 'bow'"):
        RunningServer(dataclasses.replace(config, kernel="bow"))


# The index alone.


def local_features(seed, counts=(30,)):
    rows = np.random.default_rng(seed).standard_normal((sum(counts), SIZES.local)).astype(np.float32)
    return LocalFeatures(
        descriptors=rows / np.linalg.norm(rows, axis=1, keepdims=True),
        positions=np.zeros((len(rows), 2), np.float32),
        scales=np.ones(len(rows), np.float32),
        counts=counts,
    )


def record(words):
    return plain_record("a", reduced=SIZES.reduced, words=words)


@pytest.fixture
def source():
    """Gives words; none are stored."""
    made = DeepWords(words_of(), None, kernel="r-asmk", threads=2)
    yield made
    made.close()


@pytest.fixture
def index(source):
    made = WordIndex(source, threads=2)
    yield made
    made.close()


async def test_regions_of_a_picture_are_aggregated(index, source):
    book: Codebook = words_of()
    features = local_features(1, (20, 10, 0, 5))
    await index.apply([4, 5], [record(await source.of_picture(features)), record(None)], [])
    query = local_features(2)
    hits = await index.search(await source.of_query(query), 10)
    asked = asmk(query.descriptors, book).binarised()
    wanted = similarity(asked, rasmk(features.descriptors, features.counts, book).binarised(), KERNELS["r-asmk"])
    assert hits.keys.tolist() == [4] and index.stats.pictures == 1
    assert hits.scores[0] == pytest.approx(wanted / len(asked.words), abs=1e-6)


async def test_a_picture_without_features_is_held_and_never_found(index, source):
    empty = local_features(1, (0,))
    await index.apply([1, 2], [record(await source.of_picture(each)) for each in (empty, local_features(2))], [])
    assert index.stats.pictures == 2
    assert (await index.search(await source.of_query(local_features(3)), 10)).keys.tolist() == [2]
    assert len((await index.search(await source.of_query(empty), 10)).keys) == 0
    shared = await index.sharing(await source.of_query(local_features(3)), np.array([2, 1, 9]), least=1)
    assert shared.tolist() == [True, False, False]


@pytest.mark.parametrize(("kernel", "multiple"), [("asmk", 1), ("how", 5), ("how-idf", 5)])
async def test_how_gives_a_query_more_words(kernel, multiple):
    source, features = DeepWords(words_of(), None, kernel=kernel, threads=1), local_features(1, (3,))
    asked, indexed = await source.of_query(features), await source.of_picture(features)
    source.close()
    wanted = asmk(features.descriptors, words_of(), multiple=multiple).binarised()
    np.testing.assert_array_equal(asked.words, wanted.words)
    assert len(indexed.words) <= 3 and (len(asked.words) > 3) == (multiple > 1)
