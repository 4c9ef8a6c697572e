import lmdb
import pytest
from store_records import open_store, record

from landseer.ensemble.errors import StoreUnusable
from landseer.ensemble.store.listing import PageQuery
from landseer.ensemble.store.record import pack_key


@pytest.fixture
def folder(tmp_path):
    opened = open_store(tmp_path / "store")
    opened.put_many([record("a", 1), record("b", 2), record("a", 3)])
    opened.close()
    return tmp_path / "store"


def edit(folder, change):
    """Change a store as damage would: `change` gets the databases by name and a transaction."""
    environment = lmdb.open(str(folder), max_dbs=20)
    with environment.begin(write=True) as transaction:
        change(lambda name: environment.open_db(name, txn=transaction), transaction)
    environment.close()


def flipped(name, key):
    def change(database, transaction):
        value = bytearray(transaction.get(pack_key(key), db=database(name)))
        value[len(value) // 2] ^= 1
        transaction.put(pack_key(key), bytes(value), db=database(name))

    return change


@pytest.mark.parametrize("name", [b"records", b"descriptors", b"clusters", b"thumbnails"])
def test_a_flipped_bit_is_an_error_for_its_picture_alone(folder, name):
    edit(folder, flipped(name, 3))
    store = open_store(folder)
    with pytest.raises(StoreUnusable, match=rf"damaged: {name.decode()} of record 3 differ from what was written"):
        store.get("a")
    assert store.get("b").record.width == 400
    if name == b"records":
        with pytest.raises(StoreUnusable):
            store.page(PageQuery(metadata=True))
    if name == b"clusters":
        with pytest.raises(StoreUnusable):
            store.vectors.clusters([2, 3])
    if name == b"descriptors":
        with pytest.raises(StoreUnusable):
            store.vectors.descriptors([2, 3])
        # So a server that reads all of them does not start.
        with pytest.raises(StoreUnusable):
            list(store.vectors.scan())
    store.close()


@pytest.mark.parametrize("name", [b"records", b"descriptors", b"clusters"])
def test_a_missing_value_is_an_error(folder, name):
    edit(folder, lambda database, transaction: transaction.delete(pack_key(3), db=database(name)))
    store = open_store(folder)
    with pytest.raises(StoreUnusable, match="damaged"):
        store.get("a")
    store.close()


def test_an_id_that_leads_to_another_record_is_an_error(folder):
    edit(folder, lambda database, transaction: transaction.put(b"a", pack_key(2), db=database(b"ids")))
    store = open_store(folder)
    with pytest.raises(StoreUnusable, match="id 'a' maps to record 2, which is that of 'b'"):
        store.get("a")
    store.close()


def test_records_of_older_releases_have_no_sums_and_are_read(folder):
    edit(folder, lambda database, transaction: transaction.drop(database(b"sums"), delete=True))
    store = open_store(folder)
    assert store.get("a").record.id == "a"
    store.put_many([record("c", 4)])
    store.close()
    edit(folder, flipped(b"descriptors", 4))
    store = open_store(folder)
    assert store.get("b").record.id == "b"
    with pytest.raises(StoreUnusable):
        store.get("c")
    store.close()


def test_sums_leave_with_their_records(folder):
    store = open_store(folder)
    store.delete("a")
    store.delete("b")
    assert store.by_keys([1, 2, 3]) == [None, None, None]
    counts = []
    store.close()
    edit(folder, lambda database, transaction: counts.append(transaction.stat(database(b"sums"))["entries"]))
    assert counts == [0]
