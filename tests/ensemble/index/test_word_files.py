"""Words in files: what searches by words find is the same, loaded from files or from the store."""

from __future__ import annotations

import errno
import threading

import numpy as np
import pytest
from records import plain_record

from landseer.client.cli import main
from landseer.ensemble.asmk import inverted_file
from landseer.ensemble.asmk.aggregate import Binary
from landseer.ensemble.asmk.inverted_file import SavingStopped
from landseer.ensemble.index import choosing, manifest
from landseer.ensemble.index.main_index import BuildStopped
from landseer.ensemble.index.manifest import files_of
from landseer.ensemble.index.versions import WORDS, Versions
from landseer.ensemble.index.word_files import WordFiles
from landseer.ensemble.index.word_index import WordIndex
from landseer.ensemble.store.store import Store

K, BITS = 40, 128


def words_of(seed):
    draws = np.random.default_rng(seed)
    found = np.sort(draws.permutation(K)[: draws.integers(1, 12)]).astype(np.int64)
    return Binary(words=found, codes=draws.integers(0, 256, (len(found), BITS // 8), np.uint8), bits=BITS)


class Source:
    """Words of the pictures in a store, made from their keys."""

    fingerprint, words, bits, kernel = "book", K, BITS, "how-idf"

    def __init__(self, store):
        self.store, self.read = store, 0

    def of_record(self, record):
        return words_of(record.width)

    def stored(self, stop, *, after=0):
        for keys, _ in self.store.vectors.scan(batch=20, after=after):
            self.read += len(keys)
            found = self.store.by_keys(keys.tolist(), vectors=False)
            yield keys, [words_of(stored.record.width) for stored in found]


class Wordy:
    """A store with words, and their files."""

    def __init__(self, folder):
        self.folder = folder
        self.store = Store.open(folder, fingerprint="{}", clusters_shape=(10, 8), limit_bytes=2**26)
        self.source, self.damaged = Source(self.store), []
        self.index = WordIndex(self.source, threads=2)
        versions = Versions(folder, WORDS)
        self.files = WordFiles(
            self.store, self.index, versions=versions, damaged=lambda: self.damaged.append(versions.active)
        )

    async def load(self):
        found = self.files.first()
        await self.index.load(threading.Event(), None if found is None else found[1])

    async def put(self, *names):
        records = [plain_record(name, reduced=8, width=10 + sum(map(ord, name))) for name in names]
        changes = self.store.put_many(records)
        gone = [change.replaced_key for change in changes if change.replaced_key is not None]
        await self.index.apply([change.key for change in changes], records, gone)

    async def delete(self, name):
        await self.index.apply([], [], [self.store.delete(name).replaced_key])

    async def answers(self):
        """What ten queries find."""
        hits = [await self.index.search(words_of(seed), 500) for seed in range(10)]
        return [(one.keys.tolist(), one.scores.tolist()) for one in hits]

    async def again(self):
        """Close, and open it as after a restart."""
        self.close()
        other = Wordy(self.folder)
        await other.load()
        return other

    async def from_the_store(self):
        """What an index that is built from the store alone answers."""
        kept, self.index = self.index, WordIndex(self.source, threads=1)
        await self.index.load(threading.Event())
        found = await self.answers()
        self.index.close()
        self.index = kept
        return found

    def close(self):
        self.index.close()
        self.store.close()


@pytest.fixture
async def wordy(tmp_path, monkeypatch):
    # Several segments.
    monkeypatch.setattr(inverted_file, "MOST", 64)
    made = Wordy(tmp_path / "store")
    await made.load()
    await made.put(*(f"p{row}" for row in range(150)))
    yield made
    made.close()


async def test_words_in_files_find_the_same_through_changes_and_restarts(wordy):
    before = await wordy.answers()
    assert wordy.index.changed == 150
    assert wordy.files.save().number == 1 and wordy.index.changed == 0
    assert main(["index-versions", "verify", str(wordy.folder), "--words"]) == 0
    assert await wordy.answers() == before
    await wordy.put("p3", "new")
    await wordy.delete("p7")
    assert wordy.index.changed == 4
    changed = await wordy.answers()
    wordy.close()
    other = await wordy.again()
    # Only what is newer than the files was read from the store.
    assert other.source.read == 2 and await other.answers() == await other.from_the_store()
    assert [keys for keys, _ in await other.answers()] != [keys for keys, _ in before]
    assert {key for keys, _ in changed for key in keys} == {key for keys, _ in await other.answers() for key in keys}
    await other.put(*(f"q{row}" for row in range(60)))
    assert other.files.save().number == 2
    last = await other.again()
    assert last.source.read == 0 and await last.answers() == await last.from_the_store()
    last.close()


@pytest.mark.parametrize("harm", ["flipped", "truncated", "missing"])
async def test_damaged_words_are_noticed_and_loaded_from_the_version_before_or_the_store(wordy, harm):
    wordy.files.save()
    await wordy.put("late")
    wordy.files.save()
    for left in (1, None):
        wordy.close()
        file = next((wordy.folder / WORDS / "versions" / str(wordy.files.versions.active)).glob("*-codes.npy"))
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.unlink()
        if harm != "missing":
            file.write_bytes(bytes(data) if harm == "flipped" else bytes(data[:-1]))
        other = await wordy.again()
        assert other.damaged and other.files.versions.active == left
        assert await other.answers() == await other.from_the_store()
        wordy.index, wordy.store, wordy.files = other.index, other.store, other.files


async def test_large_words_serve_before_they_are_checked_unless_that_may_have_ended_the_server(wordy, monkeypatch):
    monkeypatch.setattr(choosing, "CHECKED_AT_ONCE", 0)
    wordy.files.save()
    wordy.close()
    file = next((wordy.folder / WORDS / "versions" / "1").glob("*-codes.npy"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    other = await wordy.again()
    assert (other.files.versions.active, other.files.versions.unchecked, other.damaged) == (1, 1, [])
    # It ended before the check did.
    again = await other.again()
    assert (again.files.versions.active, len(again.damaged)) == (None, 1)
    assert await again.answers() == await again.from_the_store()
    wordy.index, wordy.store, wordy.files = again.index, again.store, again.files


async def test_a_full_disk_harms_nothing(wordy, monkeypatch):
    before = await wordy.answers()

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(choosing, "files_of", full)
    with pytest.raises(OSError, match="No space"):
        wordy.files.save()
    monkeypatch.undo()
    assert await wordy.answers() == before and wordy.index.changed == 150
    assert wordy.files.versions.numbers == [] and not list((wordy.folder / WORDS).glob("building-*"))


async def test_a_stop_ends_a_save_and_a_check_soon_and_discards_nothing(wordy):
    version = wordy.files.save()
    await wordy.put("late")
    wordy.files.stop = stop = threading.Event()
    stop.set()
    with pytest.raises(SavingStopped):
        wordy.files.save()
    for read in (lambda: files_of(version.folder, stop), lambda: wordy.files.check(1)):
        with pytest.raises(BuildStopped):
            read()
    assert wordy.files.versions.numbers == [1] and not wordy.damaged
    assert not list((wordy.folder / WORDS).glob("building-*"))


async def test_a_version_of_another_release_is_passed_over_and_kept(wordy, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "FORMAT", 2)
        wordy.files.save()
    assert wordy.files.first() is None
    assert wordy.files.versions.numbers == [1] and not wordy.damaged


async def test_words_that_were_loaded_during_a_save_are_not_taken_for_saved(wordy, tmp_path):
    (tmp_path / "aside").mkdir()
    _, settle = wordy.index.save(tmp_path / "aside")
    await wordy.index.load(threading.Event())
    settle(tmp_path / "aside")
    assert wordy.index.changed == 150
