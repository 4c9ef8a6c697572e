"""Index versions whose process is killed at random moments, and disks without room."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace

import faiss  # noqa: F401  so that writers, which are forks, need not import it
import numpy as np
import pytest
from killing import names_of, writers
from records import plain_record

from landseer.ensemble.errors import NotFound
from landseer.ensemble.index import manifest
from landseer.ensemble.index.building import BuildOrder, build
from landseer.ensemble.index.index_setting import IndexSetting
from landseer.ensemble.index.opening import Opener
from landseer.ensemble.index.versions import Versions
from landseer.ensemble.store.store import Store

KILLS = int(os.environ.get("LANDSEER_KILLS", "20"))
D, P, PROFILE = 16, 8, "{}"
SETTINGS = ("Flat", "SQfp16", "HNSW4")


def vector(step):
    row = np.random.default_rng(step).standard_normal(D)
    return (row / np.linalg.norm(row)).astype(np.float16)


def record(id, step):
    return plain_record(id, reduced=P, descriptor=vector(step), indexed_at=1e9 + step)


def plain_store(folder):
    return Store.open(folder, fingerprint=PROFILE, clusters_shape=(10, P), limit_bytes=2**28)


def opener_of(folder, store):
    return Opener(Versions(folder), store, fingerprint=PROFILE, augmented=False, threads=1, damaged=lambda: None)


def merge(folder, store, opener, factory):
    """Do what a merge does on disk."""
    token, aside = opener.versions.aside()
    state = opener.state()
    order = BuildOrder(
        store=str(folder),
        folder=str(aside),
        token=token,
        built=state,
        augmented=False,
        setting=IndexSetting(factory=factory),
        dimension=D,
        expected=store.count(),
    )
    build(order, store.vectors)
    version = opener.publish(aside)
    opener.living(version)
    opener.versions.tidy(kept=2)
    return version


def open_store(folder):
    """Open the store for the process that is killed: it merges all the time while it writes."""
    store = plain_store(folder)
    opener = opener_of(folder, store)
    opener.first(lambda version: True)

    def merge_on():
        for step in range(100_000):
            if store.count():
                merge(folder, store, opener, SETTINGS[step % len(SETTINGS)])

    threading.Thread(target=merge_on, daemon=True).start()
    put = store.put_many
    # Else the thread that merges hardly ever gets the lock of writes.
    store.put_many = lambda records: (put(records), time.sleep(0.002))
    return store


WRITTEN = """[record(id, step) for id in (f"r{step}", f"s{step % 7}", f"t{step}")]"""


def check(folder, expected):
    """Every acknowledged write is there, and the version with what came after it is what the store holds."""
    store = plain_store(folder)
    try:
        for id, step in expected.items():
            try:
                written = int(store.get(id).record.indexed_at - 1e9)
            except NotFound:
                assert step is None or id.startswith("r")
                continue
            assert written == step or (step is not None and written > step and id.startswith("s"))
        main = opener_of(folder, store).first(lambda version: True)
        keys, rows = [np.concatenate(parts) for parts in zip(*store.vectors.scan(), strict=True)]
        if main is not None:
            assert main.size == np.count_nonzero(keys <= main.sequence)
            found, scores = main.search(rows[:1].astype(np.float32), main.size)
            assert set(found[0].tolist()) <= set(keys.tolist())
            assert len(set(found[0].tolist())) == main.size
            assert scores[0, 0] == pytest.approx(1.0, abs=1e-2) and np.isfinite(scores).all()
        return main
    finally:
        store.close()


def test_a_killed_merge_loses_no_write_and_leaves_a_version_that_serves(tmp_path, caplog):
    folder, expected, start, draws, served = tmp_path / "store", {}, 0, random.Random(5), []
    with writers(__file__, WRITTEN) as kill_one:
        for _ in range(KILLS):
            said = kill_one(folder, start, draws.uniform(0, 0.2))
            assert said
            for change in said:
                expected |= dict(change)
            start += 5 * (len(said) // 5 + 2)
            main = check(folder, expected)
            served.append(main.number if main else 0)
    # A kill never takes away what served before, and never leaves damage.
    assert served == sorted(served) and served[-1] >= 1
    assert "damaged" not in caplog.text


def once_merged(folder):
    """Return a store with one version, and a change since."""
    store = plain_store(folder)
    store.put_many([record(f"p{step}", step) for step in range(50)])
    merge(folder, store, opener_of(folder, store), "Flat")
    store.put_many([record("p3", 60), record("p51", 61)])
    return store


@pytest.fixture
def merged(tmp_path):
    store = once_merged(tmp_path / "store")
    yield tmp_path / "store", store
    store.close()


KILLED_AT_STEPS = """
    import signal
    from landseer.ensemble.index import building, faiss_index, versions
    from landseer.ensemble.store import index_tokens
    places = {
        "save": (faiss_index.FaissIndex, "save"),
        "sums": (building, "files_of"),
        "write": (manifest.Manifest, "write"),
        "publish": (versions.Versions, "publish"),
        "rename": (Path, "rename"),
        "note": (index_tokens.IndexTokens, "note"),
        "activate": (versions.Versions, "activate"),
        "replace": (Path, "replace"),
        "delete": (versions.shutil, "rmtree"),
    }
    def die(*args, **options):
        os.kill(os.getpid(), signal.SIGKILL)
    for step, (where, name) in places.items():
        folder = Path(sys.argv[1]) / step
        if os.fork() == 0:
            store = once_merged(folder)
            (folder / "index" / "building-left").mkdir()
            setattr(where, name, die)
            merge(folder, store, opener_of(folder, store), "Flat")
        print(step, os.wait()[1], flush=True)
"""


def test_a_merge_killed_at_each_step_leaves_the_version_before_or_the_new_one(tmp_path):
    """One process forks those that die: starting one for each takes longer."""
    code = names_of(__file__) + textwrap.dedent(KILLED_AT_STEPS)
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    ends = [line.split() for line in ran.stdout.splitlines()]
    assert len(ends) == 9 and {end for _, end in ends} == {"9"}
    for step, _ in ends:
        folder = tmp_path / step
        main = check(folder, {"p3": 60, "p51": 61, "p4": 4})
        assert (main.number, main.size, main.tombstones) == ((2, 51, 0) if step == "delete" else (1, 49, 1)), step
        # What it left behind is no hindrance, and goes away.
        again = plain_store(folder)
        assert merge(folder, again, opener_of(folder, again), "Flat").number >= 2
        assert sorted(path.name for path in (folder / "index").iterdir()) == ["active", "versions"]
        again.close()


@pytest.mark.parametrize("where", ["index", "sync", "manifest"])
def test_a_full_disk_fails_the_merge_and_nothing_else(merged, monkeypatch, where):
    folder, store = merged
    opener = opener_of(folder, store)
    before = opener.first(lambda version: True)

    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "index":
        # FAISS, too, must say so, and not leave a shorter file as if it were whole.
        monkeypatch.setattr(Versions, "aside", lambda self: ("t", make_full(folder)))
    elif where == "sync":
        monkeypatch.setattr(manifest.os, "fsync", full)
    else:
        monkeypatch.setattr(manifest.Manifest, "write", full)
    with pytest.raises(OSError, match=r"space|write|full"):
        merge(folder, store, opener, "Flat")
    monkeypatch.undo()
    opener.versions.tidy(kept=2)
    assert opener.versions.active == before.number and opener.versions.numbers == [1]
    assert merge(folder, store, opener, "Flat").number == 2


def make_full(folder):
    """Return a folder in which FAISS's file is on a device that is always full."""
    aside = folder / "index" / "building-full"
    aside.mkdir()
    (aside / "index.faiss").symlink_to("/dev/full")
    return aside


def test_versions_of_an_older_state_serve_after_a_rollback(merged):
    folder, store = merged
    opener = opener_of(folder, store)
    assert merge(folder, store, opener, "Flat").number == 2
    store.delete("p51")
    opener.versions.activate(1)
    main = opener.first(lambda version: True)
    assert (main.number, main.size) == (1, 49)
    # Not after the store lost what the newer version holds.
    version = opener.versions.read(2)
    state = replace(opener.state(), sequence=version.manifest.built.sequence - 1)
    assert "later state" in version.why_not(state, store.index_tokens.read())
    assert "another store" in version.why_not(opener.state(), frozenset())
