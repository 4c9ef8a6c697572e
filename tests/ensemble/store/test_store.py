import fcntl
import os
import random
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace

import lmdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import names_of, writers

from landseer.ensemble.errors import InvalidInput, NotFound, ProfileMismatch, StoreFull, StoreUnusable
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.store.check import faults
from landseer.ensemble.store.listing import PageQuery
from landseer.ensemble.store.record import Record, StoreChange, check_id, check_metadata, decode, encode
from landseer.ensemble.store.store import Store

KILLS = int(os.environ.get("LANDSEER_KILLS", "20"))
PROFILE = Profile(backbone="lite0", weights_sha256="ab" * 32, sizes=Sizes(channels=64))
SHAPE = (10, 16)


def record(id="a", seed=0, **changes):
    draws = np.random.default_rng([seed, *id.encode()])
    count = int(draws.integers(0, SHAPE[0] + 1))
    vector = draws.standard_normal(64)
    fields = {
        "id": id,
        "metadata": {"path": f"photos/{id}", "größe": "5"},
        "width": 400,
        "height": 300,
        "descriptor": (vector / np.linalg.norm(vector)).astype(np.float16),
        "query_vector": draws.standard_normal(SHAPE[1]).astype(np.float16),
        "clusters": draws.standard_normal((count, SHAPE[1])).astype(np.float16),
        "boxes": draws.standard_normal((count % 4, 5)).astype(np.float32),
        "feature_map": draws.integers(0, 256, (3 * count, 4), dtype=np.uint8),
        "model_version": "1",
        "indexed_at": 1e9 + seed + 0.123456,
        "thumbnail": draws.bytes(100),
    }
    return Record(**(fields | changes))


def same(one, other, *, but=()):
    for name in set(Record.__dataclass_fields__) - set(but):
        left, right = getattr(one, name), getattr(other, name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype and left.shape == right.shape, name
            np.testing.assert_array_equal(left, right, name)
        else:
            assert left == right, name


def open_store(path, **options):
    return Store.open(path, **{"fingerprint": PROFILE.fingerprint, "clusters_shape": SHAPE} | options)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(folder):
    opened = open_store(folder)
    yield opened
    opened.close()


def run(code, *arguments, before=()):
    """Run Python in another process; the code has what this module defines for stores."""
    setup = names_of(__file__)
    command = [*before, sys.executable, "-c", setup + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


# Writing and reading.


def test_records_are_read_back(store):
    records = [record("a"), record("bücher/ä.jpg"), record("c" * 500, thumbnail=b"")]
    assert store.put_many(records) == [StoreChange(key=key, replaced_key=None) for key in (1, 2, 3)]
    for key, each in enumerate(records, 1):
        found = store.get(each.id)
        assert found.key == key
        same(found.record, each)


def test_a_record_of_the_same_id_is_replaced(store):
    store.put_many([record("a"), record("b")])
    assert store.put_many([record("a", seed=1)]) == [StoreChange(key=3, replaced_key=1)]
    same(store.get("a").record, record("a", seed=1))
    assert store.by_keys([1]) == [None]
    assert store.stats().pictures == 2 and store.stats().sequence == 3


def test_the_same_id_twice_in_one_call(store):
    changes = store.put_many([record("a"), record("b"), record("a", seed=2)])
    assert changes[2] == StoreChange(key=3, replaced_key=1)
    same(store.get("a").record, record("a", seed=2))
    assert [keys.tolist() for keys, _ in store.vectors.scan()] == [[2, 3]]


def test_delete(store):
    store.put_many([record("a"), record("b")])
    assert store.delete("a") == StoreChange(key=3, replaced_key=1)
    with pytest.raises(NotFound, match="'a'"):
        store.get("a")
    with pytest.raises(NotFound, match="'a'"):
        store.delete("a")
    assert store.stats().pictures == 1 and store.stats().sequence == 3
    # A key is never used again.
    assert store.put_many([record("a")])[0].key == 4


def test_by_keys(store):
    store.put_many([record("a"), record("b"), record("c")])
    found = store.by_keys([3, 99, 1, 3])
    assert [stored and stored.record.id for stored in found] == ["c", None, "a", "c"]
    same(found[2].record, record("a"), but=["thumbnail"])
    assert found[2].record.thumbnail == b""
    same(store.by_keys([1], thumbnails=True)[0].record, record("a"))
    bare = store.by_keys([2], vectors=False)[0].record
    same(bare, record("b"), but=["thumbnail", "descriptor", "clusters"])
    assert len(bare.descriptor) == 0 and bare.clusters.shape == (0, SHAPE[1])


def test_the_keys_of_all_pictures_are_listed_in_order(store):
    changes = store.put_many([record(name, seed) for seed, name in enumerate("dbac")])
    [again] = store.put_many([record("b", 9)])
    store.delete("a")
    left = [changes[0].key, changes[3].key, again.key]
    assert store.vectors.keys(upto=again.key).tolist() == left == sorted(left)
    assert store.vectors.keys(upto=again.key - 1).tolist() == left[:2]
    assert store.vectors.keys(upto=0).tolist() == []


def test_gathers_keep_the_order_asked_for(store):
    records = [record(name) for name in "abcdef"]
    store.put_many(records)
    keys = [5, 1, 77, 3]
    vectors, counts = store.vectors.clusters(keys)
    assert vectors.shape == (4, *SHAPE) and vectors.dtype == np.float16 and counts.dtype == np.int32
    descriptors = store.vectors.descriptors(keys)
    assert descriptors.shape == (4, 64) and descriptors.dtype == np.float32
    for row, key in enumerate(keys):
        if key == 77:
            assert counts[row] == 0 and not vectors[row].any() and not descriptors[row].any()
            continue
        expected = records[key - 1]
        assert counts[row] == len(expected.clusters)
        np.testing.assert_array_equal(vectors[row, : counts[row]], expected.clusters)
        assert not vectors[row, counts[row] :].any()
        np.testing.assert_array_equal(descriptors[row], expected.descriptor.astype(np.float32))


def test_pages_end_early_where_metadata_are_large(store):
    large = {"note": "x" * 60_000}
    store.put_many([record(f"p{number:02}", metadata=large) for number in range(20)])
    page = store.page(PageQuery(prefix="p", metadata=True))
    assert (len(page.pictures), page.next, page.pictures[0].metadata) == (18, "p17", large)
    rest = store.page(PageQuery(prefix="p", after=page.next, metadata=True))
    assert ([one.id for one in rest.pictures], rest.next) == (["p18", "p19"], "")


def test_an_empty_store(store):
    assert store.page(PageQuery()).pictures == ()
    assert list(store.vectors.scan()) == []
    vectors, counts = store.vectors.clusters([])
    assert vectors.shape == (0, *SHAPE) and counts.shape == (0,)
    assert len(store.vectors.descriptors([])) == 0
    stats = store.stats()
    assert (stats.pictures, stats.sequence, stats.last_change) == (0, 0, None)
    assert store.put_many([]) == []


@pytest.mark.parametrize("batch", [1, 3, 4, 100])
def test_scan_yields_all_in_key_order(store, batch):
    store.put_many([record(str(i)) for i in range(10)])
    store.delete("4")
    store.put_many([record("0", seed=1)])
    batches = list(store.vectors.scan(batch=batch))
    assert all(keys.dtype == np.int64 and rows.dtype == np.float16 and len(keys) <= batch for keys, rows in batches)
    keys, rows = (np.concatenate(part) for part in zip(*batches, strict=True))
    assert keys.tolist() == [2, 3, 4, 6, 7, 8, 9, 10, 12]
    np.testing.assert_array_equal(rows[-1], record("0", seed=1).descriptor)
    np.testing.assert_array_equal(rows.astype(np.float32), store.vectors.descriptors(keys))


def test_stats(store):
    before = time.time()
    store.put_many([record(str(i)) for i in range(50)])
    stats = store.stats()
    assert before <= stats.last_change <= time.time()
    assert 50 * 600 < stats.used_bytes <= stats.file_bytes < stats.limit_bytes == 16 * 2**30
    for i in range(50):
        store.delete(str(i))
    assert store.stats().used_bytes < stats.used_bytes / 2


def test_records_survive_reopening(folder, store):
    store.put_many([record("a"), record("b")])
    store.delete("b")
    store.close()
    again = open_store(folder, limit_bytes=2**30)
    same(again.get("a").record, record("a"))
    assert again.stats().limit_bytes == 2**30
    assert again.put_many([record("c")])[0].key == 4
    again.close()


def test_many_threads_read_while_one_writes(store):
    store.put_many([record(str(i)) for i in range(20)])
    failures, stop = [], threading.Event()

    def read():
        draws = random.Random(threading.get_ident())
        while not stop.is_set():
            id = str(draws.randrange(20))
            try:
                found = store.get(id)
                same(found.record, record(id, seed=int(found.record.indexed_at - 1e9)))
                store.vectors.clusters(range(1, 100))
            except Exception as error:
                failures.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(6)]
    for reader in readers:
        reader.start()
    for seed in range(1, 30):
        store.put_many([record(str(i), seed=seed) for i in range(0, 20, 3)])
    stop.set()
    for reader in readers:
        reader.join()
    assert not failures


# What cannot be kept.


@pytest.mark.parametrize("id", ["", "x" * 501, "ä" * 251, "a\nb", "a\0", "\x7f", "a\x85", "\ud800"])
def test_ids_that_cannot_be_kept(store, id):
    attempts = (
        check_id,
        store.get,
        store.delete,
        lambda id: store.put_many([record("a"), replace(record("a"), id=id)]),
    )
    for attempt in attempts:
        with pytest.raises(InvalidInput) as caught:
            attempt(id)
        assert caught.value.field == "id"
    assert store.stats().pictures == 0


@pytest.mark.parametrize("id", ["a", "x" * 500, "ä" * 250, "photos/2024/été 😀.jpg", " "])
def test_ids_that_can_be_kept(store, id):
    store.put_many([record(id)])
    assert store.get(id).record.id == id


def test_metadata_has_a_limit(store):
    check_metadata({"k": "v" * (2**16 - 1)})
    for metadata in ({"k": "v" * 2**16}, {str(i): "ä" * 40 for i in range(1000)}, {"k": "\ud800"}):
        with pytest.raises(InvalidInput) as caught:
            store.put_many([record("fine"), record("a", metadata=metadata)])
        assert caught.value.field == "metadata"
    assert store.stats().pictures == 0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("descriptor", np.zeros(64, np.float32), r"descriptor is float32 \[64\]; expected float16"),
        ("descriptor", np.full(64, np.nan, np.float16), "not finite"),
        ("clusters", np.zeros((2, 5), np.float16), r"expected float16 \[any, 16\]"),
        ("clusters", np.zeros((11, 16), np.float16), "at most 10"),
        ("boxes", np.zeros((2, 4), np.float32), "boxes"),
        ("feature_map", np.zeros((2, 4), np.int64), "feature_map"),
    ],
)
def test_arrays_of_another_form_are_refused(store, field, value, message):
    with pytest.raises(ValueError, match=message):
        store.put_many([record("a", **{field: value})])


def test_descriptors_of_another_size_are_refused(store):
    store.put_many([record("a")])
    with pytest.raises(ProfileMismatch, match=r"32 values.* have 64"):
        store.put_many([record("b"), record("c", descriptor=np.ones(32, np.float16))])
    assert store.stats().pictures == 1


@settings(max_examples=100, deadline=None)
@given(
    metadata=st.dictionaries(st.text(max_size=20), st.text(max_size=50), max_size=5),
    features=st.integers(0, 500),
    boxes=st.integers(0, 8),
    at=st.floats(0, 1e10),
)
def test_encoding_loses_nothing(metadata, features, boxes, at):
    draws = np.random.default_rng(features)
    arrays = {
        "query_vector": draws.standard_normal(SHAPE[1]).astype(np.float16),
        "boxes": draws.standard_normal((boxes, 5)).astype(np.float32),
        "feature_map": draws.integers(0, 256, (features, 4), dtype=np.uint8),
    }
    try:
        check_metadata(metadata)
    except InvalidInput:
        return
    one = record("a", metadata=metadata, indexed_at=at, **arrays)
    same(decode(encode(one), descriptor=one.descriptor, clusters=one.clusters, thumbnail=one.thumbnail), one)


@given(data=st.binary(max_size=200))
def test_decoding_other_bytes_is_a_value_error(data):
    one = record("a")
    for bytes in (data, encode(one)[: len(data)], encode(one) + b"x"):
        with pytest.raises(ValueError, match="not a record"):
            decode(bytes, descriptor=one.descriptor, clusters=one.clusters, thumbnail=b"")


# Limits.


def fill(store, prefix="p"):
    """Put pictures ten at a time until the store is full; return how many were accepted."""
    count = 0
    while True:
        batch = [record(f"{prefix}{count + i}", thumbnail=bytes(5000)) for i in range(10)]
        try:
            store.put_many(batch)
        except StoreFull as error:
            assert "nothing was written" in str(error)
            return count
        count += 10


def test_a_full_store_keeps_its_content_and_can_be_emptied(folder):
    store = open_store(folder, limit_bytes=2**21)
    count = fill(store)
    assert count >= 50
    stats = store.stats()
    assert stats.pictures == stats.sequence == count
    assert stats.file_bytes <= 2**21
    same(store.get("p3").record, record("p3", thumbnail=bytes(5000)))
    for i in range(count):
        store.delete(f"p{i}")
    assert fill(store, "q") >= count * 0.9
    store.close()
    assert list(faults(folder)) == []
    larger = open_store(folder, limit_bytes=2**22)
    assert fill(larger, "r") >= 50
    larger.close()


def test_a_store_above_a_lowered_limit_still_reads_and_deletes(folder):
    store = open_store(folder, limit_bytes=2**22)
    count = fill(store)
    store.close()
    small = open_store(folder, limit_bytes=2**20)
    with pytest.raises(StoreFull):
        small.put_many([record("new")])
    assert small.get("p0").key == 1
    for i in range(count):
        small.delete(f"p{i}")
    small.put_many([record("new")])
    small.close()


def test_a_limit_that_no_store_fits_in(folder):
    with pytest.raises(ValueError, match="at least 1048576"):
        open_store(folder, limit_bytes=1000)


FILL = """
    folder = Path(sys.argv[1])
    {limit}
    store = open_store(folder)
    count = fill(store)
    assert store.stats().pictures == count >= 50, count
    same(store.get("p7").record, record("p7", thumbnail=bytes(5000)))
    for i in range(0, count, 2):
        store.delete(f"p{{i}}")
    store.put_many([record("after")])
    store.close()
    print(list(faults(folder)))
"""


def test_a_full_disk(tmp_path):
    if (
        not shutil.which("unshare")
        or subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("needs unshare -rm, to mount a small disk")
    mount = f"subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=3m', 'none', {str(tmp_path)!r}], check=True)"
    done = run(FILL.format(limit=mount), tmp_path / "store", before=["unshare", "-rm"])
    assert done.stdout.strip() == "[]", done.stderr


def test_a_file_size_limit_is_a_full_disk(folder):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2**21, 2**21))"
    done = run(FILL.format(limit=limit), folder)
    assert done.stdout.strip() == "[]", done.stderr


# Folders that are not, or not quite, stores.


def test_made_for_other_models(folder, store):
    store.close()
    other = replace(PROFILE, backbone="resnet50", long_side=1024, sizes=Sizes(channels=2048))
    with pytest.raises(ProfileMismatch) as caught:
        open_store(folder, fingerprint=other.fingerprint)
    message = str(caught.value)
    assert "backbone 'lite0' in the store, 'resnet50' served" in message
    assert "long side 640 in the store, 1024 served" in message
    assert "size of descriptors 64 in the store, 2048 served" in message
    assert "weights" not in message and "index the pictures again" in message
    with pytest.raises(ProfileMismatch, match="'anything' served"):
        open_store(folder, fingerprint="anything")
    open_store(folder).close()


def test_one_process_at_a_time(folder, store):
    with pytest.raises(StoreUnusable, match=f"in use by process {os.getpid()}"):
        open_store(folder)
    done = run(
        """
        try:
            open_store(Path(sys.argv[1]))
        except StoreUnusable as error:
            print(error)
        """,
        folder,
    )
    assert f"in use by process {os.getpid()}" in done.stdout, done.stderr
    store.close()
    open_store(folder).close()


def test_the_lock_is_not_inherited(folder, store):
    # A child that outlives the server must not keep the store from the next one.
    child = subprocess.Popen(["sleep", "30"])
    try:
        store.close()
        open_store(folder).close()
    finally:
        child.kill()
        child.wait()


def test_folders_that_are_something_else(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"x")
    with pytest.raises(StoreUnusable, match=r"not a Landseer store: it holds cat\.jpg"):
        open_store(tmp_path / "photos")
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == ["cat.jpg"]
    with pytest.raises(StoreUnusable, match="cannot be used as a store"):
        open_store(tmp_path / "photos" / "cat.jpg")
    with pytest.raises(StoreUnusable, match="cannot be used as a store"):
        open_store(tmp_path / "photos" / "cat.jpg" / "store")


def test_folders_that_may_become_stores(tmp_path):
    (tmp_path / "disk" / "lost+found").mkdir(parents=True)
    for folder in (tmp_path / "disk", tmp_path / "new" / "nested"):
        open_store(folder).close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreUnusable, match="writable"):
        open_store(tmp_path)


def test_another_programs_data(tmp_path):
    environment = lmdb.open(str(tmp_path), max_dbs=2)
    with environment.begin(write=True) as transaction:
        transaction.put(b"key", b"value")
    environment.close()
    with pytest.raises(StoreUnusable, match="another program"):
        open_store(tmp_path)


def test_another_format(folder, store):
    store.close()
    environment = lmdb.open(str(folder), max_dbs=10)
    with environment.begin(write=True) as transaction:
        transaction.put(b"format", b"landseer-store-9", db=environment.open_db(b"meta", txn=transaction))
    environment.close()
    with pytest.raises(StoreUnusable, match=r"landseer-store-9.*this release reads 'landseer-store-1'"):
        open_store(folder)


@pytest.mark.parametrize("garbage", [b"garbage" * 5000, b"x", bytes(20_000)])
def test_a_file_of_garbage(folder, store, garbage):
    store.close()
    (folder / "data.mdb").write_bytes(garbage)
    with pytest.raises(StoreUnusable, match=r"cannot be opened as a store.*backup"):
        open_store(folder)


@pytest.mark.parametrize("share", [0.25, 0.9])
def test_a_file_that_lost_its_end(folder, store, share):
    store.put_many([record(str(i)) for i in range(300)])
    store.close()
    file = folder / "data.mdb"
    size = int(file.stat().st_size * share)
    os.truncate(file, size)
    with pytest.raises(StoreUnusable, match=f"damaged: it has {size} bytes"):
        open_store(folder)
    assert file.stat().st_size == size


def test_a_file_short_of_pages_that_nothing_uses_is_sound(folder, store):
    store.put_many([record(str(i), thumbnail=bytes(50_000)) for i in range(20)])
    # Reach for new pages at the end, then give all of them back: the file ends in pages that hold nothing.
    store.put_many([record("last", thumbnail=bytes(10**6))])
    store.delete("last")
    for i in range(3):
        store.put_many([record(str(i), thumbnail=b"")])
    store.close()
    file = folder / "data.mdb"
    size = file.stat().st_size
    os.truncate(file, size - 10**6 // 2)
    again = open_store(folder)
    assert file.stat().st_size == size
    assert again.stats().pictures == 20
    again.close()


def test_a_failed_opening_leaves_the_folder_free(folder, store):
    store.close()
    for _ in range(3):
        with pytest.raises(ProfileMismatch):
            open_store(folder, fingerprint="other")
    with (folder / "landseer.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    open_store(folder).close()


def test_the_check_finds_faults(folder, store):
    store.put_many([record("a"), record("b")])
    store.close()
    assert list(faults(folder)) == []
    environment = lmdb.open(str(folder), max_dbs=10)
    with environment.begin(write=True) as transaction:
        transaction.delete((1).to_bytes(8, "big"), db=environment.open_db(b"descriptors", txn=transaction))
        transaction.put((2).to_bytes(8, "big"), b"nonsense", db=environment.open_db(b"records", txn=transaction))
    environment.close()
    found = list(faults(folder))
    assert "1 descriptors for 2 records" in found and any("record 2: not a record" in fault for fault in found)
    done = subprocess.run(
        [sys.executable, "-m", "landseer.ensemble.store.check", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and done.stdout.splitlines() == found
    again = open_store(folder)
    with pytest.raises(StoreUnusable, match="records of record 2 differ from what was written"):
        again.get("b")
    again.close()


# Killed at any moment.

WRITTEN = (
    """[record(id, seed=step, thumbnail=bytes(3000)) for id in (f"r{step}", f"s{draws.randrange(40)}", f"t{step}")]"""
)


def test_a_killed_writer_loses_nothing_it_acknowledged(folder):
    expected, start, draws = {}, 0, random.Random(7)
    with writers(__file__, WRITTEN) as kill_one:
        for _ in range(KILLS):
            said = kill_one(folder, start, draws.uniform(0, 0.1))
            assert said
            for change in said:
                expected |= dict(change)
            start += 5 * (len(said) // 5 + 2)
            assert list(faults(folder)) == []
            # Byte for byte: what was just written, and some of what was there before. All of it would be read again and
            # again, which is the square of the number of kills.
            fresh = {id for change in said for id, _ in change}
            check_survivors(folder, expected, fresh | set(draws.sample(sorted(expected), min(len(expected), 200))))
    check_survivors(folder, expected, set(expected))


def check_survivors(folder, expected, ids):
    store = open_store(folder)
    for id in ids:
        check_survivor(store, id, expected[id])
    store.close()


def check_survivor(store, id, seed):
    """Acknowledged changes are there, unless the last, unacknowledged one replaced them."""
    try:
        found = store.get(id).record
    except NotFound:
        assert seed is None or id.startswith("r")
        return
    assert seed is not None
    written = int(found.indexed_at - 1e9)
    assert written == seed or (written > seed and id.startswith("s"))
    same(found, record(id, seed=written, thumbnail=bytes(3000)))
