"""The vectors that a version has beside its index are the store's, and are read instead of them."""

from __future__ import annotations

import numpy as np
import pytest
from records import plain_record

from landseer.ensemble.index import building
from landseer.ensemble.index.index_setting import IndexSetting
from landseer.ensemble.index.manifest import VersionDamaged
from landseer.ensemble.index.mapped_vectors import FILE, MappedVectors
from landseer.ensemble.index.opening import Opener
from landseer.ensemble.index.version_room import vectors_bytes, version_bytes
from landseer.ensemble.index.versions import Versions
from landseer.ensemble.store.store import Store

D, P = 16, 8
APPROXIMATE = "HNSW4"
TRAINED = "IVF2,SQ8"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(folder):
    draws = np.random.default_rng(0)
    rows = draws.standard_normal((100, D))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    store = Store.open(folder, fingerprint="{}", clusters_shape=(10, P), limit_bytes=2**28)
    store.put_many([plain_record(f"p{step}", reduced=P, descriptor=row) for step, row in enumerate(rows)])
    yield store
    store.close()


@pytest.fixture
def opener(folder, store):
    return Opener(Versions(folder), store, fingerprint="{}", augmented=False, threads=1, damaged=lambda: None)


def merge(folder, store, opener, factory):
    token, aside = opener.versions.aside()
    order = building.BuildOrder(
        store=str(folder),
        folder=str(aside),
        token=token,
        built=opener.state(),
        augmented=False,
        setting=IndexSetting(factory=factory),
        dimension=D,
        expected=store.count(),
    )
    building.build(order, store.vectors)
    return opener.publish(aside)


def stored(store, keys):
    return store.vectors.descriptors(keys.tolist())


@pytest.mark.parametrize("factory", [APPROXIMATE, TRAINED])
def test_a_version_has_the_vectors_of_the_store(folder, store, opener, factory):
    version = merge(folder, store, opener, factory)
    main = opener.living(version)
    [keys, rows] = next(store.vectors.scan())
    assert (version.folder / FILE).read_bytes() == rows.astype("<f2").tobytes()
    assert FILE in [file.name for file in version.manifest.files]
    some = keys[[5, 99, 0, 5]]
    np.testing.assert_array_equal(main.vectors(some), stored(store, some))
    there, vectors = main.held(np.array([*some, 10**6]))
    assert there.tolist() == [True, True, True, True, False]
    np.testing.assert_array_equal(vectors, stored(store, some))


def test_removed_pictures_are_not_held(folder, store, opener):
    main = opener.living(merge(folder, store, opener, APPROXIMATE))
    keys = main._index.keys[:3]
    main.remove(keys[1:2])
    there, vectors = main.held(keys)
    assert there.tolist() == [True, False, True]
    np.testing.assert_array_equal(vectors, stored(store, keys[[0, 2]]))


def test_what_is_removed_between_training_and_adding_is_in_neither(folder, store, opener, monkeypatch):
    kind = building.main_index_of(IndexSetting(factory=TRAINED))
    train = kind.build.__func__

    def build(cls, setting, dimension, batches, *, sampled, **options):
        def sampled_then_removed(step):
            yield from sampled(step)
            store.delete("p7")

        return train(cls, setting, dimension, batches, sampled=sampled_then_removed, **options)

    monkeypatch.setattr(kind, "build", classmethod(build))
    version = merge(folder, store, opener, TRAINED)
    assert version.manifest.size == 99 == (version.folder / FILE).stat().st_size // (2 * D)
    main = opener.living(version)
    np.testing.assert_array_equal(main.vectors(main._index.keys), stored(store, main._index.keys))


def test_exact_indexes_and_versions_of_older_releases_read_the_store(folder, store, opener, monkeypatch):
    exact = merge(folder, store, opener, "SQfp16")
    monkeypatch.setattr(building, "written", lambda batches, folder: batches)
    older = merge(folder, store, opener, APPROXIMATE)
    for version in (exact, older):
        assert not (version.folder / FILE).exists()
        main = opener.living(version)
        keys = main._index.keys[:4]
        np.testing.assert_array_equal(main.vectors(keys), stored(store, keys))
        there, vectors = main.held(keys)
        assert not there.any() and vectors.shape == (0, D)


def test_a_file_of_another_size_is_damaged(folder, store, opener):
    version = merge(folder, store, opener, APPROXIMATE)
    with (version.folder / FILE).open("ab") as file:
        file.write(b"\0\0")
    with pytest.raises(VersionDamaged, match="expected 100 vectors of 16 float16"):
        opener.living(version)
    with pytest.raises(VersionDamaged, match="expected 3,200"):
        opener.versions.read(version.number)


def test_vectors_are_copied_row_by_row(tmp_path):
    rows = np.random.default_rng(0).standard_normal((50, 7)).astype("<f2")
    (tmp_path / FILE).write_bytes(rows.tobytes())
    mapped = MappedVectors(tmp_path / FILE, dimension=7, size=50)
    places = np.array([49, 0, 3, 3])
    np.testing.assert_array_equal(mapped.at(places), rows[places].astype(np.float32))
    assert mapped.at(places[:0]).shape == (0, 7)


def test_a_version_may_have_no_vectors(tmp_path):
    (tmp_path / FILE).touch()
    assert MappedVectors(tmp_path / FILE, dimension=7, size=0).at(np.empty(0, np.int64)).shape == (0, 7)


def test_their_disk_counts_but_not_as_memory(folder, store, opener):
    last = merge(folder, store, opener, APPROXIMATE).manifest
    setting = IndexSetting(factory=APPROXIMATE)
    assert vectors_bytes(setting, pictures=50, dimension=D) == 50 * D * 2
    assert vectors_bytes(IndexSetting(factory="SQfp16"), pictures=50, dimension=D) == 0
    half = version_bytes(setting, pictures=50, dimension=D, last=last)
    assert half == (last.bytes - 100 * D * 2) // 2
