import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import lmdb
import numpy as np
import pytest

from landseer.client.cli import main
from landseer.ensemble.errors import StoreFull, StoreUnusable
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.store import compaction, mounts
from landseer.ensemble.store.check import faults
from landseer.ensemble.store.compaction import compact
from landseer.ensemble.store.mounts import file_system, require_local
from landseer.ensemble.store.record import Record
from landseer.ensemble.store.store import Store

PROFILE = Profile(backbone="lite0", weights_sha256="ab" * 32, sizes=Sizes(channels=64))


def record(id, thumbnail=b"small"):
    draws = np.random.default_rng([*id.encode()])
    return Record(
        id=id,
        metadata={"path": f"photos/{id}"},
        width=400,
        height=300,
        descriptor=draws.standard_normal(64).astype(np.float16),
        query_vector=draws.standard_normal(16).astype(np.float16),
        clusters=draws.standard_normal((3, 16)).astype(np.float16),
        boxes=np.zeros((0, 5), np.float32),
        feature_map=np.zeros((0, 4), np.uint8),
        model_version="1",
        indexed_at=1e9,
        thumbnail=thumbnail,
    )


def open_store(path, **options):
    return Store.open(path, fingerprint=PROFILE.fingerprint, clusters_shape=(10, 16), **options)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A store of 10 pictures, with the room that others left."""
    folder = tmp_path_factory.mktemp("compaction") / "store"
    store = open_store(folder)
    store.put_many([record(f"p{number:03}") for number in range(10)])
    store.put_many([record(f"q{number:03}", thumbnail=bytes(500_000)) for number in range(4)])
    for number in range(4):
        store.delete(f"q{number:03}")
    store.close()
    return folder


@pytest.fixture
def folder(filled, tmp_path):
    return shutil.copytree(filled, tmp_path / "store")


def test_the_file_shrinks_and_nothing_else_changes(folder, capsys):
    (folder / "data.mdb").chmod(0o640)
    store = open_store(folder)
    before = [store.get(f"p{number:03}") for number in range(10)]
    sequence = store.stats().sequence
    store.close()
    size = (folder / "data.mdb").stat().st_size
    assert main(["compact", str(folder)]) == 0
    after = (folder / "data.mdb").stat().st_size
    assert after < size / 5
    assert capsys.readouterr().out == f"{folder}: {size:,} bytes before, {after:,} after\n"
    assert not list(faults(folder))
    store = open_store(folder)
    for one in before:
        again = store.get(one.record.id)
        assert (again.key, again.record.metadata) == (one.key, one.record.metadata)
        np.testing.assert_array_equal(again.record.descriptor, one.record.descriptor)
    assert (store.stats().pictures, store.stats().sequence) == (10, sequence)
    assert [change.key for change in store.put_many([record("new")])] == [sequence + 1]
    store.close()
    assert (folder / "data.mdb").stat().st_mode & 0o777 == 0o640
    assert {path.name for path in folder.iterdir()} == {"data.mdb", "lock.mdb", "landseer.lock"}


def test_a_store_in_use_and_a_folder_without_one_are_refused(folder, tmp_path, capsys):
    store = open_store(folder)
    assert main(["compact", str(folder)]) == 1
    assert f"is in use by process {os.getpid()}" in capsys.readouterr().err
    store.close()
    assert main(["compact", str(tmp_path / "none")]) == 1
    assert "there is no store in" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_the_file_may_be_a_link_to_another_disk(folder, tmp_path):
    (tmp_path / "disk").mkdir()
    (folder / "data.mdb").rename(tmp_path / "disk" / "data.mdb")
    (folder / "data.mdb").symlink_to(tmp_path / "disk" / "data.mdb")
    done = compact(folder)
    assert done.after < done.before == (tmp_path / "disk" / "data.mdb").stat().st_size + done.before - done.after
    assert (folder / "data.mdb").is_symlink()
    assert not list(faults(folder))


@pytest.mark.parametrize("harm", ["no room", "damage", "incomplete"])
def test_what_goes_wrong_leaves_the_store_as_it_was(folder, monkeypatch, harm):
    before = (folder / "data.mdb").read_bytes()
    if harm == "incomplete":
        counts = iter([{b"records": 10}, {b"records": 9}])
        monkeypatch.setattr(compaction, "_entries", lambda environment: next(counts))
    else:
        error = OSError(28, "No space left on device") if harm == "no room" else lmdb.Error("Input/output error")

        def fail(file):
            raise error

        monkeypatch.setattr(compaction.os, "fsync", fail)
    with pytest.raises(StoreFull if harm == "no room" else StoreUnusable, match="the store is unchanged"):
        compact(folder)
    assert (folder / "data.mdb").read_bytes() == before
    assert not list(folder.glob("*.compacted"))


@pytest.mark.parametrize("step", ["copyfd", "fsync", "replace", "sync_names"])
def test_a_kill_leaves_the_old_file_or_the_new_one(folder, step):
    """The process dies before a step, and what was half done is no hindrance."""
    code = """
        import os, signal, sys
        from pathlib import Path
        from landseer.ensemble.store import compaction
        def die(*args, **options):
            os.kill(os.getpid(), signal.SIGKILL)
        step, folder = sys.argv[1:]
        if step == "copyfd":
            compaction._give_to_owner = die
        elif step == "fsync":
            os.fsync = die
        elif step == "replace":
            Path.replace = die
        else:
            compaction.sync_names = die
        compaction.compact(Path(folder))
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code), step, str(folder)], timeout=60, check=False)
    assert ran.returncode == -9
    assert not list(faults(folder))
    store = open_store(folder)
    assert store.stats().pictures == 10
    store.close()
    done = compact(folder)
    assert done.after <= done.before
    assert not list(folder.glob("*.compacted"))


# File systems.

LISTED = """\
21 1 259:2 / / rw,relatime shared:1 - ext4 /dev/root rw
30 21 0:40 / /srv/photo\\040store rw - nfs4 nas:/volume rw
31 21 0:41 / /home/me/cloud rw - fuse.rclone remote: rw
32 21 0:42 / /data rw - autofs systemd-1 rw
33 21 0:43 / /data rw - cifs //nas/data rw
34 33 259:3 / /data/local rw - xfs /dev/sdb rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "refused"),
    [
        ("/srv/photo store/a/b", "nfs4", True),
        ("/srv/photo", "ext4", False),
        ("/home/me/cloud", "fuse.rclone", True),
        ("/data/store", "cifs", True),
        ("/data/local/store", "xfs", False),
        ("/new", "ext4", False),
    ],
)
def test_file_systems_of_other_machines_are_known(tmp_path, path, kind, refused):
    (tmp_path / "mountinfo").write_text(LISTED)
    assert file_system(Path(path), tmp_path / "mountinfo") == kind
    if refused:
        with pytest.raises(StoreUnusable, match="add --allow-network-store"):
            require_local(Path(path), tmp_path / "mountinfo")
    else:
        require_local(Path(path), tmp_path / "mountinfo")


def test_a_store_on_a_network_is_refused_unless_it_is_asked_for(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "mountinfo").write_text(f"21 1 259:2 / {tmp_path} rw - nfs4 nas:/volume rw\n")
    monkeypatch.setattr(mounts.require_local, "__defaults__", (tmp_path / "mountinfo",))
    with pytest.raises(StoreUnusable, match="is on nfs4"):
        open_store(folder)
    open_store(folder, network=True).close()
    assert main(["compact", str(folder)]) == 1
    assert "is on nfs4" in capsys.readouterr().err
    assert main(["compact", str(folder), "--allow-network-store"]) == 0


def test_where_mounts_are_not_listed_nothing_is_refused(tmp_path):
    assert file_system(tmp_path, tmp_path / "none") == ""
    require_local(tmp_path, tmp_path / "none")
    assert file_system(tmp_path)
