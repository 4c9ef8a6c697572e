"""Search without expansion is exact: hit for hit what brute force in float64 finds over the stored descriptors."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from stack.photos import strips

pytestmark = pytest.mark.stack

PICTURES = 60
TOP_K = 25
PLAIN = {"first_stage": "global", "reranking": "none"}
"""Whatever the server does by default."""
DUPLICATES = ("dup/b", "dup/a", "dup/c")
"""One picture under three ids, in this order: their scores tie."""


class Brute:
    """All descriptors, as `Get` tells them, in order of indexing."""

    def __init__(self, landseer, ids):
        found = sorted((landseer.client.get(id, include_vectors=True) for id in ids), key=lambda one: one.sequence)
        self.ids = [one.id for one in found]
        self.rows = np.array([one.descriptor for one in found], np.float64)

    def search(self, query, k, *, without=None):
        """Return ids and scores of the k best; of equal scores the picture indexed first leads."""
        scores = np.einsum("ij,j->i", self.rows, np.asarray(query, np.float32).astype(np.float64))
        order = [i for i in np.lexsort((np.arange(len(scores)), -scores)) if self.ids[i] != without][:k]
        return [self.ids[i] for i in order], scores[order]


@pytest.fixture(scope="module")
def pictures():
    some = strips(PICTURES)
    return {f"strip/{number:02d}": image for number, image in enumerate(some)} | dict.fromkeys(DUPLICATES, some[7])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("exact") / "store"


@pytest.fixture(scope="module")
def alone(another, store, pictures):
    """An orchestrator whose index holds these pictures and nothing else."""
    server, landseer = another(store)
    landseer.put(pictures)
    return server, landseer


def queries(brute):
    """Descriptors near and far, of several norms."""
    rng = np.random.default_rng(0)
    rows = brute.rows[rng.permutation(len(brute.rows))[:8]]
    noise = rng.standard_normal(rows.shape) / np.sqrt(rows.shape[1])
    for share in (0.0, 0.5, 2.0):
        yield from (3.7 * (row + share * one) for row, one in zip(rows, noise, strict=True))


def unit(values):
    """Normalise as the server does."""
    exact = np.asarray(values, np.float32).astype(np.float64)
    return (exact / np.linalg.norm(exact)).astype(np.float32)


def equal(answer, expected):
    ids, scores = expected
    assert [hit.id for hit in answer.hits] == ids
    assert np.array_equal(np.array([hit.score for hit in answer.hits], np.float32), scores.astype(np.float32))


def all_searches_are_exact(landseer, ids):
    brute = Brute(landseer, ids)
    for query in queries(brute):
        equal(landseer.client.search(query.tolist(), top_k=TOP_K, **PLAIN), brute.search(unit(query), TOP_K))
    for id, row in list(zip(brute.ids, brute.rows, strict=True))[::9]:
        equal(landseer.client.search(id, top_k=TOP_K, **PLAIN), brute.search(row, TOP_K, without=id))
    everything = landseer.client.search(brute.rows[0].tolist(), top_k=1000)
    assert sorted(hit.id for hit in everything.hits) == sorted(ids)
    assert everything.index_size == len(ids)


def test_hit_for_hit_through_deletes_replacements_and_restarts(alone, pictures):
    server, landseer = alone
    ids = set(pictures)
    all_searches_are_exact(landseer, ids)

    gone = sorted(pictures)[3:30:4]
    for id in gone:
        landseer.client.delete(id)
    ids -= set(gone)
    all_searches_are_exact(landseer, ids)

    # Others under the same ids: the newest picture counts, and of equal scores it now comes last.
    replaced = sorted(ids)[::7]
    landseer.put(dict(zip(replaced, strips(len(replaced), width=480), strict=True)))
    all_searches_are_exact(landseer, ids)

    server.stop()
    server.start()
    server.wait_ready()
    all_searches_are_exact(landseer, ids)

    landseer.put({"strip/late": pictures["strip/00"]})
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    server.start()
    server.wait_ready()
    all_searches_are_exact(landseer, ids | {"strip/late"})


def test_a_picture_as_the_query(alone, pictures):
    """Triton may answer a picture differently in the last bits from one call to the next: scores have a tolerance."""
    _, landseer = alone
    everything = landseer.client.search([1.0] * landseer.client.stats().descriptor_size, top_k=1000)
    brute = Brute(landseer, [hit.id for hit in everything.hits])
    for image in list(pictures.values())[::8]:
        query = unit(landseer.client.describe(image).descriptor.values)
        score_of = dict(zip(*brute.search(query, len(brute.ids)), strict=True))
        answer = landseer.client.search(image, top_k=TOP_K, **PLAIN)
        found = [hit.score for hit in answer.hits]
        assert found == sorted(found, reverse=True)
        np.testing.assert_allclose(found, [score_of[hit.id] for hit in answer.hits], atol=1e-5)
        np.testing.assert_allclose(found, sorted(score_of.values(), reverse=True)[:TOP_K], atol=1e-5)
