import pytest
from store_records import open_store, record

from landseer.ops.chaos.damage import flips


@pytest.fixture
def folder(tmp_path):
    store = open_store(tmp_path / "store")
    store.put_many([record(f"r{number}", number) for number in range(20)])
    store.delete("r3")
    store.close()
    return tmp_path / "store"


def test_no_flipped_bit_gives_another_answer_silently(folder):
    found = flips(folder, count=40, seed=1)
    assert found.tried == 40 == found.at_open + found.at_read + found.harmless
    assert not found.silent
    assert found.at_read > 5


def test_without_checksums_some_would(folder):
    store = open_store(folder)
    with store._write() as transaction:
        transaction.drop(store._databases[b"sums"], delete=False)
    store.close()
    assert flips(folder, count=40, seed=1).silent
