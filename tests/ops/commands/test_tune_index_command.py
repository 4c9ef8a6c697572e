"""`landseer tune-index` on a small store."""

import numpy as np
import pytest

from landseer.client.cli import main
from landseer.ensemble.config import ServerConfig
from landseer.ensemble.index.index_setting import IndexSetting
from landseer.ensemble.index.setting_choice import TUNED, setting_for
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.store.record import Record
from landseer.ensemble.store.store import Store
from landseer.ops.bench import index_trial

SIZES = Sizes(channels=32)
PROFILE = Profile(backbone="lite0", weights_sha256="ab" * 32, sizes=SIZES, untrained=())


@pytest.fixture
def filled(tmp_path):
    """Return a function that makes a store of some pictures, six of each thing."""

    def make(count):
        draws = np.random.default_rng(0)
        vectors = draws.standard_normal((-(-count // 6), 32)).repeat(6, axis=0)[:count]
        vectors += 0.5 * draws.standard_normal(vectors.shape)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        store = Store.open(tmp_path / "store", fingerprint=PROFILE.fingerprint)
        store.put_many([record(f"r{number}", vector) for number, vector in enumerate(vectors)])
        store.close()
        return tmp_path / "store"

    return make


def record(id, vector):
    return Record(
        id=id,
        metadata={},
        width=40,
        height=30,
        descriptor=vector.astype(np.float16),
        query_vector=np.zeros(SIZES.reduced, np.float16),
        clusters=np.zeros((0, SIZES.reduced), np.float16),
        boxes=np.zeros((0, 5), np.float32),
        feature_map=np.zeros((0, 4), np.uint8),
        model_version="1",
        indexed_at=1e9,
    )


def test_the_fastest_setting_that_finds_the_target_is_written_and_served(filled, tmp_path, capsys):
    store = filled(900)
    before = sorted(file.name for file in store.iterdir())
    few = ["--index", "IVF8,SQ8", "--queries", "40", "--threads", "1", "--plot", str(tmp_path / "curve.png")]
    assert main(["tune-index", str(store), *few, "--target", "0.9"]) == 0
    told = capsys.readouterr().out
    header, row = told.splitlines()[:2]
    assert header.replace("core ms", "core_ms").replace("build s", "build_s").split() == [
        *("index", "effort", "rescored", "recall@10", "ms", "core_ms", "searches/s", "build_s")
    ]
    assert len(row.removesuffix("<- chosen").split()) == 8
    assert told.count("\nIVF8,SQ8  ") >= 1 and "<- chosen" in told and "bytes a vector on disk" in told
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(file.name for file in store.iterdir()) == sorted([*before, TUNED])
    chosen = setting_for(900, ServerConfig(store=store), dimension=32)
    assert chosen == IndexSetting.from_json((store / TUNED).read_text()) and chosen.factory == "IVF8,SQ8"
    assert f"{chosen.factory}:{chosen.effort}:{chosen.rescored} finds " in told


@pytest.mark.parametrize(
    ("count", "options", "status", "message"),
    [
        (600, ["--index", "HNSV8"], 2, "FAISS cannot make the index 'HNSV8'"),
        (600, ["--vectors", "augmented"], 1, "no augmented vectors; run `landseer augment` first"),
        (20, [], 1, "has 20 pictures; expected at least 500"),
    ],
)
def test_what_cannot_be_measured_is_told(filled, capsys, count, options, status, message):
    store = filled(count)
    assert main(["tune-index", str(store), *options]) == status
    assert message in capsys.readouterr().err
    assert not (store / TUNED).exists()


def test_a_target_nobody_reaches_writes_nothing(filled, capsys, monkeypatch):
    monkeypatch.setattr(index_trial, "_started", lambda folder: {"seconds": 0.001, "own_bytes": 2**20})
    store = filled(600)
    options = ["--index", "IVF4,PQ2x4fs", "--queries", "40", "--target", "1", "--threads", "1"]
    assert main(["tune-index", str(store), *options]) == 1
    assert "no index found 1.0, the best 0." in capsys.readouterr().err
    assert not (store / TUNED).exists()
