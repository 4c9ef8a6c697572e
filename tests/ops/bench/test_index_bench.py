"""The trial of indexes on a store's vectors, and the report of `make bench-index`."""

from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
import pytest
from records import plain_record

from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.store.store import Store
from landseer.ops.bench import index_trial
from landseer.ops.bench.index_report import GOAL_SIZE, EngineRow, IndexReport, SizeRows, markdown, verdict
from landseer.ops.bench.index_trial import IndexTrial, fastest, folder_of, recall, suiting
from landseer.ops.bench.neighbourhood import local_dimension, neighbourhoods

COUNT, DIMENSION, K = 900, 32, 10


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    draws = np.random.default_rng(0)
    vectors = draws.standard_normal((COUNT // 6, DIMENSION)).repeat(6, axis=0)
    vectors += 0.5 * draws.standard_normal(vectors.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    opened = Store.open(tmp_path_factory.mktemp("trial") / "store", fingerprint="f")
    rows = vectors.astype(np.float16)
    opened.put_many([plain_record(f"r{i}", reduced=512, descriptor=row) for i, row in enumerate(rows)])
    yield opened
    opened.close()


@pytest.fixture
def trial(store, monkeypatch):
    """A trial that starts no process for each index."""
    monkeypatch.setattr(index_trial, "_started", lambda folder: {"seconds": 0.001, "own_bytes": 2**20})
    return IndexTrial(store, queries=30, k=K, threads=1)


def test_the_truth_is_brute_force_without_the_queries(store, trial):
    keys, rows = next(store.vectors.scan())
    inside = np.isin(keys, trial.keys)
    asked = trial.questions()
    assert inside.sum() == len(trial.keys) == COUNT - 30 and not inside.all()
    np.testing.assert_array_equal(asked.queries, rows[~inside].astype(np.float32))
    scores = np.sort(asked.queries.astype(np.float64) @ rows[inside].astype(np.float64).T, axis=1)[:, ::-1]
    np.testing.assert_allclose(asked.kth, scores[:, K - 1], rtol=1e-12)
    few = trial.questions(share=0.005)
    assert few.found.tolist() == [4] * 30 and np.count_nonzero(few.selection.allowed) == 4
    assert recall([row[:5] for row in scores], asked) == 0.5


def test_a_sweep_finds_more_with_more_effort_and_the_fastest_that_finds_enough_is_chosen(trial, tmp_path):
    built = trial.build("IVF16,SQ8", folder_of(tmp_path, "IVF16,SQ8"))
    points = list(trial.sweep(built, trial.questions()))
    assert [point.setting.effort for point in points] == [2, 4, 8]
    assert points[0].recall < points[-1].recall and points[-1].recall > 0.9
    slow, quick = replace(points[-1], core_s=0.2), replace(points[-1], core_s=0.1)
    assert fastest([slow, quick, replace(quick, recall=0.5, core_s=0.01)], target=0.9) is quick
    assert fastest([slow], target=1.1) is None
    assert built.cost.bytes > built.cost.size * DIMENSION and built.cost.size == COUNT - 30
    flat = trial.build("Flat", folder_of(tmp_path, "Flat"))
    assert [point.recall for point in trial.sweep(flat, trial.questions(0.1))] == [1.0]
    finer = trial.build("IVF1,PQ4x4fs,Refine(SQ8)", folder_of(tmp_path, "finer"))
    points = list(trial.sweep(finer, trial.questions()))
    assert [point.setting.effort for point in points][:2] == [100, 200]
    assert points[-1].recall > 0.95
    few = list(trial.sweep(finer, trial.questions(), enough=points[0].recall))
    assert [point.setting.effort for point in few] == [100, 200]


def test_what_suits_a_size():
    graphs = [f"PCA{values},HNSW32,SQ8" for values in (384, 512, 640)]
    assert suiting(4_000, 1280) == ["Flat", "SQfp16", *graphs, "PCAR768,IVF1,PQ192x4fs,Refine(SQ8)"]
    assert suiting(4_000, 128) == suiting(4_000, 128 * 128) == ["Flat", "SQfp16", "HNSW32,SQ8"]
    assert "IVF512,RaBitQfs4" in suiting(100_000, 1280) and "IVF512,PQ320x4fs" in suiting(100_000, 1280)


def test_the_report_has_what_was_measured(trial, tmp_path):
    built = trial.build("Flat", folder_of(tmp_path, "Flat"))
    point = replace(trial.point(built.index, trial.questions()), rate=500.0, core_s=0.002)
    row = EngineRow(cost=built.cost, points=[point], chosen=point, filtered=replace(point, core_s=0.001, rate=460.0))
    real = [plain_record("a", reduced=512, descriptor=vector) for vector in np.eye(40, 64, dtype=np.float16)]
    report = IndexReport(
        sizes=[
            SizeRows(entries=1000, engines=[row], left_out=["Milvus' `HNSW32`: it did not answer"]),
            SizeRows(entries=GOAL_SIZE, engines=[row]),
        ],
        target=0.98,
        queries=30,
        neighbourhoods=neighbourhoods(real, real),
        machine=[("processor", "x")],
        others=0.0,
        profile=Profile(backbone="lite0", weights_sha256="y", sizes=Sizes(channels=32)),
        photographs="40 of `x`",
        command="python -m landseer.ops.bench.index_bench",
        date=datetime(2026, 1, 2, tzinfo=timezone.utc),
        seconds=60.0,
    )
    text = markdown(report)
    assert text.count("Left out") == 1 and "Left out: Milvus' `HNSW32`: it did not answer." in text
    assert verdict(report) and "searches a second among 1,000,000: met" in text
    assert "| `Flat` |  | 1 | 1.0000 | 2.00 | 500 |" in text and "| 1.0000 | 1.00 | 460 |" in text
    assert "met among 1,000 (0.92), met among 1,000,000 (0.92)." in text
    assert "| Flat | 2.00 | 2.00 | 1.0 |" in text
    missed = replace(report, sizes=[SizeRows(entries=1000, engines=[replace(row, chosen=replace(point, recall=0.5))])])
    assert not verdict(missed) and "was not measured in this run" in markdown(missed)


def test_the_dimension_of_points_on_a_plane_and_in_space():
    draws = np.random.default_rng(0)
    for dimension in (2, 8):
        points = draws.uniform(size=(1500, dimension)) @ np.linalg.qr(draws.standard_normal((20, dimension)))[0].T
        distances = np.linalg.norm(points[:200, None] - points[None], axis=2)
        nearest = np.sort(distances, axis=1)[:, 1:21].astype(np.float32)
        assert np.median(local_dimension(nearest)) == pytest.approx(dimension, rel=0.25)
