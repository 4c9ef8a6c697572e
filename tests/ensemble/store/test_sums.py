"""Checksums: what is known of a record is not read again, and never hides damage or a removal."""

from __future__ import annotations

import lmdb
import pytest

from landseer.ensemble.errors import StoreUnusable
from landseer.ensemble.store import sums as module
from landseer.ensemble.store.folder import SUMS
from landseer.ensemble.store.record import pack_key
from landseer.ensemble.store.sums import SUMMED, Sums

KEY, NAME = pack_key(7), SUMMED[0]


class Reading:
    """A transaction that counts how often checksums are read."""

    def __init__(self, transaction, sums):
        self._transaction, self._sums, self.reads = transaction, sums, 0

    def get(self, key, db):
        self.reads += db is self._sums
        return self._transaction.get(key, db=db)


@pytest.fixture
def store(tmp_path):
    environment = lmdb.open(str(tmp_path / "store"), max_dbs=20)
    databases = {name: environment.open_db(name) for name in (*SUMMED, SUMS)}
    sums = Sums(tmp_path, databases)
    with environment.begin(write=True) as transaction:
        for name in SUMMED[:3]:
            transaction.put(KEY, name + b" as written", db=databases[name])
        sums.put(transaction, KEY)
    yield environment, databases, sums
    environment.close()


def value(name=NAME):
    return name + b" as written"


def test_the_checksums_of_a_record_are_read_once_for_all_of_its_values(store):
    environment, databases, sums = store
    with environment.begin() as transaction:
        reading = Reading(transaction, databases[SUMS])
        for _ in range(2):
            for name in SUMMED:
                there = value(name) if name in SUMMED[:3] else None
                sums.check(reading, KEY, name, there)
        assert reading.reads == 1


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("damaged", [None, b"", b"records as wriTten"])
def test_damage_is_noticed_whatever_is_known(store, known, damaged):
    environment, _, sums = store
    with environment.begin() as transaction:
        if known:
            sums.check(transaction, KEY, NAME, value())
        with pytest.raises(StoreUnusable, match="records of record 7 differ from what was written"):
            sums.check(transaction, KEY, NAME, damaged)


def test_a_record_that_was_removed_since_is_missing_and_not_damaged(store):
    environment, databases, sums = store
    with environment.begin(write=True) as transaction:
        sums.check(transaction, KEY, NAME, value())
        transaction.delete(KEY, db=databases[SUMS])
        sums.check(transaction, KEY, NAME, None)


def test_few_records_are_known_at_a_time(store, monkeypatch):
    environment, databases, sums = store
    monkeypatch.setattr(module, "KNOWN", 3)
    with environment.begin(write=True) as transaction:
        for number in range(10, 20):
            transaction.put(pack_key(number), value(), db=databases[NAME])
            sums.put(transaction, pack_key(number))
            sums.check(transaction, pack_key(number), NAME, value())
            assert 0 < len(sums._known) <= 3
