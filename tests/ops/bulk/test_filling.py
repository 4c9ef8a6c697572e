"""One record for each picture, whatever the workers answer, and what a further run has to do."""

from __future__ import annotations

import pytest
from store_records import open_store, record

from landseer.ops.bulk.filling import LOST, Filling
from landseer.ops.bulk.outcome import Outcome
from landseer.ops.bulk.sources import BulkPicture


@pytest.fixture
def store(tmp_path):
    opened = open_store(tmp_path / "store")
    yield opened
    opened.close()


def pictures(*ids, version="1-2"):
    return [BulkPicture(id=id, absolute=f"/photos/{id}", version=version) for id in ids]


def filling(store, some, **options):
    return Filling(store, some, lambda one: {"shop": "north"}, **options)


def described(place, id, seed=1):
    return Outcome(position=place, record=record(id, seed))


def test_each_picture_is_written_once_with_its_metadata(store):
    run = filling(store, pictures("a", "b", "c"))
    run.write([described(0, "a"), described(1, "b")])
    # Another worker was asked for the same pictures, because the first one seemed lost.
    run.write([described(1, "b", seed=9), Outcome(position=2, why="image: no picture")])
    run.write([Outcome(position=0, why="late")])
    assert (run.settled, run.tally.indexed, run.tally.replaced) == (3, 2, 0)
    assert [(one.id, one.why) for one in run.tally.failures] == [("c", "image: no picture")]
    assert (store.count(), store.stats().sequence) == (2, 2)
    assert store.get("b").record.descriptor.tobytes() == record("b", 1).descriptor.tobytes()
    assert store.get("a").record.metadata == {"path": "/photos/a", "shop": "north", "file_version": "1-2"}


def test_the_next_run_describes_what_is_missing_or_has_changed(store):
    run = filling(store, pictures("a", "b", "c"))
    run.write([described(0, "a"), described(1, "b"), Outcome(position=2, why="image: no picture")])
    changed = [*pictures("a"), *pictures("b", version="1-3"), *pictures("c", "d")]
    run = filling(store, changed)
    assert [one.id for one in run.waiting] == ["b", "c", "d"]
    run.write([described(0, "b", 5), described(1, "c"), described(2, "d")])
    assert (run.tally.skipped, run.tally.indexed, run.tally.replaced, run.tally.failures) == (1, 3, 1, [])
    assert filling(store, changed).waiting == []
    assert len(filling(store, changed, replace=True).waiting) == 4


def test_a_picture_without_a_version_is_described_once(store):
    some = pictures("s3://bucket/a.jpg", version="")
    filling(store, some).write([described(0, some[0].id)])
    assert store.get(some[0].id).record.metadata == {"path": f"/photos/{some[0].id}", "shop": "north"}
    assert filling(store, some).waiting == []


def test_a_picture_of_which_nobody_knows_whether_it_has_changed_stays(store):
    filling(store, pictures("s3://bucket/a.jpg", version="7-tag")).write([described(0, "s3://bucket/a.jpg")])
    run = filling(store, pictures("s3://bucket/a.jpg", version=""))
    assert (run.waiting, run.tally.skipped) == ([], 1)


def test_what_no_record_could_hold_is_not_described(store):
    run = Filling(store, pictures("a", "b" * 600), lambda one: {"k": "v" * (70_000 if one.id == "a" else 1)})
    assert run.waiting == []
    assert [one.why.partition(":")[0] for one in run.tally.failures] == ["metadata", "id"]


def test_pictures_that_nobody_answers_for_are_failures(store):
    run = filling(store, pictures("a", "b"))
    run.write([described(1, "b")])
    run.give_up()
    assert [(one.id, one.why) for one in run.tally.failures] == [("a", LOST)]
    assert (run.settled, store.count()) == (2, 1)
