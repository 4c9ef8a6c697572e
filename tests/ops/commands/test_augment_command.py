from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.store.record import Record
from landseer.ensemble.store.store import Store
from landseer.ops.backend import lattdba_graph as lattdba
from landseer.ops.backend.runner import RequestFailure
from landseer.ops.commands import augment

SIZES = Sizes(channels=16, neighbours=8)
PROFILE = Profile(backbone="lite0", weights_sha256="ab" * 32, sizes=SIZES, untrained=("lattqe",))
COUNT = 20


def picture(number):
    vector = np.random.default_rng(number).standard_normal(SIZES.channels)
    return Record(
        id=f"r{number}",
        metadata={},
        width=40,
        height=30,
        descriptor=(vector / np.linalg.norm(vector)).astype(np.float16),
        query_vector=np.zeros(SIZES.reduced, np.float16),
        clusters=np.zeros((0, SIZES.reduced), np.float16),
        boxes=np.zeros((0, 5), np.float32),
        feature_map=np.zeros((0, 4), np.uint8),
        model_version="1",
        indexed_at=1e9,
    )


@pytest.fixture
def folder(tmp_path):
    store = Store.open(tmp_path / "store", fingerprint=PROFILE.fingerprint)
    store.put_many([picture(number) for number in range(COUNT)])
    store.close()
    return tmp_path / "store"


@pytest.fixture
def repository(tmp_path):
    """The manifest of an export, without its graphs."""
    manifest = {"profile": json.loads(PROFILE.to_json()), "graphs": {"lattqe": {"sha256": "cd" * 32}}}
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path / "models"


class FakeRunner:
    """The identity for a network; `failing` answers as a graph does that threw."""

    failing = False

    def __init__(self, settings) -> None:
        self.settings = settings
        self.batches: list[int] = []

    def run(self, jobs):
        [job] = jobs
        query, neighbours = job.inputs["query"], job.inputs["neighbours"]
        self.batches.append(len(query))
        assert job.inputs["neighbour_mask"].shape == neighbours.shape[:2]
        if self.failing:
            return [RequestFailure(message="no memory", kind="internal")]
        similarities = np.einsum("nd,nkd->nk", query, neighbours)
        return [{"weights": np.concatenate([np.ones((len(query), 1)), similarities], axis=1)}]


@pytest.fixture
def graph(monkeypatch):
    monkeypatch.setattr(lattdba, "Runner", FakeRunner)
    monkeypatch.setattr(
        lattdba, "settings_of", lambda *args, **options: SimpleNamespace(path=Path("lattqe/1/model.onnx"))
    )


def run(*arguments) -> int:
    parser = argparse.ArgumentParser()
    augment.add_arguments(parser)
    return augment.run(parser.parse_args([*map(str, arguments), "--threads", "1"]))


def augmentation(folder):
    store = Store.open(folder, fingerprint=None)
    stats = store.stats()
    store.close()
    return stats.augmentation, stats.augmented


def test_it_augments_and_says_how_to_serve(folder, capsys):
    assert run(folder, "--method", "alphaqe:3:3") == 0
    found, count = augmentation(folder)
    assert (found.method, found.pictures, count) == ("alphaqe:3:3", COUNT, COUNT)
    assert f"20 vectors augmented by alphaqe:3:3 after change 20; to serve them: landseer serve --store {folder}" in (
        capsys.readouterr().out
    )
    assert run(folder, "--method", "none") == 0
    assert augmentation(folder) == (None, 0)


def test_lattdba_by_the_graph(folder, repository, graph):
    method = ("--method", "lattqe:4:0.2", "--repository", repository, "--allow-untrained")
    assert run(folder, *method) == 0
    found, count = augmentation(folder)
    assert (found.method, found.network, count) == ("lattqe:4:0.2", "cd" * 32, COUNT)


def test_a_seeded_network_is_refused(folder, repository, graph, capsys):
    assert run(folder, "--method", "lattqe:4", "--repository", repository) == 1
    assert "never trained" in capsys.readouterr().err
    assert augmentation(folder) == (None, 0)


def test_a_network_of_other_models_is_refused(folder, repository, graph, capsys):
    manifest = repository / "manifest.json"
    manifest.write_text(manifest.read_text().replace("lite0", "resnet50"))
    assert run(folder, "--method", "lattqe:4", "--repository", repository, "--allow-untrained") == 1
    assert "other models" in capsys.readouterr().err


def test_a_graph_that_fails_is_told(folder, repository, graph, monkeypatch, capsys):
    monkeypatch.setattr(FakeRunner, "failing", True)
    assert run(folder, "--method", "lattqe:4", "--repository", repository, "--allow-untrained") == 1
    assert "lattqe failed in process: no memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--method", "qe"), 2, "expected one of"),
        (("--method", "aqe:5000"), 2, "0 to 1000"),
        (("--method", "aqe", "--store-limit", "much"), 2, "got size 'much'"),
        (("--method", "aqe", "--store-limit", "10KiB"), 2, "at least"),
        (("--method", "lattqe", "--repository", "/nowhere"), 1, "python export/all.py"),
    ],
)
def test_options_that_cannot_be(folder, capsys, arguments, status, said):
    assert run(folder, *arguments) == status
    said_all = capsys.readouterr().err
    assert said in said_all and said_all.count("\n") == 1 and said_all.startswith("landseer augment: ")


def test_what_is_no_store(tmp_path, capsys):
    assert run(tmp_path / "nowhere", "--method", "aqe") == 1
    assert "no store in" in capsys.readouterr().err and not (tmp_path / "nowhere").exists()


def test_a_store_in_use_is_left_alone(folder, capsys):
    store = Store.open(folder, fingerprint=PROFILE.fingerprint)
    assert run(folder, "--method", "aqe") == 1
    assert "in use by process" in capsys.readouterr().err
    store.close()


def test_ctrl_c_says_how_to_go_on(folder, monkeypatch, capsys):
    from landseer.ensemble.ingest import augmenting

    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(augmenting, "augment_store", interrupted)
    assert run(folder, "--method", "aqe") == 130
    assert "run the same command again to resume" in capsys.readouterr().err


def test_attention_asks_in_small_batches(repository, graph):
    attention = lattdba.GraphAttention(repository, PROFILE, threads=1)
    queries, neighbours = np.ones((35, 16), np.float32), np.ones((35, 3, 16), np.float32)
    assert attention(queries, neighbours).shape == (35, 3)
    assert attention._runner.batches == [16, 16, 3]
