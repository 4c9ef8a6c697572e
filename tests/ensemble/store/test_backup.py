import fcntl
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from store_records import open_store, record

from landseer.client.cli import main
from landseer.ensemble.errors import NotFound, StoreFull, StoreUnusable
from landseer.ensemble.store.backup import back_up
from landseer.ensemble.store.check import faults
from landseer.ensemble.store.compaction import compact
from landseer.ensemble.store.manifest import BackupUnusable, read_manifest, verify
from landseer.ensemble.store.reading import reading
from landseer.ensemble.store.record import encode
from landseer.ensemble.store.restoring import restore

KILLS = int(os.environ.get("LANDSEER_KILLS", "10"))
LARGE = 6000
"""Seeds from here on give pictures with thumbnails of 1.2 MB."""

WORKER = """
import json, os, signal, sys, threading
from pathlib import Path
from landseer.ensemble.store import backup, manifest, packing, restoring


def die(*args, **options):
    os.kill(os.getpid(), signal.SIGKILL)


def die_later(count, call):
    def wrapped(*args, **options):
        nonlocal count
        count -= 1
        return call(*args, **options) if count >= 0 else die()
    return wrapped


def before(step):
    if step == "the copy":
        backup._chunks = die
    elif step == "a block":
        packing.Block = die_later(100, packing.Block)
        manifest.Backup.read = die_later(100, manifest.Backup.read)
    elif step == "the manifest":
        manifest.Manifest.to_text = die
        restoring._require_counts = die
    elif step == "the name":
        Path.replace = die
    elif step == "its fsync":
        backup.sync_names = restoring.sync_names = die
    elif step:
        threading.Timer(float(step), die).start()


for line in sys.stdin:
    step, what, *paths = json.loads(line)
    child = os.fork()
    if child == 0:
        before(step)
        {"backup": backup.back_up, "restore": restoring.restore}[what](*map(Path, paths))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def other():
    """Give a function that backs up or restores in another process, which may die before a step; returns its status."""
    command = [sys.executable, "-c", WORKER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:

        def call(what, *paths, die=""):
            worker.stdin.write(json.dumps([die, what, *map(str, paths)]) + "\n")
            worker.stdin.flush()
            return int(worker.stdout.readline())

        yield call
        worker.stdin.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A store of ten pictures, 12 MB."""
    folder = tmp_path_factory.mktemp("backup") / "store"
    store = open_store(folder)
    for number in range(10):
        store.put_many([record(f"a{number}", LARGE + number)])
    store.close()
    return folder


@pytest.fixture
def folder(filled, tmp_path):
    return shutil.copytree(filled, tmp_path / "store")


@contextmanager
def writing(store, seed=0):
    """Change a store in a thread while the block runs, and give what it has done: [(sequence, id, seed or None)]."""
    done = [(number + 1, f"a{number}", LARGE + number) for number in range(10)]
    draws, over = random.Random(seed), threading.Event()

    def write():
        step = 0
        while not over.is_set():
            step += 1
            if step % 4 == 0:
                _, id, _ = draws.choice([one for one in done if one[1] > "b"])
                with suppress(NotFound):
                    done.append((store.delete(id).key, id, None))
            else:
                batch = {f"{draws.choice('bc')}{draws.randrange(30)}": draws.randrange(40) for _ in range(3)}
                changes = store.put_many([record(id, seed) for id, seed in batch.items()])
                done.extend((change.key, *one) for change, one in zip(changes, batch.items(), strict=True))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()


def check_every_record(folder, sequence, done):
    """Compare a store with what it must hold after a change."""
    expected = {}
    for key, id, seed in done:
        if key <= sequence:
            expected[id] = (key, seed)
    expected = {id: one for id, one in expected.items() if one[1] is not None}
    assert not list(faults(folder))
    store = open_store(folder)
    assert (store.stats().sequence, store.count()) == (sequence, len(expected))
    for id, (key, seed) in expected.items():
        same(store.get(id), key, record(id, seed))
    store.close()


def same(stored, key, record):
    assert stored.key == key
    assert encode(stored.record) == encode(record)
    for name in ("descriptor", "clusters"):
        assert getattr(stored.record, name).tobytes() == getattr(record, name).tobytes()
    assert stored.record.thumbnail == record.thumbnail


def test_a_store_is_backed_up_and_restored_while_it_is_written_and_every_record_is_right(folder, tmp_path, other):
    store = open_store(folder)
    with writing(store) as done:
        for number in range(3):
            assert other("backup", folder, tmp_path / f"b{number}") == 0
            assert other("restore", tmp_path / f"b{number}", tmp_path / f"r{number}") == 0
    store.close()
    made = [verify(tmp_path / f"b{number}") for number in range(3)]
    assert sorted({one.sequence for one in made}) == [one.sequence for one in made]
    for number, one in enumerate(made):
        check_every_record(tmp_path / f"r{number}", one.sequence, done)
        assert one.pictures == one.entries["ids"] > 10
    # What did not change is there once, and stays when the first backup goes.
    first, last = ((tmp_path / name / "packs").iterdir() for name in ("b0", "b2"))
    assert {path.stat().st_ino for path in first} < {path.stat().st_ino for path in last}
    new = sum(path.stat().st_size for path in (tmp_path / "b2" / "packs").iterdir()) - made[0].bytes
    assert 0 < new < made[0].bytes
    shutil.rmtree(tmp_path / "b0")
    verify(tmp_path / "b2")


@pytest.mark.parametrize("step", ["the copy", "a block", "the manifest", "the name", "its fsync"])
def test_a_kill_leaves_a_complete_backup_or_none_and_the_store_in_use_goes_on(folder, tmp_path, other, step):
    store, target = open_store(folder), tmp_path / "made" / "b"
    assert other("backup", folder, target, die=step) == -9
    assert target.exists() == (step == "its fsync")
    if target.exists():
        verify(target)
        target = tmp_path / "made" / "again"
    # Nobody reads the snapshot any more, so its pages are used again.
    before = store.stats().file_bytes
    for _ in range(12):
        store.put_many([record("a0", LARGE)])
    assert store.stats().file_bytes < before + 4 * 2**20
    assert other("backup", folder, target) == 0
    assert not list(target.parent.glob("*.partial"))
    assert other("restore", target, tmp_path / "r", die="0.001") in (0, -9)
    shutil.rmtree(tmp_path / "r", ignore_errors=True)
    status = other("restore", target, tmp_path / "r", die=step)
    assert status == (0 if step == "the copy" else -9)
    if not (tmp_path / "r" / "data.mdb").exists():
        with pytest.raises(StoreUnusable, match="is not a Landseer store"):
            open_store(tmp_path / "r")
        assert other("restore", target, tmp_path / "r") == 0
    done = [(number + 1, f"a{number}", LARGE + number) for number in range(10)]
    check_every_record(tmp_path / "r", 22, [*done, *((number, "a0", LARGE) for number in range(11, 23))])
    store.close()


def test_kills_at_random_instants_lose_nothing(folder, tmp_path, other):
    store, draws, restored = open_store(folder), random.Random(3), []
    with writing(store) as done:
        for number in range(KILLS):
            target, into = tmp_path / f"b{number}", tmp_path / f"r{number}"
            other("backup", folder, target, die=str(draws.uniform(0, 0.1)))
            if target.exists():
                made = verify(target)
                other("restore", target, into, die=str(draws.uniform(0, 0.1)))
                if (into / "data.mdb").exists():
                    restored.append((into, made.sequence))
    restored.append((folder, store.stats().sequence))
    store.close()
    for into, sequence in restored:
        check_every_record(into, sequence, done)


def test_a_store_that_is_not_in_use_can_be_backed_up_too(folder, tmp_path, capsys):
    (folder / "lock.mdb").unlink()
    (folder / "data.mdb").chmod(0o640)
    assert main(["backup", str(folder), str(tmp_path / "b")]) == 0
    made = read_manifest(tmp_path / "b")
    assert (made.fingerprint, made.sequence, made.pictures) == ("f", 10, 10)
    size = (folder / "data.mdb").stat().st_size
    assert made.bytes == size
    assert f"{tmp_path / 'b'}: 10 pictures after change 10; {size:,} bytes, of which {size:,} are new" in (
        capsys.readouterr().out
    )
    # A server with other rights than those of this command can use the store afterwards.
    assert (folder / "lock.mdb").stat().st_mode & 0o777 == 0o640
    assert main(["backup", "--verify", str(tmp_path / "b")]) == 0
    assert f"{tmp_path / 'b'} is sound: 10 pictures after change 10" in capsys.readouterr().out
    assert main(["restore", str(tmp_path / "b"), str(tmp_path / "r")]) == 0
    assert (tmp_path / "r" / "data.mdb").read_bytes() == (folder / "data.mdb").read_bytes()
    # Without Landseer, too.
    [pack] = (tmp_path / "b" / "packs").iterdir()
    assert pack.read_bytes() == (folder / "data.mdb").read_bytes()


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def pack(backup):
    return next((backup / "packs").iterdir())


DAMAGES = {
    "a flipped bit": lambda backup: flip(pack(backup)),
    "a truncated pack": lambda backup: os.truncate(pack(backup), 100_000),
    "a missing pack": lambda backup: pack(backup).unlink(),
    "a flipped bit in the list": lambda backup: flip(backup / "blocks"),
    "a truncated list": lambda backup: os.truncate(backup / "blocks", 440),
    "a flipped bit in the manifest": lambda backup: flip(backup / "manifest.json"),
    "a truncated manifest": lambda backup: os.truncate(backup / "manifest.json", 300),
    "no manifest": lambda backup: (backup / "manifest.json").unlink(),
    "another format": lambda backup: (backup / "manifest.json").write_text(
        (backup / "manifest.json").read_text().replace("landseer-backup-1", "landseer-backup-9")
    ),
}


@pytest.fixture(scope="module")
def sound(filled, tmp_path_factory):
    backup = tmp_path_factory.mktemp("sound") / "b"
    back_up(filled, backup)
    return backup


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_backup_is_noticed_and_restores_nothing(sound, folder, tmp_path, damage, capsys):
    backup = shutil.copytree(sound, tmp_path / "b")
    DAMAGES[damage](backup)
    with pytest.raises(BackupUnusable, match=r"use another|name a folder"):
        verify(backup)
    assert main(["restore", str(backup), str(tmp_path / "r")]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert not list(tmp_path.glob("r/data*"))
    # Nor does the next one share what is damaged.
    made = back_up(folder, tmp_path / "next")
    verify(tmp_path / "next")
    assert made.new_bytes == (2**16 if damage == "a flipped bit" else made.new_bytes) > 0


def test_a_folder_beside_it_that_may_not_be_entered_is_no_obstacle(sound, folder, tmp_path, monkeypatch):
    """As lost+found of a disk."""

    def refusing(call):
        def wrapped(path, *args, **options):
            if path.parent.name == "lost+found":
                raise PermissionError(13, "Permission denied")
            return call(path, *args, **options)

        return wrapped

    (tmp_path / "lost+found").mkdir()
    shutil.copytree(sound, tmp_path / "b")
    for name in ("stat", "open"):
        monkeypatch.setattr(Path, name, refusing(getattr(Path, name)))
    assert back_up(folder, tmp_path / "next").new_bytes == 0
    verify(tmp_path / "next")


def test_nothing_is_overwritten(sound, folder, tmp_path):
    for target in (sound, folder / "backup", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(BackupUnusable, match=r"is there already|is inside the store"):
            back_up(folder, target)
    (tmp_path / "x.partial" / "mine").mkdir(parents=True)
    with pytest.raises(BackupUnusable, match="it holds mine; remove it, or name another"):
        back_up(folder, tmp_path / "x")
    assert (tmp_path / "x.partial" / "mine").exists()
    with pytest.raises(StoreUnusable, match=r"is not empty: it holds data\.mdb"):
        restore(sound, folder)
    store = open_store(folder)
    with pytest.raises(StoreUnusable, match=f"is in use by process {os.getpid()}"):
        restore(sound, folder)
    store.close()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(StoreUnusable, match=r"is not empty: it holds cat\.jpg"):
        restore(sound, tmp_path / "photos")
    with pytest.raises(StoreUnusable, match="there is no store in"):
        back_up(tmp_path / "none", tmp_path / "y")
    assert not list(tmp_path.glob("y*"))


def test_a_server_of_the_same_process_id_in_another_container_is_said(folder, tmp_path):
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        # As LMDB does there.
        notes = os.open(folder / "lock.mdb", os.O_RDWR)
        fcntl.lockf(notes, fcntl.LOCK_EX, 1, os.getppid())
        os.write(told, b"!")
        signal.pause()
    try:
        os.read(ready, 1)
        with pytest.raises(StoreUnusable, match=f"a process with the same id, {os.getpid()}, has it open"):
            back_up(folder, tmp_path / "b")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    back_up(folder, tmp_path / "b")


def test_a_store_that_is_read_is_not_compacted(folder):
    with reading(folder), pytest.raises(StoreUnusable, match="is being read, as for a backup"):
        compact(folder)
    compact(folder)


def test_a_store_that_lost_its_end_is_not_backed_up(folder, tmp_path):
    os.truncate(folder / "data.mdb", (folder / "data.mdb").stat().st_size // 2 // 4096 * 4096)
    with pytest.raises(StoreUnusable, match="is damaged"):
        back_up(folder, tmp_path / "b")
    assert not list(tmp_path.glob("b*"))


@pytest.mark.parametrize("what", ["backup", "restore"])
def test_a_full_disk_leaves_nothing_behind(sound, folder, tmp_path, what):
    before = (folder / "data.mdb").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(StoreFull, match="there is no room for the"):
            back_up(folder, tmp_path / "b") if what == "backup" else restore(sound, tmp_path / "r")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (folder / "data.mdb").read_bytes() == before
    assert not [path for path in tmp_path.glob("[br]/*") if path.name != "landseer.lock"]
    assert not list(tmp_path.glob("*.partial"))


def test_a_disk_that_has_not_the_room_is_refused_before_anything_is_written(sound, tmp_path, monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: os.terminal_size((0, 0)) and shutil._ntuple_diskusage(9, 8, 1)
    )
    with pytest.raises(StoreFull, match="bytes, and 1 are free"):
        restore(sound, tmp_path / "r")
