"""Evaluation of a service: the real orchestrator, over a stand-in for Triton."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import threading
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import grpc
import numpy as np
import pytest
from fake_triton import PROFILE, SIZES, FakeTriton, describe, free_port
from PIL import Image
from prints import camera, cover, photographed
from rich.console import Console

from landseer.client.blocking import BlockingSearchClient
from landseer.client.cli import main
from landseer.client.client import SearchClient
from landseer.ensemble.config import ServerConfig
from landseer.ensemble.ingest.augmenting import augment_store
from landseer.ensemble.pictures.pictures import prepare
from landseer.ensemble.search.expansion.augmentation import augmented
from landseer.ensemble.search.expansion.recipe import recipe
from landseer.ensemble.store.store import Store
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.database import Database
from landseer.ops.evaluate.keypoint_arrays import keypoint_arrays
from landseer.ops.evaluate.methods import RANKERS, Method, answers, by_cosine, rankings
from landseer.ops.evaluate.notation import parse_all
from landseer.ops.evaluate.readers import read
from landseer.ops.evaluate.served import ServedSystem
from landseer.ops.evaluate.space import Space
from landseer.ops.evaluate.verified_hits import Verifying
from landseer.v1.index_pb2 import VisualWordsStats
from landseer.v1.search_pb2 import (
    EXPANSION_METHOD_ALPHA_QE,
    EXPANSION_METHOD_AQE,
    EXPANSION_METHOD_LATTQE,
    EXPANSION_METHOD_NONE,
    FIRST_STAGE_BOTH,
    FIRST_STAGE_GLOBAL,
    FIRST_STAGE_WORDS,
    RERANKING_METHOD_NONE,
    Expansion,
    SearchRequest,
)

CONSOLE = Console(stderr=True)


class Service:
    """An orchestrator on an event loop in a thread of its own."""

    def __init__(self, store, **options):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stack = AsyncExitStack()
        self.address = self._run(self._start(store, options))

    async def _start(self, store, options):
        from landseer.ensemble.app.server import start_server

        self.triton = await FakeTriton(profile=options.pop("profile", PROFILE)).start()
        self._stack.push_async_callback(self.triton.stop)
        config = {"max_top_k": 50, "store_limit_bytes": 64 * 2**20, "poll_s": 0.1, "bulk_in_flight": 4, "threads": 2}
        config["decode_processes"] = False
        listen = f"127.0.0.1:{free_port()}"
        server = await start_server(
            ServerConfig(store=store, listen=listen, triton=self.triton.address, metrics=None, **(config | options))
        )
        self._stack.push_async_callback(server.stop, 0.0)
        await server.ready(30.0)
        return server.address

    def close(self):
        if self._loop.is_closed():
            return
        self._run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)


@pytest.fixture
def start(tmp_path):
    started = []

    def make(**options):
        started.append(Service(tmp_path / "store", **options))
        return started[-1]

    yield make
    for service in started:
        service.close()


@pytest.fixture
def folder(tmp_path):
    """Four classes of three pictures of coloured tiles."""
    draws = np.random.default_rng(0)
    for label in range(4):
        (tmp_path / "data" / str(label)).mkdir(parents=True)
        tiles = draws.uniform(0, 255, (4, 4, 3))
        for number in range(3):
            noisy = np.clip(tiles + draws.normal(0, 60, tiles.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).resize((96, 64)).save(tmp_path / "data" / str(label) / f"{number}.png")
    return tmp_path / "data"


def ranked(system, dataset, method):
    done = []
    found = system.ranker(dataset)(method, lambda what, steps: lambda: done.append(steps))
    assert len(done) == len(dataset.queries)
    return found.orders


def test_rankings_are_those_of_the_stored_descriptors(start, folder, capsys):
    service = start()
    dataset = read(f"folder:{folder}")
    system = ServedSystem(service.address)
    assert system.prepare(dataset, (), CONSOLE) == {}
    with BlockingSearchClient(service.address) as client:
        vectors = [client.get(str(path), include_vectors=True).descriptor for path in dataset.references]
    vectors = np.array(vectors, np.float32)
    for method in parse_all("none,aqe,aqewd,aqewd-dir,alphaqe:3:2", positions=64):
        expected = list(rankings(method, vectors, vectors, dataset.own_rows(), lattqe=lambda query, near: query))
        for one, other in zip(ranked(system, dataset, method), expected, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=str(method))
    # An untrained LAttQE is measured here as it is in process.
    assert len(ranked(system, dataset, Method(name="lattqe", neighbours=2))) == 12
    assert system.about.untrained == ("lattqe",) and not system.about.notes
    # What is there already is not sent again.
    ServedSystem(service.address).prepare(dataset, (), CONSOLE)
    assert "0 pictures indexed" in capsys.readouterr().err


def _mean(query, near):
    """Return what the stand-in for LAttQE does."""
    total = query + near.sum(axis=0)
    return (total / np.linalg.norm(total)).astype(np.float32)


class PictureArrays:
    """What an evaluation in process keeps of pictures, by the models of the stand-in."""

    def __init__(self, dataset, profile):
        self.dataset, self.profile = dataset, profile

    def of_queries(self, name):
        return (self._array(name, query.shot.path) for query in self.dataset.queries)

    def of_references(self, name):
        return (self._array(name, path) for path in self.dataset.references)

    def has_patches(self):
        return bool(self.profile.sizes.patches)

    def descriptor(self, path):
        return self._described(prepare(path.read_bytes(), profile=self.profile))["descriptor"].astype(np.float32)

    def space(self):
        dataset = self.dataset
        return Space(
            queries=np.stack([self.descriptor(query.shot.path) for query in dataset.queries]),
            # As an index keeps them.
            database=Database(
                vectors=np.stack([self.descriptor(path).astype(np.float16) for path in dataset.references]).astype("f4")
            ),
            own=dataset.own_rows(),
            lattqe=_mean,
            trained="lattqe" not in self.profile.untrained,
            arrays=self,
        )

    def _array(self, name, path):
        prepared = prepare(path.read_bytes(), profile=self.profile)
        return keypoint_arrays({name}, self._described(prepared), prepared)[name]

    def _described(self, prepared):
        found = describe({"image": prepared.pixels[None]}, self.profile.sizes)
        return {name: tensor[0] for name, tensor in found.items()}


@pytest.fixture
def shop(tmp_path):
    """Covers, and photographs of them."""
    for folder, seen in (("shop", None), ("queries", camera(turn=20, tilt=0.2, zoom=0.8))):
        (tmp_path / folder).mkdir()
        for seed in range(6 if folder == "shop" else 3):
            pixels = cover(seed) if seen is None else photographed(cover(seed), seen)
            Image.fromarray(pixels).save(tmp_path / folder / f"{seed}.png")
    return f"pairs:{tmp_path / 'queries'},{tmp_path / 'shop'}"


@pytest.mark.parametrize(("patches", "untrained"), [(0, ("lattqe",)), (60, ("lattqe",)), (0, ())])
def test_rows_by_keypoints_in_process_are_those_of_a_service(start, shop, patches, untrained):
    """Rows by keypoints are computed by the code of a service, so they agree hit by hit."""
    sizes = dataclasses.replace(SIZES, patches=patches)
    profile = dataclasses.replace(
        PROFILE, long_side=400, sizes=sizes, patches_sha256="2" * 64 if patches else "", untrained=untrained
    )
    dataset, system = read(shop), ServedSystem(start(profile=profile).address)
    system.prepare(dataset, (), CONSOLE)
    space = PictureArrays(dataset, profile).space()
    for method in parse_all("keypoints,both,once,default,verified:1", positions=64):
        mine = [answer.order for answer in answers(method, space)]
        for one, other in zip(mine, ranked(system, dataset, method), strict=True):
            # A service has no hits that share no word with the query.
            np.testing.assert_array_equal(one[: len(other)], other, err_msg=str(method))
        assert [len(one) for one in mine] == [6] * 3
        assert method.name == "both" or [one[0] for one in mine] == [0, 1, 2]


def test_queries_expanded_by_neighbours_are_verified_in_process_as_by_a_service(start, shop):
    """Near are candidates near the query that LAttQE expanded, which is AQE here; with AQE those near the query."""
    profile = dataclasses.replace(PROFILE, long_side=400)
    dataset, service = read(shop), start(profile=profile)
    ServedSystem(service.address).prepare(dataset, (), CONSOLE)
    space = PictureArrays(dataset, profile).space()
    verifying, method = Verifying(space, by_cosine), Method(name="aqe", neighbours=3)
    [block] = space.blocks()
    asked, scores = verifying.asked(block), []
    for kind, by_own in ((EXPANSION_METHOD_LATTQE, False), (EXPANSION_METHOD_AQE, True)):
        mine = verifying.once(asked, expanded=RANKERS[method.name](method, space).rank, by_own=by_own)
        expansion = Expansion(method=kind, neighbours=method.neighbours, allow_untrained=not by_own)
        with BlockingSearchClient(service.address) as client:
            found = [client.search(query.shot.path, expansion=expansion, top_k=6).hits for query in dataset.queries]
        for ranking, hits in zip(mine, found, strict=True):
            rows = [dataset.references.index(Path(hit.id)) for hit in hits]
            np.testing.assert_array_equal(ranking.keys[: len(rows)], rows)
            np.testing.assert_allclose(
                ranking.scores[: len(rows)], [hit.score for hit in hits], rtol=1e-4, atol=1e-4, err_msg=str(kind)
            )
        scores.append([one.scores.tolist() for one in mine])
    assert scores[0] != scores[1]


def test_other_pictures_and_a_short_list_of_hits_are_said(start, folder):
    service = start(max_top_k=5)
    dataset = read(f"folder:{folder / '0'},{folder / '1'}")
    with BlockingSearchClient(service.address) as client:
        client.upsert("elsewhere", folder / "0" / "0.png")
    system = ServedSystem(service.address)
    system.prepare(dataset, (), CONSOLE)
    assert system.about.notes == (
        "the service also searches 1 other picture, which count as distractors",
        "the service returns at most 5 hits: pictures beyond them count as not found",
    )
    found = ranked(system, dataset, Method(name="none"))
    assert {len(order) for order in found} == {5}
    assert found[0][0] >= len(dataset.references), "the other picture is the first query's own"


def test_queries_are_sent_and_never_find_themselves(start, folder, tmp_path):
    service = start()
    known = tmp_path / "known"
    known.mkdir()
    for label in range(4):
        (folder / str(label) / "0.png").rename(known / f"{label}.png")
    (folder / "1" / "1.png").rename(folder / "0" / "3.png")
    (folder / "0" / "1.png").write_bytes(b"no picture")
    (folder / "0" / "2.png").unlink()
    dataset = read(f"pairs:{folder / '0'},{known}")
    with BlockingSearchClient(service.address) as client:
        client.upsert(str(folder / "0" / "3.png"), folder / "0" / "3.png")
    system = ServedSystem(service.address)
    [(path, why)] = system.prepare(dataset, (), CONSOLE).items()
    assert path.name == "1.png" and "not a picture" in why
    [order] = ranked(system, dataset.without([path]), Method(name="none"))
    assert sorted(order.tolist()) == [0, 1, 2, 3]


def test_an_answer_without_its_expansion_is_an_error(start, folder):
    service = start()
    dataset = read(f"folder:{folder}")
    system = ServedSystem(service.address)
    system.prepare(dataset, (), CONSOLE)
    service.triton.failures["lattqe"] = (grpc.StatusCode.INTERNAL, "broken")
    with pytest.raises(OpsError, match=r"left out expand for .*those of lattqe:2; run again"):
        ranked(system, dataset, Method(name="lattqe", neighbours=2))


@pytest.fixture
def requests(monkeypatch):
    """Every search that clients send."""
    sent, call = [], SearchClient._call

    async def record(self, name, method, request, timeout):
        sent.extend([request] if isinstance(request, SearchRequest) else [])
        return await call(self, name, method, request, timeout)

    monkeypatch.setattr(SearchClient, "_call", record)
    return sent


def test_every_row_but_the_default_names_all_stages(start, folder, requests):
    dataset = read(f"folder:{folder}").sampled(1, seed=0)
    system = ServedSystem(start().address)
    system.prepare(dataset, (), CONSOLE)
    asked = {}
    # What the service would refuse for want of words is sent, too: the method is checked before.
    system.check = lambda methods: None
    for method in methods("default,none,alphaqe:3:2,both,asmk"):
        with suppress(OpsError):
            ranked(system, dataset, method)
        asked[method.name] = requests.pop()
    default = asked.pop("default")
    assert default.top_k == 12 and default.id
    assert {field.name for field, _ in default.ListFields()} == {"id", "top_k"}
    assert {one.reranking.method for one in asked.values()} == {RERANKING_METHOD_NONE}
    stages = {name: (one.first_stage, one.expansion.method) for name, one in asked.items()}
    assert stages == {
        "none": (FIRST_STAGE_GLOBAL, EXPANSION_METHOD_NONE),
        "alphaqe": (FIRST_STAGE_GLOBAL, EXPANSION_METHOD_ALPHA_QE),
        "both": (FIRST_STAGE_BOTH, EXPANSION_METHOD_NONE),
        "asmk": (FIRST_STAGE_WORDS, EXPANSION_METHOD_NONE),
    }
    assert (asked["alphaqe"].expansion.neighbours, asked["alphaqe"].expansion.alpha) == (3, 2)


def test_the_baseline_is_a_row_beside_a_service(start, folder, tmp_path, capsys):
    told = tmp_path / "told.json"
    command = ["evaluate", f"folder:{folder}", "--methods", "default,sift", "--server", start().address]
    assert main([*command, "--cache", str(tmp_path / "cache"), "--json", str(told)]) == 0
    default, sift = json.loads(told.read_text())["rows"]
    assert (default["method"], sift["method"]) == ("default", "sift")
    assert default["milliseconds"] is None and sift["milliseconds"] > 0
    assert default["gain"]["value"] == 0 and len(sift["aps"]) == 12
    assert "12 pictures indexed" in capsys.readouterr().err


def test_rows_by_words_must_be_those_of_the_service(start, folder):
    system = ServedSystem(start().address)
    system._words = VisualWordsStats(codebook="x", words=64, kernel="r-asmk")
    system.check(methods("default,both,rasmk,rasmk:64"))
    with pytest.raises(OpsError, match=r"compares words by r-asmk, not by asmk; name rasmk"):
        system.check(methods("asmk"))
    with pytest.raises(OpsError, match=r"has 64 words; got rasmk:65: leave the number out"):
        system.check(methods("rasmk:65"))


def test_turned_queries_are_sent_turned_and_never_find_their_upright_selves(start, folder, requests):
    dataset = read(f"folder:{folder}").turned(90)
    system = ServedSystem(start().address)
    assert system.prepare(dataset, methods("none,default"), CONSOLE) == {}
    orders = ranked(system, dataset, Method(name="none"))
    for query, order, own in zip(dataset.queries, orders, dataset.own_rows(), strict=True):
        assert own not in order and len(order) == 11, query
    for request in requests:
        with Image.open(io.BytesIO(request.image)) as picture:
            assert picture.size == (64, 96)
    with pytest.raises(OpsError, match=r"--turn with aqe:1: .* its own upright self; omit the row"):
        system.prepare(dataset, methods("none,aqe"), CONSOLE)
    (folder / "0" / "0.png").write_bytes(b"no picture")
    assert "not a picture" in system.prepare(dataset, (), CONSOLE)[folder / "0" / "0.png"]


def methods(text):
    return parse_all(text, positions=64)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("diffusion", "diffusion is not a method of the service; it has default, once, verified, none, lattqe"),
        ("both", "has no visual words, so it cannot evaluate both; start the service with `landseer serve"),
        ("asmk", "has no visual words, so it cannot evaluate asmk"),
        ("aqe+coattention", r"aqe:1\+coattention:100 re-ranks, which can only be evaluated in process; omit"),
        ("alphadba:3:2", "searches raw vectors, so it cannot evaluate alphadba:3:2; stop it, run "),
        ("dqe,ddba+dqe", "`landseer augment --method dqe:2` and `landseer serve --vectors augmented`"),
    ],
)
def test_what_a_service_cannot_do_is_refused_before_it_is_asked(start, text, said):
    with pytest.raises(OpsError, match=said):
        ServedSystem(start(local_features="none").address).check(methods(f"none,{text}"))


def test_words_of_keypoints_are_compared_by_their_kernel_alone(start):
    system = ServedSystem(start().address)
    with pytest.raises(OpsError, match="compares words by how-idf, not by asmk; name keypoints"):
        system.check(methods("asmk"))
    system.check(methods("default,none,both,keypoints"))


def test_a_service_is_evaluated_with_the_augmentation_that_it_serves(start, folder, tmp_path):
    service, dataset, how = start(), read(f"folder:{folder}"), recipe("alphaqe:3:2", positions=64)
    ServedSystem(service.address).prepare(dataset, (), CONSOLE)
    with BlockingSearchClient(service.address) as client:
        raw = [client.get(str(path), include_vectors=True).descriptor for path in dataset.references]
    raw = np.array(raw, np.float32)
    service.close()
    store = Store.open(tmp_path / "store", fingerprint=None)
    augment_store(store, how, threads=1)
    store.close()
    system = ServedSystem(start(vectors="augmented").address)
    system.check(methods("none,alphadba:3:2,alphadba:3:2+aqe"))
    with pytest.raises(OpsError, match=r"vectors augmented by alphaqe:3:2.*cannot evaluate alphadba:4:2"):
        system.check(methods("alphadba:4:2"))
    system.prepare(dataset, (), CONSOLE)
    assert "all vectors augmented by alphaqe:3:2" in system.about.title
    assert system.about.details["searched_vectors"]["augmentation"] == "alphaqe:3:2"
    assert any("help to find themselves" in note for note in system.about.notes)
    rows = augmented(raw, "alphaqe", 3, parameter=2, threads=1).astype(np.float16).astype(np.float32)
    for method in methods("alphadba:3:2,alphadba:3:2+aqe"):
        served, own = Database(vectors=rows, recipe=how), dataset.own_rows()
        expected = list(rankings(method, raw, served, own, lattqe=lambda query, near: query))
        for one, other in zip(ranked(system, dataset, method), expected, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=str(method))
    # A picture that comes now is not augmented, and then the rows would not be what they are called.
    (folder / "0" / "0.png").rename(folder / "0" / "again.png")
    dataset = read(f"folder:{folder}")
    system.prepare(dataset, (), CONSOLE)
    assert any("1 picture added" in note for note in system.about.notes)
    assert len(ranked(system, dataset, Method(name="none"))) == 12
    with pytest.raises(OpsError, match=r"alphaqe:3:2 before 1 were added and 0 removed"):
        ranked(system, dataset, methods("alphadba:3:2")[0])
