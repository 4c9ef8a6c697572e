"""`landseer augment` between two runs of the orchestrator, on real photographs; LAttDBA by the exported network."""

from __future__ import annotations

import argparse
import shutil

import numpy as np
import pytest
from stack.photos import WHEEL, wheel

from landseer.ensemble.store.store import Store
from landseer.ops.commands import augment
from landseer.v1 import index_pb2, search_pb2

pytestmark = pytest.mark.stack

PLAIN = {"first_stage": search_pb2.FIRST_STAGE_GLOBAL, "reranking": {"method": search_pb2.RERANKING_METHOD_NONE}}


def augmented(store, repository, method):
    parser = argparse.ArgumentParser()
    augment.add_arguments(parser)
    command = [str(store), "--method", method, "--repository", str(repository), "--allow-untrained"]
    return augment.run(parser.parse_args(command))


@pytest.fixture(scope="module")
def indexed(another, tmp_path_factory):
    """A store of photographs that no server uses."""
    folder = tmp_path_factory.mktemp("indexed") / "store"
    server, landseer = another(folder)
    landseer.put({name: wheel(name) for name in WHEEL})
    server.stop()
    return folder


@pytest.mark.parametrize("method", ["alphaqe:2:3", "lattqe:3:0.1"])
def test_pictures_are_augmented_and_served(another, indexed, repository, tmp_path, method):
    folder = shutil.copytree(indexed, tmp_path / "store")
    assert augmented(folder, repository, method) == 0
    store = Store.open(folder, fingerprint=None)
    keys, vectors = next(store.vectors.scan(augmented=True))
    raw = store.vectors.descriptors(keys.tolist())
    names = [stored.record.id for stored in store.by_keys(keys.tolist(), vectors=False)]
    store.close()
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=2e-3)
    _, landseer = another(folder, "--vectors", "augmented")
    told = landseer.index.Stats(index_pb2.StatsRequest()).searched_vectors
    assert (told.augmentation, told.not_augmented, bool(told.network)) == (method, 0, method.startswith("lattqe"))
    hits = landseer.search.Search(search_pb2.SearchRequest(id=names[0], top_k=len(names), **PLAIN)).hits
    expected = dict(zip(names, vectors.astype(np.float32) @ raw[0], strict=True))
    assert {hit.id for hit in hits} == set(names[1:])
    for hit in hits:
        assert hit.score == pytest.approx(expected[hit.id], abs=1e-5)
