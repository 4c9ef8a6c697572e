import dataclasses
import random
import resource
import shutil
import subprocess
import sys
import threading

import lmdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from store_records import record
from whole_stores import PROFILE, full_record, kept, open_full, open_store

from landseer.client.cli import main
from landseer.ensemble.errors import ProfileMismatch, StoreFull, StoreUnusable
from landseer.ensemble.store.check import faults
from landseer.ensemble.store.exporting import export_store
from landseer.ensemble.store.folder import LATER
from landseer.ensemble.store.importing import import_store
from landseer.ensemble.store.parquet import ExportUnusable
from landseer.ensemble.store.store import Store
from landseer.ensemble.store.whole import WholeStore


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A store with some of everything, in which pictures were replaced and deleted."""
    folder = tmp_path_factory.mktemp("export") / "store"
    store = open_full(folder)
    store.put_many([full_record(f"p{seed}", seed) for seed in range(1, 300)])
    for seed in (7, 8, 20):
        store.delete(f"p{seed}")
    store.put_many([full_record("p9", 400)])
    store.close()
    return folder


@pytest.fixture(scope="module")
def exported(filled, tmp_path_factory):
    file = tmp_path_factory.mktemp("exported") / "store.parquet"
    export_store(filled, file)
    return file


def test_an_import_gives_every_record_back_byte_for_byte(filled, tmp_path, capsys):
    file = tmp_path / "made" / "store.parquet"
    assert main(["export-store", str(filled), str(file)]) == 0
    assert f"{file}: 296 pictures after change 303; {file.stat().st_size:,} bytes" in capsys.readouterr().out
    assert main(["import-store", str(file), str(tmp_path / "again")]) == 0
    assert kept(tmp_path / "again") == kept(filled)
    assert not list(faults(tmp_path / "again"))
    store = open_full(tmp_path / "again")
    assert (store.count(), store.keypoints.made_by, store.words.codebook) == (296, "words-1", "deep-1")
    assert store.words.missing() == []
    sequence = store.stats().sequence
    store.close()
    # What is there already is not written again, and what was changed since is.
    assert main(["import-store", str(file), str(tmp_path / "again")]) == 0
    assert "0 of 296 pictures written" in capsys.readouterr().out
    store = open_full(tmp_path / "again")
    assert store.stats().sequence == sequence
    store.put_many([full_record("p1", 500), dataclasses.replace(full_record("p2", 2), keypoints=None)])
    store.close()
    assert import_store(file, tmp_path / "again").written == 2
    assert sorted(map(str, kept(tmp_path / "again"))) == sorted(map(str, kept(filled)))


def test_the_columns_are_of_use_without_landseer(exported, filled):
    table = pq.read_table(exported, columns=["id", "metadata", "descriptor", "width", "boxes"])
    store = open_full(filled)
    for row in (0, 1, 150, 295):
        there = store.get(table["id"][row].as_py()).record
        assert dict(table["metadata"][row].as_py()) == there.metadata
        assert (np.array(table["descriptor"][row].as_py(), np.float16) == there.descriptor).all()
        assert [list(box.values()) for box in table["boxes"][row].as_py()] == there.boxes.tolist()
        assert table["width"][row].as_py() == there.width
    store.close()
    assert table.schema.field("descriptor").type.list_size == 64
    assert table["id"].to_pylist()[-1] == "p9"


def test_a_store_in_use_is_exported_and_a_kill_leaves_no_file(tmp_path):
    folder, file = tmp_path / "store", tmp_path / "store.parquet"
    store, over, done = open_full(folder), threading.Event(), []

    def write():
        while not over.is_set():
            seed = len(done) + 1
            store.put_many([full_record(f"p{seed % 50}", seed)])
            done.append(f"p{seed % 50}")

    thread = threading.Thread(target=write)
    thread.start()
    code = """
import os, signal, sys
from pathlib import Path
from landseer.ensemble.store.exporting import export_store
while not list(Path(sys.argv[1]).glob("data.mdb")):
    pass
replace, Path.replace = Path.replace, lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
if os.fork() == 0:
    export_store(*map(Path, sys.argv[1:]))
assert os.waitstatus_to_exitcode(os.wait()[1]) == -9 and not Path(sys.argv[2]).exists()
Path.replace = replace
print(export_store(*map(Path, sys.argv[1:])).about.sequence)
"""
    try:
        ran = subprocess.run(
            [sys.executable, "-c", code, str(folder), str(file)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        over.set()
        thread.join()
        store.close()
    assert ran.returncode == 0, ran.stderr
    sequence = int(ran.stdout)
    newest = {id: seed for seed, id in enumerate(done[:sequence], 1)}
    expected = open_full(tmp_path / "expected")
    expected.put_many([full_record(id, seed) for id, seed in sorted(newest.items(), key=lambda one: one[1])])
    expected.close()
    import_store(file, tmp_path / "again")
    assert kept(tmp_path / "again") == kept(tmp_path / "expected")
    assert not list(tmp_path.glob("*.partial"))


def test_an_interrupted_import_goes_on_where_it_stopped(exported, filled, tmp_path, monkeypatch, capsys):
    put, calls = Store.put_many, []

    def stop(self, records):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(len(records))
        return put(self, records)

    monkeypatch.setattr(Store, "put_many", stop)
    assert main(["import-store", str(exported), str(tmp_path / "s")]) == 130
    assert "run the same command again to resume" in capsys.readouterr().err
    assert len(kept(tmp_path / "s")) == calls[0] == 128
    monkeypatch.setattr(Store, "put_many", put)
    assert import_store(exported, tmp_path / "s").written == 296 - 128
    assert kept(tmp_path / "s") == kept(filled)
    assert main(["import-store", str(exported), str(tmp_path / "t"), "--store-limit", "1MiB"]) == 1
    assert "What was imported before stays; run the same command again" in capsys.readouterr().err


def test_a_store_of_other_models_is_refused_with_the_differences(exported, tmp_path, capsys):
    open_store(tmp_path / "s", dataclasses.replace(PROFILE, long_side=480)).close()
    assert main(["import-store", str(exported), str(tmp_path / "s")]) == 1
    assert "was filled by other models than the export: long side 480 in the store, 640 in the export" in (
        capsys.readouterr().err
    )
    store = open_store(tmp_path / "t", codebook="words-2")
    store.put_many([dataclasses.replace(full_record("p1", 1), locals=None, words=None, patches=None)])
    store.close()
    with pytest.raises(ProfileMismatch, match="words of codebook words-2"):
        import_store(exported, tmp_path / "t")
    # Words follow from local features, so those of another codebook are left out, to be computed again.
    store = open_store(tmp_path / "u")
    store.words.stamp("deep-2")
    store.close()
    assert import_store(exported, tmp_path / "u").written == 296
    store = open_full(tmp_path / "u")
    store.close()


def test_a_store_of_an_older_release_is_exported(tmp_path):
    store = open_store(tmp_path / "old")
    store.put_many([record("a", 1), record("b", 2)])
    store.close()
    environment = lmdb.open(str(tmp_path / "old"), max_dbs=20)
    with environment.begin(write=True) as transaction:
        for name in LATER:
            transaction.drop(environment.open_db(name, txn=transaction), delete=True)
    environment.close()
    export_store(tmp_path / "old", tmp_path / "old.parquet")
    import_store(tmp_path / "old.parquet", tmp_path / "new")
    assert kept(tmp_path / "new") == kept(tmp_path / "old")


def test_damage_is_noticed_or_does_no_harm(tmp_path):
    store = open_full(tmp_path / "s")
    store.put_many([full_record(f"p{seed}", seed) for seed in range(1, 9)])
    store.close()
    export_store(tmp_path / "s", tmp_path / "sound.parquet")
    expected, sound = kept(tmp_path / "s"), (tmp_path / "sound.parquet").read_bytes()
    draws, noticed = random.Random(5), 0
    for _ in range(24):
        data = bytearray(sound)
        data[draws.randrange(len(data))] ^= 1 << draws.randrange(8)
        (tmp_path / "flipped.parquet").write_bytes(data)
        try:
            import_store(tmp_path / "flipped.parquet", tmp_path / "t")
            assert kept(tmp_path / "t") == expected
        except ExportUnusable:
            noticed += 1
        shutil.rmtree(tmp_path / "t", ignore_errors=True)
    assert noticed >= 12
    (tmp_path / "short.parquet").write_bytes(sound[: len(sound) // 2])
    with pytest.raises(ExportUnusable, match="cannot be read, or is damaged"):
        import_store(tmp_path / "short.parquet", tmp_path / "t")


def test_a_full_disk_leaves_no_file(filled, tmp_path):
    before = (filled / "data.mdb").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**17, limits[1]))
    try:
        with pytest.raises(StoreFull, match="there is no room for"):
            export_store(filled, tmp_path / "store.parquet")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
    assert (filled / "data.mdb").read_bytes() == before


def test_a_damaged_page_of_the_store_is_said(exported, filled, tmp_path, monkeypatch, capsys):
    def damaged(self, *ids):
        raise lmdb.CorruptedError("mdb_cursor_get: MDB_CORRUPTED: Located page was wrong type")

    shutil.copytree(filled, tmp_path / "s")
    for owner, name in ((WholeStore, "records"), (Store, "get")):
        monkeypatch.setattr(owner, name, damaged)
    for command in (["export-store", tmp_path / "s", tmp_path / "x"], ["import-store", exported, tmp_path / "s"]):
        assert main(list(map(str, command))) == 1
        assert "MDB_CORRUPTED: Located page was wrong type); check the disk" in capsys.readouterr().err.replace(
            "), and there is no file;", ");"
        )
    assert not list(tmp_path.glob("x*"))


def test_two_exports_to_one_file_do_not_disturb_each_other(filled, tmp_path):
    told = []
    shutil.copytree(filled, tmp_path / "s")  # LMDB opens a store once in a process.

    def second(done, total):
        with pytest.raises(ExportUnusable, match="another export is being written") as caught:
            export_store(tmp_path / "s", tmp_path / "x")
        told.append(caught.value)

    # What a kill left, longer than the export.
    with (tmp_path / "x.partial").open("wb") as left:
        left.truncate(2**25)
    export_store(filled, tmp_path / "x", progress=second)
    assert told
    assert import_store(tmp_path / "x", tmp_path / "again").written == 296
    assert not list(tmp_path.glob("*.partial"))


def test_other_files_are_refused(exported, filled, tmp_path):
    table = pq.read_table(exported)
    for name, other, why in (
        ("columns", table.drop_columns(["clusters"]), r"missing or of another type: \['clusters'\]"),
        ("rows", table.slice(0, 10), "has 10 rows, and says that it was written with 296"),
        ("metadata", table.replace_schema_metadata(), "was not written by `landseer export-store`"),
    ):
        pq.write_table(other, tmp_path / f"{name}.parquet")
        with pytest.raises(ExportUnusable, match=why):
            import_store(tmp_path / f"{name}.parquet", tmp_path / "s")
    with pytest.raises(ExportUnusable, match=r"there is no file .*none\.parquet; give the file that"):
        import_store(tmp_path / "none.parquet", tmp_path / "s")
    assert not (tmp_path / "s").exists()
    with pytest.raises(ExportUnusable, match="is there already"):
        export_store(filled, exported)
    open_store(tmp_path / "empty").close()
    with pytest.raises(StoreUnusable, match="has no pictures"):
        export_store(tmp_path / "empty", tmp_path / "empty.parquet")
    assert not list(tmp_path.glob("empty.parquet*"))
