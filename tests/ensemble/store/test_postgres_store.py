"""The store in PostgreSQL: a real server, compared with the LMDB store, written by several at once, lost and found."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import psycopg
import pytest
from authorities import Authority
from postgres_server import PASSWORD
from records import plain_record
from store_records import open_store, record

from landseer.ensemble.errors import (
    InvalidInput,
    NotFound,
    ProfileMismatch,
    StoreFull,
    StoreUnavailable,
    StoreUnusable,
    Unfinished,
)
from landseer.ensemble.keypoints.compact import CompactKeypoints
from landseer.ensemble.keypoints.patches import Patches
from landseer.ensemble.postgres_address import postgres_address
from landseer.ensemble.store.listing import PageQuery
from landseer.ensemble.store.local_features import LocalFeatures
from landseer.ensemble.store.postgres import database, postgres_store
from landseer.ensemble.store.postgres.patient_connection import PatientConnection
from landseer.ensemble.store.postgres.postgres_store import PostgresStore
from landseer.ensemble.store.record import StoreChange

MADE_BY = {"locals": "1" * 64, "keypoints": "codebook", "patches": "2" * 64}


def opened(url, **changes):
    return PostgresStore.open(postgres_address(url), **({"fingerprint": "f", "made_by": MADE_BY} | changes))


@pytest.fixture
def store(url):
    found = opened(url)
    yield found
    found.close()


def rich(id, seed):
    """Return a record that may have features of each kind."""
    draws = np.random.default_rng([seed, *id.encode()])
    count = int(draws.integers(1, 9))
    places = {"positions": draws.uniform(0, 99, (count, 2)).astype(np.float32)}
    codes = {"codes": draws.integers(0, 256, (count, 16), dtype=np.uint8), "frame": (400, 300)}
    sizes = {"sizes": np.ones(count, np.float32)}
    words, angles = draws.integers(0, 99, count), np.zeros(count, np.float32)
    every = {
        "keypoints": CompactKeypoints(words=words, angles=angles, **places, **codes, **sizes),
        "patches": Patches(**places, **codes, **sizes),
        "locals": LocalFeatures(
            descriptors=np.eye(count, 8, dtype=np.float32), scales=np.ones(count, np.float32), counts=(count,), **places
        ),
    }
    return replace(record(id, seed), **{name: some for name, some in every.items() if draws.random() < 0.7})


def equal(one, other):
    """Require equal results of both stores, whatever they are."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            equal(*pair)
    elif hasattr(one, "__dataclass_fields__"):
        equal([*vars(one).values()], [*vars(other).values()])
    else:
        assert one == other


class Odd:
    """Wants the pictures of odd keys, and looks at the metadata of each."""

    def wants(self, key, id, metadata):
        return key % 2 == 1 and int(metadata()["seed"]) >= 0


def readings(store, keys, ids):
    """Return what every call of the interface answers."""
    yield [store.metadata.sequence(), store.count()]
    yield store.by_keys(keys, thumbnails=True)
    yield store.by_keys(keys, vectors=False)
    yield store.vectors.descriptors(keys)
    yield store.vectors.clusters(keys)
    for kind in (store.locals, store.keypoints, store.patches):
        yield kind.read(keys)
        yield [*kind.scan(batch=3)]
        yield [*kind.scan(after=keys[0])]
    yield [*store.metadata.scan(batch=4)]
    for prefix in ("", "r1", "r11", "z", "r\0"):
        yield store.metadata.ids(prefix)
        yield store.page(PageQuery(prefix=prefix, size=3, metadata=True))
        yield store.page(PageQuery(prefix=prefix, size=4, after="r1\0b"), Odd())
    yield sorted(str(one) for one in store.metadata.sample())
    for id in ids:
        try:
            yield store.get(id)
        except NotFound as error:
            yield str(error)
    stats = store.stats()
    yield [stats.pictures, stats.sequence, stats.locals, stats.keypoints, stats.last_change is None]


@pytest.mark.parametrize("seed", range(2))
def test_it_answers_as_the_store_in_a_folder_does(store, tmp_path, seed, monkeypatch):
    monkeypatch.setattr(postgres_store, "_LISTED", 2)
    other = open_store(tmp_path / "store")
    for name, by in MADE_BY.items():
        getattr(other, name).stamp(by)
    draws, both = np.random.default_rng(seed), (store, other)
    for step in range(12):
        ids = [f"r{number}" for number in draws.integers(0, 25, int(draws.integers(1, 7)))]
        one, another = (each.put_many([rich(id, step) for id in ids]) for each in both)
        assert one == another
        if step % 3:
            assert store.delete(ids[0]) == other.delete(ids[0])
        keys = [*map(int, draws.integers(0, one[-1].key + 3, 9)), 10**12]
        for answers in zip(readings(store, keys, ids), readings(other, keys, ids), strict=True):
            equal(*answers)
    for id in store.metadata.ids()[1]:
        store.delete(id)
    left = store.stats()
    assert (left.pictures, left.used_bytes, left.locals_bytes, left.keypoints_bytes) == (0, 0, 0, 0)
    other.close()


def test_ids_of_all_kinds_are_kept_and_sorted_by_their_bytes(store):
    ids = ["a", "B", "ä", "zz", "a b", "a%b", "a_b", "a\\b", "\U0010ffffx", "日本", "c" * 500]
    store.put_many([record(id, 0) for id in ids])
    listed = [one.id for one in store.page(PageQuery()).pictures]
    assert listed == sorted(ids, key=str.encode) == store.metadata.ids()[1]
    assert [one.id for one in store.page(PageQuery(prefix="a")).pictures] == ["a", "a b", "a%b", "a\\b", "a_b"]
    assert [one.id for one in store.page(PageQuery(prefix="a", after="a%b")).pictures] == ["a\\b", "a_b"]
    for id in ids:
        equal(store.get(id).record, record(id, 0))
    with pytest.raises(InvalidInput, match="control"):
        store.get("a\0")


# One store for several processes.


def test_writes_at_once_get_numbers_without_gaps_and_followers_miss_none(store, url):
    threads, each = 4, 15
    writers = [opened(url) for _ in range(threads)]
    said, done = [], threading.Event()

    def write(number):
        for step in range(each):
            own = [f"w{number}-{step}", "shared"]
            changes = writers[number].put_many([record(id, step) for id in own])
            said.extend((change.key, id, change, True) for id, change in zip(own, changes, strict=True))
            if step % 4 == 3:
                change = writers[number].delete(f"w{number}-{step - 1}")
                said.append((change.key, f"w{number}-{step - 1}", change, False))

    followed, seen = {}, 0

    def follow():
        nonlocal seen
        while True:
            last = done.is_set()
            while (part := store.changes_after(seen, most=3)) is not None:
                for one in part.added:
                    assert one.key not in followed
                    followed[one.key] = one.record.id
                for key in part.removed:
                    followed.pop(key, None)
                seen = part.upto
            if last:
                return

    running = [threading.Thread(target=write, args=(number,)) for number in range(threads)]
    follower = threading.Thread(target=follow)
    for thread in [*running, follower]:
        thread.start()
    for thread in running:
        thread.join()
    done.set()
    follower.join()
    said.sort()
    assert [number for number, *_ in said] == list(range(1, len(said) + 1)) and seen == len(said)
    left = {}
    for number, id, change, added in said:
        # Each replaced what was there, so none was there twice.
        assert change.replaced_key == left.pop(id, None)
        if added:
            left[id] = number
    keys, ids = store.metadata.ids()
    stored = dict(zip(ids, keys.tolist(), strict=True))
    assert stored == left == {id: key for key, id in followed.items()} and store.count() == len(stored)
    for writer in writers:
        writer.close()


@pytest.mark.parametrize("seed", range(2))
def test_an_index_that_several_send_to_in_turns_ends_with_what_the_store_has(store, url, seed):
    draws, index = np.random.default_rng(seed), {}
    outboxes = [store.outbox, opened(url).outbox]
    assert outboxes[0].position("token") is None
    outboxes[0].begin("token")
    for step in range(25):
        ids = [f"r{number}" for number in draws.integers(0, 30, 4)]
        store.put_many([record(id, seed=step) for id in ids])
        if step % 3:
            store.delete(ids[0])
        sender, other = (outboxes[at] for at in draws.permutation(2))
        try:
            with sender.turn("token", 0) as seen:
                assert seen == sender.position("token")
                with other.turn("token", 0) as theirs:
                    assert theirs is None
                with other.turn("of another collection", 0) as theirs:
                    assert theirs == 0
                part = sender.unseen(seen, augmented=False, most=int(draws.integers(1, 9)))
                send(part, index)
                sender.confirm("token", part.upto)
                if step % 5 == 0:
                    raise KeyError("it was killed: what is not committed is sent again")
        except KeyError:
            assert other.position("token") == seen
    seen = outboxes[1].position("token")
    while (part := store.outbox.unseen(seen, augmented=False, most=5)).upto != seen:
        send(part, index)
        seen = part.upto
    keys = np.sort(store.metadata.ids()[0])
    assert sorted(index) == keys.tolist() and seen == part.sequence == store.outbox.sequence()
    np.testing.assert_array_equal([index[key] for key in keys.tolist()], store.vectors.descriptors(keys.tolist()))
    assert part.pictures == len(keys)


def send(part, index):
    index |= dict(zip(part.keys.tolist(), part.vectors, strict=True))
    for key in part.removed.tolist():
        index.pop(key, None)


def keep_turn(url, told):
    with opened(url).outbox.turn("token", 0) as seen:
        told.send(seen)
        time.sleep(60)


def test_a_process_that_is_killed_while_it_sends_gives_up_its_turn(store, url):
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=keep_turn, args=(url, theirs))
    process.start()
    assert ours.recv() == 0
    with store.outbox.turn("token", 0) as seen:
        assert seen is None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    until = time.monotonic() + 10
    while seen is None:
        assert time.monotonic() < until
        with store.outbox.turn("token", 0) as seen:
            pass


def test_a_process_that_hangs_while_it_sends_is_cut_off(store, url, monkeypatch):
    assert "idle_in_transaction_session_timeout = '60s'" in database._SETTINGS
    monkeypatch.setattr(database, "_SETTINGS", "SET idle_in_transaction_session_timeout = '100ms'")
    hanging = opened(url)
    with pytest.raises(StoreUnavailable, match="idle-in-transaction timeout"):  # noqa: SIM117
        with hanging.outbox.turn("token", 0):
            hanging.outbox.begin("token")
            seen, until = None, time.monotonic() + 10
            while seen is None:
                assert time.monotonic() < until
                with store.outbox.turn("token", 0) as seen:
                    pass
            hanging.outbox.confirm("token", 7)
    # What it noted is forgotten.
    assert store.outbox.position("token") is None
    hanging.close()


def test_collections_in_schemas_of_one_database_know_nothing_of_each_other(store, url):
    store.put_many([record("a", 0)])
    with psycopg.connect(url) as connection:
        connection.execute("CREATE SCHEMA other")
    other = opened(f"{url}&options=-csearch_path%3Dother", fingerprint="g")
    assert other.count() == 0 and other.put_many([record("b", 0)])[0].key == 1
    assert store.metadata.ids()[1] == ["a"]
    other.close()


# What is refused.


def test_made_for_other_models(store, url):
    with pytest.raises(ProfileMismatch, match="filled by other models"):
        opened(url, fingerprint='{"weights_sha256": "0"}')
    for name in MADE_BY:
        with pytest.raises(ProfileMismatch, match=r"are made by .* and this server's by other"):
            opened(url, made_by={**MADE_BY, name: "other"})
    opened(url, made_by={}).close()
    bare = opened(url, made_by={})
    with pytest.raises(ValueError, match="opened without what makes them"):
        bare.put_many([rich("a", 3), rich("b", 4), rich("c", 5)])
    bare.put_many([record("a", 0)])
    with pytest.raises(ProfileMismatch, match=r"descriptor of 8 values; those in .* have 64"):
        bare.put_many([plain_record("b", reduced=512)])
    assert bare.count() == 1
    bare.close()


def test_a_full_store_keeps_its_content_and_can_be_emptied(url):
    size = opened(url).stats().used_bytes
    store = opened(url, limit_bytes=2 * 2**10)
    assert size == 0 and store.stats().limit_bytes == 2 * 2**10
    store.put_many([record("a", 0), record("b", 0), record("c", 0)])
    with pytest.raises(StoreFull, match="limit of 0 MiB is reached"):
        store.put_many([record("d", 0)])
    assert store.count() == 3
    for id in "abc":
        store.delete(id)
    store.put_many([record("d", 0)])
    store.close()


def test_databases_that_are_something_else(server, store, url):
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE landseer_store SET format = 'landseer-postgres-9'")
    with pytest.raises(StoreUnusable, match=r"has format 'landseer-postgres-9', but this release reads"):
        opened(url)
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE landseer_store SET format = 'landseer-postgres-1'")
        connection.execute("CREATE ROLE stranger LOGIN")
    store.put_many([record("a", 0)])
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE landseer_pictures SET record = '\\x00'")
    with pytest.raises(StoreUnusable, match="is damaged: record 1: not a record"):
        store.get("a")
    with pytest.raises(StoreUnusable, match="cannot be used: permission denied"):
        opened(url.replace("landseer@", "stranger@"))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE latin ENCODING LATIN1 LOCALE 'C' TEMPLATE template0")
    with pytest.raises(StoreUnusable, match="is in LATIN1; ids need UTF8"):
        opened(re.sub(r"/\w+\?", "/latin?", url))


# Away, and back.


def test_a_lost_server_is_named_and_found_again(server, store, url, monkeypatch):
    store.put_many([record("a", 0)])
    server.stop()
    name = re.escape(str(postgres_address(url)))
    for call in (lambda: store.get("a"), store.stats, lambda: store.put_many([record("b", 0)]), lambda: opened(url)):
        with pytest.raises(StoreUnavailable, match=f"the store {name} does not answer: "):
            call()
    server.start()
    assert store.get("a").key == 1
    with pytest.raises(Unfinished, match=f"the store {name} was lost while a change was committed"):  # noqa: SIM117
        with store._database.writing():
            server.stop()
    server.start()
    # Connections that were kept are lost, too: none that was not used for a while, and at most one call, fails.
    for fresh_s in (0.0, 3600.0):
        monkeypatch.setattr(database, "FRESH_S", fresh_s)
        with contextlib.ExitStack() as held:
            for _ in range(3):
                held.enter_context(store._database.reading())
        server.stop()
        server.start()
        if fresh_s:
            with pytest.raises(StoreUnavailable):
                store.count()
        assert store.count() == 1
    assert store.put_many([record("b", 0)]) == [StoreChange(key=2, replaced_key=None)]


def test_a_server_that_hangs_is_named_and_found_again(server, store, monkeypatch):
    store.put_many([record("a", 0)])
    monkeypatch.setattr(database, "PROBE_S", 0.3)
    monkeypatch.setattr(PatientConnection, "patience_s", 1.0)
    monkeypatch.setattr(database, "FRESH_S", 3600.0)
    for call, seconds in ((store.metadata.sequence, 0.3), (store.stats, 1.0)):
        with contextlib.ExitStack() as held:
            for _ in range(3):
                held.enter_context(store._database.reading())
        with server.hanging():
            with pytest.raises(StoreUnavailable, match=f"does not answer: no answer within {seconds:g} s; try again"):
                call()
            # The others that were kept are dropped, and a new one is not to be had.
            with pytest.raises(StoreUnavailable, match="timeout expired"):
                store.put_many([record("b", 0)])
        assert call()
    assert store.put_many([record("b", 0)]) == [StoreChange(key=2, replaced_key=None)]


def test_a_disk_that_is_full_is_no_fault_of_the_database(store):
    with pytest.raises(StoreFull, match=r"the disk of the store .* is full; nothing was written"):  # noqa: SIM117
        with store._database.writing() as cursor:
            cursor.execute("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53100', MESSAGE = 'no space'; END $$")


def test_a_password_comes_from_a_file_and_is_never_shown(server, url, tmp_path, monkeypatch):
    name = re.search(r"/(\w+)\?", url)[1]
    address = f"postgresql://landseer@127.0.0.1:{server.port}/{name}"
    secrets = tmp_path / "pgpass"
    monkeypatch.setenv("PGPASSFILE", str(secrets))
    for password in (PASSWORD, "wrong-horse"):
        secrets.write_text(f"127.0.0.1:{server.port}:*:landseer:{password}\n")
        secrets.chmod(0o600)
        if password == PASSWORD:
            opened(address).close()
    with pytest.raises(StoreUnavailable, match="password authentication failed") as failed:
        opened(address)
    assert "horse" not in str(failed.value)
    service = tmp_path / "services"
    service.write_text(f"[shared]\nhost=127.0.0.1\nport={server.port}\nuser=landseer\npassword={PASSWORD}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(service))
    opened(f"postgresql:///{name}?service=shared").close()
    for known in (f"postgresql://landseer:{PASSWORD}@127.0.0.1/x", f"postgres:///x?password={PASSWORD}"):
        with pytest.raises(ValueError, match="has a password, which everybody") as refused:
            postgres_address(known)
        assert PASSWORD not in str(refused.value)
    assert str(postgres_address(f"{address}?sslmode=require")) == f"postgresql://127.0.0.1:{server.port}/{name}"
    assert postgres_address("var/store") is None and postgres_address("postgres") is None


def test_plain_text_to_another_machine_is_refused_and_tls_is_checked(server, url, tmp_path, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    monkeypatch.setattr(database, "is_loopback", lambda host: False)
    address = url.replace("@/", f"@127.0.0.1:{server.port}/").partition("?")[0]
    with pytest.raises(StoreUnusable, match=r"would be plain text; add \?sslmode=verify-full"):
        opened(address)
    opened(address, insecure=True).close()
    opened(url).close()
    authority = Authority(tmp_path / "authority")
    server.use_tls(authority.issue("postgres"))
    opened(f"{address}?sslmode=verify-full&sslrootcert={authority.cert}").close()
    stranger = Authority(tmp_path / "stranger")
    with pytest.raises(StoreUnavailable, match="certificate verify failed"):
        opened(f"{address}?sslmode=verify-full&sslrootcert={stranger.cert}")


def test_a_malformed_address_is_told():
    with pytest.raises(StoreUnusable, match="is no address of PostgreSQL"):
        opened("postgresql://host/x?unknown=1")
    with pytest.raises(ValueError, match="malformed"):
        postgres_address("postgres:x")
