"""The generator of the re-ranking benchmark, its store and its wording; tests/stack runs the whole."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import threading
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from landseer.ensemble.index.collection import KEYPOINT_KERNEL
from landseer.ensemble.index.keypoint_words import KeypointWords
from landseer.ensemble.index.versions import WORDS, Versions
from landseer.ensemble.index.word_files import WordFiles
from landseer.ensemble.index.word_index import WordIndex
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.keypoints.compact import CompactKeypoints
from landseer.ensemble.keypoints.patches import Patches
from landseer.ensemble.keypoints.query_keypoints import QueryKeypoints
from landseer.ensemble.keypoints.shipped import shipped_codebook
from landseer.ensemble.store.record import Record
from landseer.ensemble.store.store import Store
from landseer.ensemble.verify.keypoint_verifier import compared
from landseer.export.datasets.photograph import Photograph
from landseer.ops.bench import generated_store
from landseer.ops.bench.asking import AnswerPair, IdAsker, TimedAnswer, added, added_by, mebibytes, staged
from landseer.ops.bench.generated_features import PLACED, SHARED, FeaturePool
from landseer.ops.bench.generated_store import (
    WrittenStore,
    expected_bytes,
    give_features,
    only_described,
    open_with_features,
    require_room,
    write,
)
from landseer.ops.bench.generated_words import write_words
from landseer.ops.bench.generator import BLOCK, EACH, THING, entries, entry_id, fit, nearest_cosines
from landseer.ops.bench.likeness import Likeness, likeness, quantities
from landseer.ops.bench.neighbourhood import neighbourhoods
from landseer.ops.bench.page_cache import disk_bytes, drop, memory_bytes, read_ahead
from landseer.ops.bench.prepared_store import STORE, StorePlan, home_of, prepared
from landseer.ops.bench.real_store import PhotographSource, real_features, real_records, spread
from landseer.ops.bench.reranking import main
from landseer.ops.bench.reranking_report import AskedPairs, RerankingReport, Started, goals, markdown, verdict
from landseer.ops.bench.statistics import Round
from landseer.ops.bench.whole_search import CALLERS, WAYS, VerifiedHits, WayTimes, WholeSearches
from landseer.ops.errors import OpsError
from landseer.v1.common_pb2 import StageTiming
from landseer.v1.index_pb2 import UpsertFailure
from landseer.v1.search_pb2 import RERANKING_METHOD_NONE, Hit, SearchResponse, Verification

SIZES = Sizes(channels=48, reduced=16, locals=20, clusters=5)
PROFILE = Profile(backbone="x", weights_sha256="y", sizes=SIZES, patches_sha256="z")


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def pictures(count=240, each=4, seed=0):
    """Return records as pictures have them: things shown several times, clusters alike, some with fewer of them."""
    rng = np.random.default_rng(seed)
    maps = {name: rng.normal(size=(12, size)) / 4 for name, size in (("d", 48), ("q", 16), ("c", 16), ("w", 16))}
    found = []
    for number in range(count):
        thing = np.random.default_rng((seed, number // each)).normal(size=12)
        own = 0.8 * thing + 0.6 * rng.normal(size=12)
        clusters = own @ maps["c"] + 1.0 + rng.normal(size=(3 + (number % 3), 12)) @ maps["w"]
        found.append(
            Record(
                id=f"p{number}",
                metadata={},
                width=640,
                height=480,
                descriptor=unit(own @ maps["d"] + 0.3).astype(np.float16),
                query_vector=unit(own @ maps["q"] + 1.0).astype(np.float16),
                clusters=unit(clusters).astype(np.float16),
                boxes=np.zeros((2, 5), np.float32),
                feature_map=np.zeros((20, 4), np.uint8),
                model_version="1",
                indexed_at=1.0,
            )
        )
    return found


def features(count=20, keypoints=1000, patches=388, seed=0):
    """Return keypoints and patches of pictures that have nothing in common."""
    rng = np.random.default_rng(seed)

    def arrays(size):
        return {
            "codes": rng.integers(256, size=(size, 16)).astype(np.uint8),
            "positions": rng.uniform((0, 0), (640, 480), (size, 2)).astype(np.float32),
            "sizes": rng.uniform(8, 16, size).astype(np.float32),
            "frame": (640, 480),
        }

    def both():
        words, angles = rng.integers(shipped_codebook().words, size=keypoints), np.zeros(keypoints, np.float32)
        return CompactKeypoints(words=words, angles=angles, **arrays(keypoints)), Patches(**arrays(patches))

    return [both() for _ in range(count)]


@pytest.fixture(scope="module")
def real():
    return pictures()


@pytest.fixture(scope="module")
def fitted(real):
    return fit(real)


def drawn(fitted, count, seed=0):
    return [record for block in entries(fitted, count, seed=seed) for record in block]


def test_generated_entries_are_like_real_ones(real, fitted):
    found = {one.name: one for one in likeness(real, drawn(fitted, len(real)))}
    assert len(found) == 7
    for name, one in found.items():
        np.testing.assert_allclose(one.generated, one.real, atol=0.5 if "how many" in name else 0.15, err_msg=name)
    # Vectors drawn evenly from the sphere are like nothing real.
    rng = np.random.default_rng(0)
    even = unit(rng.normal(size=(len(real), 48)))
    assert abs(np.median(nearest_cosines(even)) - found["descriptor and its nearest neighbour's"].real[2]) > 0.2


def test_generated_entries_lie_in_no_fewer_directions_than_real_ones(real):
    """64 pictures of 200 directions: drawn from their covariance, entries would lie in 63."""
    vectors = unit(np.random.default_rng(0).normal(size=(64, 200))).astype(np.float16)
    flat = [dataclasses.replace(one, descriptor=vector) for one, vector in zip(real[:64], vectors, strict=True)]
    *_, found = neighbourhoods(flat, drawn(fit(flat), 64))
    assert found.name == "share of it in the 16 strongest directions of others"
    np.testing.assert_allclose(found.generated, found.real, atol=0.1)


def test_entries_are_what_the_store_takes_and_the_same_again(real, fitted):
    some, again, other = drawn(fitted, 100), drawn(fitted, 100), drawn(fitted, 100, seed=1)
    assert [one.id for one in some] == [entry_id(number) for number in range(100)]
    for one, same in zip(some, again, strict=True):
        np.testing.assert_array_equal(one.clusters, same.clusters)
        np.testing.assert_array_equal(one.descriptor, same.descriptor)
        for vectors in (one.descriptor, one.query_vector, one.clusters):
            assert vectors.dtype == np.float16
            np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float32), axis=-1), 1.0, atol=2e-3)
    assert {len(one.clusters) for one in some} <= {len(one.clusters) for one in real}
    assert not np.array_equal(some[0].descriptor, other[0].descriptor)


def test_a_thing_is_shown_more_than_once_but_not_side_by_side(fitted):
    vectors = np.stack([one.descriptor for one in drawn(fitted, 64 * EACH)]).astype(np.float32)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1.0)
    apart = np.abs(cosines.argmax(axis=1) - np.arange(len(vectors)))
    assert np.median(apart) > EACH


def test_blocks_do_not_depend_on_how_many_follow(fitted):
    first, *_ = entries(fitted, BLOCK + 8, seed=3)
    [alone] = entries(fitted, BLOCK, seed=3)
    assert len(first) == BLOCK
    np.testing.assert_array_equal(first[-1].descriptor, alone[-1].descriptor)


def test_too_little_to_fit_is_said(real):
    few = [one for one in real if len(one.clusters) > 1][:2]
    with pytest.raises(ValueError, match="got 2 records with two clusters or more; expected at least 3"):
        fit(few)


def test_quantities_are_over_all_pairs(real):
    found = quantities(real[:10])
    assert len(found["descriptors of two pictures"]) == 45
    assert len(found["descriptor and its nearest neighbour's"]) == 10
    assert found["clusters of a picture (how many)"].tolist() == [float(len(one.clusters)) for one in real[:10]]


def test_the_store_holds_what_was_drawn(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr("landseer.ops.bench.generator.BLOCK", 256)
    told = []
    written = write(tmp_path / "store", fitted, profile=PROFILE, count=600, seed=0, progress=told.append)
    assert (written.entries, told) == (600, [256, 256, 88])
    needed = expected_bytes(fitted.patterns, 600)
    store = Store.open(tmp_path / "store", fingerprint=PROFILE.fingerprint, clusters_shape=(5, 16))
    try:
        assert store.stats().pictures == 600
        assert store.get(entry_id(599)).record.descriptor.shape == (48,)
    finally:
        store.close()
    # Of values this small little is known, so the estimate must only never be too low.
    assert written.bytes <= needed


def test_the_estimate_fits_records_of_true_size(tmp_path):
    rng = np.random.default_rng(0)
    sizes = Sizes(channels=1280)
    profile = Profile(backbone="x", weights_sha256="y", sizes=sizes)
    some = [
        Record(
            id=f"p{number}",
            metadata={},
            width=640,
            height=480,
            descriptor=unit(rng.normal(size=1280)).astype(np.float16),
            query_vector=unit(rng.normal(size=512)).astype(np.float16),
            clusters=unit(rng.normal(size=(10, 512))).astype(np.float16),
            boxes=np.zeros((8, 5), np.float32),
            feature_map=np.zeros((500, 4), np.uint8),
            model_version="1",
            indexed_at=1.0,
        )
        for number in range(8)
    ]
    stored, told = {}, {"profile": profile, "count": 512, "seed": 0, "progress": lambda count: None}
    for described, kept in ((False, some), (True, only_described(some))):
        folder = tmp_path / str(described)
        written = write(folder, fit(some), described=described, **told)
        assert 0.97 < written.bytes / expected_bytes(kept, 512) < 1.05
        store = Store.open(folder, fingerprint=profile.fingerprint)
        stored[described] = written.bytes, next(store.vectors.scan())[1]
        store.close()
    assert stored[True][0] < 0.3 * stored[False][0]
    np.testing.assert_array_equal(stored[True][1], stored[False][1])


@pytest.fixture(scope="module")
def pool():
    return FeaturePool.of(features())


def matched(one, other):
    """Return what verification by keypoints and patches finds in two entries."""
    return compared(QueryKeypoints.of_indexed(one[0]), other[0], one[1], other[1])


def test_entries_of_a_thing_verify_and_others_do_not(pool):
    one, other, stranger = pool.drawn(3, 1, seed=0), pool.drawn(3, 2, seed=0), pool.drawn(4, 5, seed=0)
    assert (len(one[0]), len(one[1]), one[0].frame, one[1].frame) == (1000, 388, (640, 480), (640, 480))
    found = matched(one, other)
    # The first entry may be given an id of 0: its own features are still not those of the thing.
    assert len(np.intersect1d(pool.drawn(3, 0, seed=0)[0].words, other[0].words)) < 0.3 * 1000
    assert found.inliers == pytest.approx(1000 * SHARED * PLACED, abs=3)
    assert found.patches == pytest.approx(388 * SHARED * PLACED, abs=3)
    assert found.probability > 0.99
    assert matched(one, stranger).probability < 0.5
    again = pool.drawn(3, 1, seed=0)
    np.testing.assert_array_equal(one[0].positions, again[0].positions)
    np.testing.assert_array_equal(one[1].codes, again[1].codes)
    assert not np.array_equal(one[0].words, pool.drawn(3, 1, seed=1)[0].words)


def test_pictures_without_features_are_refused():
    with pytest.raises(OpsError, match="got 0 real pictures with keypoints and patches"):
        FeaturePool.of([])
    with pytest.raises(OpsError, match=r"\[40, 0\] of them together; expected some of both"):
        FeaturePool.of(features(2, keypoints=20, patches=0))


def test_the_nearest_of_what_is_asked_get_features(fitted, pool, tmp_path):
    write(tmp_path, fitted, profile=PROFILE, count=300, seed=0, progress=lambda count: None)
    store = open_with_features(tmp_path, PROFILE, 2**30)
    try:
        given = give_features(store, pool, [entry_id(7), entry_id(250)], near=10, seed=0)
        check_features(store, fitted, given)
    finally:
        store.close()


def check_features(store, fitted, given):
    """The ten nearest of entries 7 and 250 have features, and nothing else has changed."""
    vectors = np.stack([one.descriptor for one in drawn(fitted, 300)]).astype(np.float32)
    nearest = np.argsort(-vectors[[7, 250]] @ vectors.T, axis=1)[:, :10]
    there = {entry_id(number) for number in nearest.ravel()}
    assert given == len(there)
    keys = [key for some, _ in store.keypoints.scan() for key in some.tolist()]
    found = store.by_keys(keys)
    assert {one.record.id for one in found} == there
    assert all(patches is not None for patches in store.patches.read(keys))
    assert store.stats().pictures == 300
    before = {one.id: one for one in drawn(fitted, 300)}
    for one in found:
        np.testing.assert_array_equal(one.record.descriptor, before[one.record.id].descriptor)
        assert one.record.metadata == before[one.record.id].metadata


def test_all_entries_have_words_those_with_keypoints_theirs(fitted, pool, tmp_path, monkeypatch):
    monkeypatch.setattr("landseer.ops.bench.generated_words.MOST", 128)
    monkeypatch.setattr("landseer.ops.bench.generated_words.LISTED", 50)
    write(tmp_path, fitted, profile=PROFILE, count=300, seed=0, progress=lambda count: None)
    store = open_with_features(tmp_path, PROFILE, 2**30)
    source = KeypointWords(shipped_codebook(), store.keypoints, kernel=KEYPOINT_KERNEL)
    index, told = WordIndex(source, threads=1), []
    try:
        give_features(store, pool, [entry_id(7)], near=10, seed=0)
        write_words(store, tmp_path, pool, seed=0, progress=told.append)
        files = WordFiles(store, index, versions=Versions(tmp_path, WORDS), damaged=lambda: None)
        _, saved = files.first()
        asyncio.run(index.load(threading.Event(), saved))
        assert (index.stats.pictures, sum(told), index.changed) == (300, 300, 0)
        key = store.get(entry_id(7)).key
        words = store.keypoints.read([key])[0].searched()
        found = asyncio.run(index.search(words, 300))
        assert found.keys[0] == key
        assert found.scores[0] == pytest.approx(1.0)
    finally:
        index.close()
        store.close()


def test_entries_say_which_thing_they_show(fitted):
    some = drawn(fitted, BLOCK + EACH)
    things = [one.metadata[THING] for one in some]
    assert {things.count(thing) for thing in things} == {EACH}
    assert len(set(things)) == BLOCK // EACH + 1
    vectors = np.stack([one.descriptor for one in some]).astype(np.float32)
    nearest = np.argsort(-vectors @ vectors.T, axis=1)[:, 1]
    # By chance it were 0.015.
    assert np.mean([things[here] == things[there] for here, there in enumerate(nearest)]) > 0.2


def plan(fitted, pool, **more):
    known = {"profile": PROFILE, "entries": 300, "asked": [entry_id(3)], "seed": 0}
    return StorePlan(fitted=fitted, pool=pool, **{**known, **more})


def test_a_kept_store_is_used_again_and_an_unfinished_one_refused(fitted, pool, tmp_path, monkeypatch):
    built = []
    monkeypatch.setattr("landseer.ops.bench.prepared_store._build", built.append)
    ours, other = plan(fitted, pool), plan(fitted, pool, seed=1)
    with home_of(ours, "photos", tmp_path, keep=True) as home:
        first = prepared(home, ours, Console())
    with home_of(ours, "photos", tmp_path, keep=True) as again, home_of(other, "photos", tmp_path, keep=True) as apart:
        assert (again, apart == home) == (home, False)
        assert prepared(home, ours, Console()) == first
    assert (first.entries, first.featured, built) == (300, 300, [home / STORE])
    (home / "written.json").unlink()
    with pytest.raises(OpsError, match="has a store that was not finished; delete the folder"):
        prepared(home, ours, Console())
    with home_of(ours, "photos", tmp_path, keep=False) as temporary:
        assert temporary.exists()
    assert not temporary.exists()


def test_a_disk_without_room_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    require_room(tmp_path, 1)
    monkeypatch.setattr(generated_store.shutil, "disk_usage", lambda folder: SimpleNamespace(free=3 * 2**30))
    with pytest.raises(OpsError, match=r"needs 1\.5 GiB and 2 GiB must stay free, but .* has 3\.0 GiB; free some"):
        require_room(tmp_path, 3 * 2**29)


def test_photographs_are_spread_evenly():
    some = [Photograph(path=Path(str(number)), label="a") for number in range(10)]
    assert [one.path.name for one in spread(some, 4)] == ["0", "3", "6", "9"]
    assert spread(some, 100) == some
    assert spread([], 4) == []


def test_the_figures_of_a_process_are_read(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(bytes(2**16))
    drop(file)
    assert disk_bytes(os.getpid()) >= 0
    assert memory_bytes(os.getpid(), "RssAnon") > 2**20
    assert read_ahead(file) == "unknown" or read_ahead(file).endswith(" KiB")
    with pytest.raises(OSError, match="has no field Nothing"):
        memory_bytes(os.getpid(), "Nothing")


def answer(seconds, *, search=0.2, rerank=0.0, disk=0):
    stages = {"search": search, "total": seconds} | ({"rerank": rerank} if rerank else {})
    return TimedAnswer(seconds=seconds, stages=stages, disk=disk, best=0.9)


def pairs(more, count=5, read=3 * 2**18):
    """Return searches that take 200 ms, and `more` ms more with re-ranking, which read so many bytes."""
    return [
        AnswerPair(
            plain=answer(0.2 + place / 100, search=0.19),
            reranked=answer(0.2 + place / 100 + more / 1e3, search=0.191, rerank=0.004, disk=read),
        )
        for place in range(count)
    ]


def test_what_is_added_is_told_pair_by_pair():
    some = pairs(7.0)
    np.testing.assert_allclose(added(some), 7.0)
    np.testing.assert_allclose(staged(some), 4.0)
    np.testing.assert_allclose(added_by(some, "search"), 1.0)
    np.testing.assert_allclose(mebibytes(some), 0.75)


class Client:
    """Answers as a search does, and keeps what it was asked."""

    def __init__(self, **fields):
        self.asked, self.fields = [], fields

    def search(self, id, *, top_k, first_stage, reranking):
        assert first_stage == "global"
        plain = reranking.method == RERANKING_METHOD_NONE
        self.asked.append((id, "plain" if plain else reranking.candidates))
        hit = SimpleNamespace(scores=SimpleNamespace(**{"global": 0.5}))
        timing = SimpleNamespace(stage="search", seconds=0.001)
        return SimpleNamespace(**{"hits": [hit], "degradations": [], "timings": [timing], **self.fields})


def test_warm_queries_take_turns_and_others_are_reranked_first():
    client, before = Client(), []
    asker = IdAsker(client, pid=os.getpid())
    [one, _] = asker.pairs(["a", "b"], alternate=True)
    assert client.asked == [("a", 100), ("a", "plain"), ("b", "plain"), ("b", 100)]
    assert (one.plain.best, one.plain.stages) == (0.5, {"search": 0.001})
    client.asked.clear()
    asker.pairs(["a", "b"], alternate=False, before=lambda: before.append(len(client.asked)))
    assert [how for _, how in client.asked] == [100, "plain", 100, "plain"]
    assert before == [0, 1, 2, 3]


def test_an_answer_that_is_not_whole_stops_the_benchmark():
    late = Client(degradations=[SimpleNamespace(stage="rerank", reason="DEADLINE_EXCEEDED: too late")])
    with pytest.raises(OpsError, match=r"a was answered without rerank \(DEADLINE_EXCEEDED: too late\)"):
        IdAsker(late, pid=os.getpid()).pairs(["a"], alternate=True)
    with pytest.raises(OpsError, match="a was answered without hits"):
        IdAsker(Client(hits=[]), pid=os.getpid()).pairs(["a"], alternate=True)


class Answers:
    """Answers in every way, and counts what it was asked."""

    def __init__(self):
        self.asked = []

    def search(self, id, *, top_k, **options):
        self.asked.append((id, top_k, tuple(sorted(options.items()))))
        return SearchResponse(
            hits=[
                Hit(id="a", verification=Verification(probability=0.995)),
                Hit(id="b", verification=Verification(probability=0.5)),
                Hit(id="c"),
            ],
            timings=[StageTiming(stage="search", seconds=0.002), StageTiming(stage="total", seconds=0.003)],
        )


def test_whole_searches_ask_in_every_way():
    client, evicted = Answers(), []
    found = list(WholeSearches(client, ["x", "y"], rounds=3).times(lambda: evicted.append(len(client.asked))))
    assert [one.way for one in found] == list(WAYS)
    assert evicted[:2] == [0, 2 + 2 * 6]
    for one in found:
        assert (len(one.first.latencies), len(one.alone.latencies), len(one.together.latencies)) == (2, 6, 6)
        assert one.stages == pytest.approx({"search": 0.002, "total": 0.003})
        assert one.verified == (VerifiedHits(compared=2.0, same=1.0) if one.way.verifies else None)
    ways = {options for _, _, options in client.asked}
    assert ways == {tuple(sorted(way.options.items())) for way in WAYS}
    assert {way.name for way in WAYS if way.whole and way.verifies} == {"the default", "`--expansion lattqe`"}


def test_whole_searches_where_eviction_is_not_permitted():
    def forbidden():
        raise PermissionError(1, "Operation not permitted")

    assert {one.first for one in WholeSearches(Answers(), ["x"], rounds=1).times(forbidden)} == {None}


def ways(*, alone=0.05, together=0.2):
    """Return searches that take so long in each way."""

    def round_of(seconds):
        return Round(seconds=10 * seconds / CALLERS, latencies=(seconds,) * 10)

    return [
        WayTimes(
            way=way,
            first=round_of(2 * alone),
            alone=round_of(alone),
            together=round_of(together),
            stages={"search": 0.004, "rerank": 0.03, "total": alone},
            verified=VerifiedHits(compared=99.6, same=31.2) if way.verifies else None,
        )
        for way in WAYS
    ]


def report(more, *, cold=True, read=0, **others):
    values = (0.1, 0.2, 0.3, 0.4, 0.5)
    return RerankingReport(
        rows=AskedPairs(
            warm=pairs(more, read=read),
            fresh=pairs(2 * more),
            cold=pairs(3 * more) if cold else [],
            why_not_cold="" if cold else "Operation not permitted",
            parts=[("the store", 1.0), ("Triton", 3.0)],
        ),
        ways=ways(**others),
        likeness=[Likeness(name="descriptors of two pictures", real=values, generated=values)],
        written=WrittenStore(entries=1000, bytes=1000 * 20 * 1024, seconds=2.0, featured=400),
        started=Started(seconds=4.0, own=2**29, most=9 * 2**30),
        own=2**30,
        machine=[("processor", "A CPU")],
        others=0.01,
        profile=PROFILE,
        photographs="400 of `folder:photos`",
        seed=0,
        command="python -m landseer.ops.bench.reranking",
        date=datetime(2026, 1, 2, 3, 4, tzinfo=timezone.utc),
        seconds=120.0,
    )


def test_what_coattention_adds_is_within_its_limit_at_the_median_by_both_clocks():
    assert verdict(report(9.9))
    assert not verdict(report(10.1))
    slow = report(2.0)
    warm = [dataclasses.replace(one, reranked=answer(0.2, rerank=0.012)) for one in slow.rows.warm]
    assert not verdict(dataclasses.replace(slow, rows=dataclasses.replace(slow.rows, warm=warm)))


def test_the_verdict_is_also_of_whole_searches_start_and_memory():
    assert [goal.value for goal in goals(report(7.0))] == pytest.approx([50.0] * 3 + [200.0] * 3 + [7.0, 4.0, 1.0])
    assert not verdict(report(7.0, alone=0.061))
    assert not verdict(report(7.0, together=0.251))
    late = dataclasses.replace(report(7.0), started=Started(seconds=5.1, own=2**29, most=2**33))
    assert [goal.name for goal in goals(late) if not goal.met] == ["start"]
    large = dataclasses.replace(report(7.0), own=2**31 + 2**30)
    assert [goal.name for goal in goals(large) if not goal.met] == ["RssAnon of the orchestrator"]


def test_the_report_says_what_was_measured():
    text = markdown(report(7.0))
    whole = " ".join(text.split())
    assert text.startswith("# Whole searches among 1,000 entries")
    assert "| the default: p50, one caller | 50.0 ms | 60 ms | met |" in text
    assert "| the default: p99, 4 callers | 200.0 ms | 250 ms | met |" in text
    assert "| the default | 10 + 10 | 100.0 | 50.0 | 50.0 | 200.0 | 200.0 | 20.0 | 100 | 31 |" in text
    assert "| `--rerank coattention` | 10 + 10 | 100.0 | 50.0 | 50.0 | 200.0 | 200.0 | 20.0 |  |  |" in text
    assert "| the default | 4.0 |  |  |  | 30.0 |  |  | 50.0 | 50.0 |" in text
    assert "All 1,000 entries have words, 400 have keypoints and patches" in whole
    assert "by co-attention adds **14.0 (14.0 to 14.0) ms** to a search with a new query and" in whole
    assert "**7.0 (7.0 to 7.0) ms** to one with a warm query" in whole
    assert "| co-attention adds, by both clocks | 7.0 ms | 10 ms | met |" in text
    assert "| start | 4.0 s | 5 s | met |" in text
    warm = "| warm: searched before | 2 x 5 | 220.0 | 227.0 | 7.0 (7.0 to 7.0) | 4.0 (4.0 to 4.0) | 4.0 | +1.0 | 0.0 |"
    assert warm in text
    assert "did not find their data" not in text
    assert "they read 3 MiB each" in markdown(report(7.0, read=3 * 2**20))
    assert "| cold: nothing of the store in memory | 2 x 5 |" in text
    assert "| sum, the stage | 4.00 | 100% |" in text
    assert "20.0 KiB per entry" in text
    assert "| first hit among all entries | generated | 0.900 |" in text
    assert "not quiet" not in text
    assert "**not met**" not in text
    assert "**not met**" in markdown(report(11.0))
    assert "Cold searches were not measured: Operation not permitted." in markdown(report(7.0, cold=False))
    dry = dataclasses.replace(report(7.0, cold=False), ways=[dataclasses.replace(one, first=None) for one in ways()])
    assert "; not measured: Operation not permitted." in markdown(dry)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--entries", "100"], "--entries 100 is too few for --queries 100; expected 300 or more"),
        (["--entries", "0"], "expected a whole number of at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, said, capsys):
    with pytest.raises(SystemExit):
        main(["--photographs", "folder:x", *options])
    assert said in capsys.readouterr().err


def test_without_models_or_photographs_one_line_says_what_to_do(tmp_path, capsys):
    assert main(["--photographs", "folder:x", "--repository", str(tmp_path), "--scratch", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("landseer: error:")
    assert "run: python export/all.py" in said
    assert said.count("\n") == 1


@pytest.fixture
def source(tmp_path, real):
    """Photographs that are described already, of models that are only a manifest."""
    folder, repository = tmp_path / "photos" / "things", tmp_path / "models"
    folder.mkdir(parents=True)
    repository.mkdir()
    (repository / "manifest.json").write_text(json.dumps({"profile": json.loads(PROFILE.to_json())}))
    photographs = [folder / f"{number:03d}.jpg" for number in range(40)]
    for path in photographs:
        path.touch()
    found = PhotographSource(
        repository=repository,
        profile=PROFILE,
        photographs=f"folder:{folder.parent}",
        limit=400,
        home=tmp_path / "scratch",
    )
    store = Store.open(
        found.store,
        fingerprint=PROFILE.fingerprint,
        clusters_shape=(5, 16),
        codebook=shipped_codebook().fingerprint,
        patches_sha256=PROFILE.patches_sha256,
    )
    for one, path, (keypoints, patches) in zip(real, photographs, features(40, 20, 10), strict=False):
        store.put_many([dataclasses.replace(one, id=str(path), keypoints=keypoints, patches=patches)])
    store.close()
    return found


def test_photographs_that_are_described_are_not_described_again(source, tmp_path):
    assert len(real_records(source, Console())) == 40
    assert [(len(keypoints), len(patches)) for keypoints, patches in real_features(source)] == [(20, 10)] * 40
    few = dataclasses.replace(source, photographs=f"folder:{tmp_path / 'photos'},{tmp_path / 'no'}")
    with pytest.raises(OpsError, match="is not a folder"):
        real_records(few, Console())


def test_photographs_that_cannot_be_indexed_are_told(source, monkeypatch):
    asked, console = [], Console(record=True, width=200)

    def index(source, some):
        asked.extend(some)
        return [UpsertFailure(id=str(one.path), message="not a picture") for one in some]

    monkeypatch.setattr("landseer.ops.bench.real_store._index", index)
    monkeypatch.setattr("landseer.ops.bench.real_store._missing", lambda source, chosen: list(chosen)[:2])
    assert len(real_records(source, console)) == 40
    told = console.export_text().replace("\n", "")
    assert f"2 of 2 photographs were not indexed; the first is {asked[0].path}: not a picture" in told


@pytest.mark.parametrize("where", ["prepared", "_serving"])
@pytest.mark.parametrize(("how", "status"), [(KeyboardInterrupt(), 130), (OpsError("no more"), 1)])
def test_ended_early_it_leaves_nothing(source, where, how, status, monkeypatch, capsys):
    def end(*_, **__):
        raise how

    monkeypatch.setattr("landseer.ops.bench.prepared_store._build", lambda store: None)
    monkeypatch.setattr(f"landseer.ops.bench.reranking.{where}", end)
    out = source.home / "report.md"
    options = ["--photographs", source.photographs, "--repository", str(source.repository), "--out", str(out)]
    assert main([*options, "--scratch", str(source.home), "--entries", "300", "--queries", "4"]) == status
    assert capsys.readouterr().err.startswith("stopped" if status == 130 else "landseer: error: no more")
    assert sorted(path.name for path in source.home.iterdir()) == [source.store.name]
