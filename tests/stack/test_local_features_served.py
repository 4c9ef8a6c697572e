"""Local features on the real Triton: kept, verified, turned into words, searched by."""

from __future__ import annotations

import argparse
import shutil

import numpy as np
import pytest
from PIL import Image
from stack.photos import WHEEL, encoded, pixels_of, wheel

from landseer.client.cli import main
from landseer.ensemble.pictures.pictures import Region, prepare
from landseer.ensemble.search.describe import FOR_LOCAL
from landseer.ensemble.store.local_features import of_tensors
from landseer.ensemble.store.store import Store
from landseer.ensemble.verify.verification import verify
from landseer.ensemble.verify.verifier import SETTINGS, located
from landseer.ops.commands import codebook
from landseer.v1 import index_pb2, search_pb2

pytestmark = pytest.mark.stack

SPATIAL = search_pb2.Reranking(method=search_pb2.RERANKING_METHOD_SPATIAL)
GLOBAL = search_pb2.FIRST_STAGE_GLOBAL
COFFEE = "coffee.png"


def turned(name, *, degrees=15.0, share=0.7):
    """Return a photograph turned and reduced, on grey, and cut: an affine map of what is left of it."""
    image = Image.fromarray(pixels_of(wheel(name)))
    image = image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128))
    image = image.resize((round(image.width * share), round(image.height * share)), Image.Resampling.LANCZOS)
    return encoded(image.crop((image.width // 8, image.height // 8, image.width, image.height)), "JPEG", quality=90)


@pytest.fixture(scope="module")
def kept(another, tmp_path_factory):
    """A server that keeps deep local features, and its store."""
    folder = tmp_path_factory.mktemp("kept") / "store"
    server, landseer = another(folder, "--local-features", "deep")
    landseer.put({name: wheel(name) for name in WHEEL})
    return server, landseer, folder


@pytest.fixture(scope="module")
def stored(kept, tmp_path_factory):
    """The local features in a copy of the store, by id: nobody writes meanwhile."""
    copy = tmp_path_factory.mktemp("copy") / "store"
    copy.mkdir()
    shutil.copy(kept[2] / "data.mdb", copy)
    store = Store.open(copy, fingerprint=None)
    keys = [key for found, _ in store.locals.scan() for key in found.tolist()]
    ids = [record.record.id for record in store.by_keys(keys, vectors=False)]
    yield dict(zip(ids, store.locals.read(keys), strict=True))
    store.close()


def test_the_store_keeps_what_triton_gives(kept, stored, triton, eager):
    _, landseer, _ = kept
    told = landseer.index.Stats(index_pb2.StatsRequest()).local_features
    assert (told.kept, told.pictures) == (True, len(WHEEL))
    assert told.bytes == pytest.approx(69_632 * len(WHEEL), rel=0.1), "17 pages a picture"
    pixels = prepare(wheel(COFFEE).read_bytes(), profile=eager.profile).pixels
    tensors = triton.infer("describe_full", {"image": pixels[None]}, FOR_LOCAL)
    fresh, found = of_tensors({name: tensor[0] for name, tensor in tensors.items()}), stored[COFFEE]
    assert found.counts == fresh.counts
    np.testing.assert_allclose(found.positions, fresh.positions, atol=0.02)
    assert (found.descriptors * fresh.descriptors).sum(axis=1).min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(fresh.descriptors, axis=1), 1, atol=2e-3)


def test_inliers_by_id_are_those_of_the_stored_features(kept, stored):
    _, landseer, _ = kept
    answer = landseer.search.Search(
        search_pb2.SearchRequest(id=COFFEE, top_k=50, first_stage=GLOBAL, reranking=SPATIAL)
    )
    assert not answer.degradations and len(answer.hits) == len(WHEEL) - 1
    query = located(stored[COFFEE])
    for hit in answer.hits:
        assert hit.scores.inliers == verify(query, [located(stored[hit.id])], SETTINGS)[0]
    scores = [hit.score for hit in answer.hits]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("name", [COFFEE, "chelsea.png", "astronaut.png"])
def test_a_turned_part_of_a_photograph_agrees_with_it_alone(kept, name):
    _, landseer, _ = kept
    answer = landseer.client.search(turned(name), first_stage="global", reranking="spatial", top_k=len(WHEEL))
    assert not answer.degradations
    assert answer.hits[0].id == name
    assert answer.hits[0].scores.inliers > 2 * answer.hits[1].scores.inliers


def test_regions_are_described_as_queries_of_them_are(another, triton, eager, tmp_path):
    server, landseer = another(tmp_path / "store", "--local-features", "deep", "--regions", "2")
    landseer.put({COFFEE: wheel(COFFEE)})
    boxes = [found for found in landseer.client.get(COFFEE).boxes if found.score >= 0.1][:2]
    assert landseer.index.Stats(index_pb2.StatsRequest()).local_features.regions == 2
    assert landseer.metric("landseer_stage_duration_seconds_count", stage="regions") == 1
    server.stop()
    store = Store.open(tmp_path / "store", fingerprint=None)
    [(_, [kept])] = list(store.locals.scan())
    store.close()
    assert len(kept.counts) == 1 + len(boxes) > 1
    for place, box in enumerate((found.box for found in boxes), start=1):
        region = Region(x=box.x, y=box.y, width=box.width, height=box.height)
        pixels = prepare(wheel(COFFEE).read_bytes(), profile=eager.profile, region=region).pixels
        tensors = triton.infer("describe_full", {"image": pixels[None]}, FOR_LOCAL)
        fresh = of_tensors({name: tensor[0] for name, tensor in tensors.items()})
        first = sum(kept.counts[:place])
        rows = kept.descriptors[first : first + kept.counts[place]]
        assert kept.counts[place] == fresh.counts[0]
        # The crop may begin a fraction of a pixel elsewhere: boxes are kept in single precision.
        assert np.median((rows * fresh.descriptors).sum(axis=1)) > 0.999


def test_words_are_learned_served_and_searched_by(kept, another, stack, tmp_path, capsys):
    """The life of a codebook: from a store, by the command, into a server, asked by the client's command."""
    server, landseer, folder = kept
    refused = landseer.refused(
        landseer.search.Search, search_pb2.SearchRequest(id=COFFEE, first_stage=search_pb2.FIRST_STAGE_WORDS)
    )
    assert (refused.code, refused.reason) == ("FAILED_PRECONDITION", "CODEBOOK_MISSING")
    server.stop()
    parser, output = argparse.ArgumentParser(), tmp_path / "words.safetensors"
    codebook.add_arguments(parser)
    assert codebook.run(parser.parse_args([str(folder), "--output", str(output), "--rounds", "5"])) == 0
    assert "128 words from 5,000 features of 10 pictures after 5 rounds" in capsys.readouterr().out

    server, landseer = another(folder, "--local-features", "deep", "--codebook", str(output))
    told = landseer.index.Stats(index_pb2.StatsRequest()).visual_words
    assert (told.words, told.kernel, told.pictures) == (128, "asmk", len(WHEEL))
    landseer.put({"again": turned(COFFEE, degrees=-2.0, share=0.9)})
    picture = tmp_path / "turned.jpg"
    picture.write_bytes(turned(COFFEE, degrees=0.0, share=0.9))
    address = ("--server", landseer.address)
    assert main(["search", str(picture), "--first-stage", "words", "--rerank", "none", *address]) == 0
    first, second = [line.split()[-1] for line in capsys.readouterr().out.splitlines()[2:4]]
    assert {first, second} == {COFFEE, "again"}
    how = ("--first-stage", "global", "--rerank", "spatial", "--shared-words", "5")
    assert main(["search", "--id", COFFEE, *how, *address]) == 0
    assert capsys.readouterr().out.splitlines()[2].split()[-1] == "again"
    assert main(["stats", *address]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "stored; 11 pictures have them" in said and "128 of codebook" in said
    before = landseer.client.search(picture, first_stage="words", reranking="none", top_k=50)
    server.stop()

    # Built anew from the store it answers the same; without its options it says what is missing.
    server, landseer = another(folder, "--local-features", "deep", "--codebook", str(output))
    after = landseer.client.search(picture, first_stage="words", reranking="none", top_k=50)
    assert [(hit.id, hit.score) for hit in after.hits] == [(hit.id, hit.score) for hit in before.hits]
    server.stop()
    _, landseer = another(folder, "--local-features", "none")
    refused = landseer.refused(landseer.search.Search, search_pb2.SearchRequest(id=COFFEE, reranking=SPATIAL))
    assert (refused.code, refused.reason) == ("FAILED_PRECONDITION", "LOCAL_FEATURES_MISSING")
    assert not landseer.index.Stats(index_pb2.StatsRequest()).local_features.kept
