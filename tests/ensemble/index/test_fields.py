"""Filters over a real store: what they let through, by memory and by reading."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import plain_record

from landseer.ensemble.errors import InvalidInput, Overloaded
from landseer.ensemble.filters.kinds import IndexedField, indexed_field, items, moment, number
from landseer.ensemble.filters.parser import parse
from landseer.ensemble.index import change_log
from landseer.ensemble.index import columns as columns_module
from landseer.ensemble.index import fields as fields_module
from landseer.ensemble.index.columns import Columns
from landseer.ensemble.index.fields import Fields
from landseer.ensemble.store.store import Store

ALBUM = {
    "ely": {"place": "Ely", "year": "1083", "tags": '["gothic", "norman"]', "taken": "2019-05-01T12:00:00Z"},
    "wells": {"place": "Wells", "year": "1176", "tags": "gothic, early english", "listed": "true"},
    "tate": {"place": "London", "year": "2000.5", "tags": "power station", "taken": "2026-01-02", "listed": "false"},
    "odd": {"place": "New York*", "year": "unknown", "path": "/home/me/odd.jpg", "a b": "1"},
    "bare": {},
}
KINDS = ("place", "year:number", "tags:list", "taken:time", "listed:bool")
CASES = {
    'place = "Ely"': "ely",
    "place != Ely": "wells tate odd",
    "NOT place = Ely": "wells tate odd bare",
    "place = *l*": "ely wells",
    r'place = "New York\*"': "odd",
    "place < M": "ely tate",
    "place:on": "tate",
    "place:*": "ely wells tate odd",
    "metadata:place": "ely wells tate odd",
    "year > 1083": "wells tate",
    "year = 1176.0": "wells",
    "year != 1176": "ely tate",
    "-year:*": "odd bare",
    "tags:gothic": "ely wells",
    "tags:goth": "",
    'tags:"early*"': "wells",
    "taken > 2020-01-01": "tate",
    "taken <= 2019-05-01T14:00:00+02:00": "ely",
    "listed = true": "wells",
    "listed != TRUE": "tate",
    "id = ely": "ely",
    "id:e": "ely wells tate bare",
    'id:"t*" OR year < 1100': "ely tate",
    "id > p": "tate wells",
    'metadata."a b" = 1': "odd",
    "place = Ely AND year = 1": "",
}
"""Filters, and the ids that they let through."""
UNTYPED = {
    "year > 1083": "wells tate",
    'year > "1083"': "wells tate odd",
    "listed = TRUE": "wells",
    'listed = "TRUE"': "",
    "taken < 2020-01-01T00:00:00Z": "ely",
    "tags:norman": "ely",
    "tags:goth": "wells",
    "tags:goth*": "ely wells",
    "year:1176": "wells",
}
"""The same of fields without a kind."""


def record(id, **metadata):
    return plain_record(id, reduced=12, metadata=metadata)


@pytest.fixture
def store(tmp_path):
    opened = Store.open(tmp_path / "store", fingerprint="f", limit_bytes=16 * 2**20, clusters_shape=(4, 12))
    opened.put_many([record(id, **metadata) for id, metadata in ALBUM.items()])
    yield opened
    opened.close()


@pytest.fixture
async def made(store):
    """Makes the fields of the store."""
    running = []

    async def make(*indexed):
        running.append(Fields(store, [indexed_field(text) for text in indexed]))
        await running[-1].load(store.metadata.scan())
        return running[-1]

    yield make
    for fields in running:
        fields.close()


async def ids(fields, store, text):
    found = await fields.select(parse(text))
    keys = np.flatnonzero(found.selection.now().allowed)
    assert found.matched == len(keys)
    return " ".join(one.record.id for one in store.by_keys(keys.tolist(), vectors=False) if one)


@pytest.mark.parametrize("indexed", [KINDS, ()], ids=["indexed", "read"])
async def test_what_filters_let_through(store, made, indexed):
    fields, expected = await made(*indexed), CASES if indexed else UNTYPED
    found = {text: sorted((await ids(fields, store, text)).split()) for text in expected}
    assert found == {text: sorted(ids.split()) for text, ids in expected.items()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("year > soon", "year > soon: year is a number; expected 1990 at column 8, got soon"),
        ("taken > yesterday", "taken is a time; expected 2026-11-29 or 2026-11-29T12:00:00Z at column 9"),
        ("listed > true", "listed is a bool; compare it by = or !=, at column 10"),
        ("tags = gothic", "tags is a list; write tags:gothic for one that has it, at column 8"),
    ],
)
async def test_a_value_of_another_kind_is_an_error(made, text, message):
    with pytest.raises(InvalidInput) as caught:
        await (await made(*KINDS)).select(parse(text))
    assert message in str(caught.value)


@pytest.fixture
def slow(monkeypatch):
    """Filters that look for `slow` wait until they are let go."""
    begun, go, plain = threading.Event(), threading.Event(), columns_module.text_test

    def test(comparison, kind, filter):
        if comparison.value.text != "slow":
            return plain(comparison, kind, filter)
        return lambda text: (begun.set(), go.wait(30), text == "Ely")[2]

    monkeypatch.setattr(columns_module, "text_test", test)
    yield begun, go
    go.set()


@pytest.mark.parametrize("indexed", [("place", "year:number"), ()], ids=["indexed", "read"])
async def test_a_slow_filter_delays_no_change_and_no_other_filter_and_follows_what_came_meanwhile(
    store, made, slow, monkeypatch, indexed
):
    monkeypatch.setattr(fields_module, "QUICK", 0)
    (begun, go), fields = slow, await made(*indexed)
    task = asyncio.create_task(fields.select(parse("place:slow AND -id = new2")))
    await asyncio.to_thread(begun.wait, 30)
    # The one that it knows is replaced, and one that matches is new.
    for id in ("ely", "new", "new2"):
        (change,) = store.put_many([record(id, place="Ely")])
        await fields.add([change.key], [record(id, place="Ely")])
        await fields.remove([change.replaced_key] if change.replaced_key else [])
    if indexed:
        assert await ids(fields, store, "year > 1100") == "wells tate"
    assert not task.done()
    go.set()
    found = await task
    keys = np.flatnonzero(found.selection.now().allowed).tolist()
    there = [one.record.id for one in store.by_keys(keys, vectors=False) if one]
    assert (there, found.matched) == (["ely", "new"], 2)


async def test_a_selection_is_as_new_as_the_search_that_asks_for_it(store, made):
    fields = await made("place")
    found = await fields.select(parse("place = Ely OR id = b"))
    before = found.selection.now()
    assert found.selection.now() is before
    for id, place in (("a", "Ely"), ("b", "York"), ("c", "York")):
        (change,) = store.put_many([record(id, place=place)])
        await fields.add([change.key], [record(id, place=place)])
        await fields.remove([])
    keys = np.flatnonzero(found.selection.now().allowed).tolist()
    assert [one.record.id for one in store.by_keys(keys, vectors=False)] == ["ely", "a", "b"]
    assert before is not found.selection.now()
    # A list of the store may be newer than what filters were told of.
    (change,) = store.put_many([record("d", place="Ely")])
    assert found.listed.wants(change.key, "d", lambda: {"place": "Ely"})
    assert not found.listed.wants(change.key, "d", lambda: {"place": "York"})
    # One that is replaced while a list is read is still listed as it was when the list began.
    [ely] = [one.key for one in store.by_keys(keys, vectors=False) if one.record.id == "ely"]
    await fields.remove([ely])
    assert ely not in found.selection.now() and found.listed.wants(ely, "ely", dict)


async def test_what_was_read_from_the_store_is_not_newer_than_the_index(store, made, monkeypatch):
    """While a picture is replaced, the index has its old key for a moment, and the store the new one."""
    fields = await made()
    monkeypatch.setattr(fields_module, "APPLIED_S", 30.0)
    (change,) = store.put_many([record("ely", place="Ely")])
    task = asyncio.create_task(fields.select(parse("place = Ely")))
    await fields.add([change.key], [record("ely", place="Ely")])
    assert not task.done()
    await fields.remove([change.replaced_key])
    assert (await task).matched == 1 and change.key in (await task).selection.now()


async def test_a_selection_that_cannot_follow_says_so_and_is_made_anew(store, made, monkeypatch):
    fields = await made("place")
    found = await fields.select(parse("place = Ely"))
    monkeypatch.setattr(change_log, "MOST", 2)
    for id in "abc":
        (change,) = store.put_many([record(id, place="Ely")])
        await fields.add([change.key], [record(id, place="Ely")])
    await fields.remove([])
    with pytest.raises(Overloaded, match="the filter cannot follow; try again"):
        found.selection.now()
    assert await ids(fields, store, "place = Ely") == "ely a b c"
    # Neither can one from before the index was built anew.
    found = await fields.select(parse("place = Ely"))
    await fields.load(store.metadata.scan())
    with pytest.raises(Overloaded):
        found.selection.now()
    assert (await fields.select(parse("place = Ely"))).matched == 4


@pytest.mark.parametrize("indexed", [("place",), ()], ids=["indexed", "read"])
async def test_a_change_counts_from_then_on_and_what_is_kept_is_shared(store, made, indexed):
    fields, wanted = await made(*indexed), parse('place = "Ely"')
    before = await fields.select(wanted)
    assert (await fields.select(parse('place = "Ely"'))).selection is before.selection
    (change,) = store.put_many([record("new", place="Ely")])
    await fields.add([change.key], [record("new", place="Ely")])
    await fields.remove([])
    assert await ids(fields, store, 'place = "Ely"') == "ely new"
    gone = store.delete("ely").replaced_key
    await fields.remove([gone])
    assert await ids(fields, store, 'place = "Ely"') == "new"
    assert await ids(fields, store, "NOT place = Ely") == "wells tate odd bare"


async def test_a_field_that_is_not_indexed_is_read_only_where_that_is_soon_done(made, monkeypatch):
    fields = await made("place")
    monkeypatch.setattr(fields_module, "SCANNED", 4)
    said = r"`?year is not indexed, and 5 pictures are too many .*landseer serve --index-field year`"
    with pytest.raises(InvalidInput, match=said):
        await fields.select(parse("place = Ely AND year > 3"))
    assert (await fields.select(parse("place = Ely AND id:e"))).matched == 1


@pytest.mark.parametrize("text", ["place:o AND id:e", "id:e OR id:x", "place != Ely AND place < M"])
async def test_a_filter_looks_through_so_much_and_no_more(made, store, monkeypatch, text):
    fields = await made("place")
    monkeypatch.setattr(fields_module, "LOOKED_THROUGH", 6)
    with pytest.raises(InvalidInput, match="too much to look through"):
        await fields.select(parse(text))
    # A whole text is looked up.
    for one in ("place = Ely OR place = York OR id = wells", "id:e"):
        assert await ids(fields, store, one)


async def test_a_filter_that_nobody_waits_for_ends(made):
    fields, stop = await made("place"), threading.Event()
    stop.set()
    with pytest.raises(Overloaded):
        fields._selected(parse("place:E AND id:e"), stop)


async def test_selections_are_kept_within_a_bound(made, monkeypatch):
    fields = await made("place")
    monkeypatch.setattr(fields_module, "KEPT_BYTES", 40_000)
    for year in range(20):
        await fields.select(parse(f"place = {year}"))
    assert len(fields._kept) < 5


async def test_figures_of_fields(made):
    stats = {one.name: (one.kind, one.pictures) for one in await (await made("year:number", "place")).stats()}
    assert stats == {"year": ("number", 3), "place": ("text", 4)}


def test_a_kind_is_one_of_a_few():
    assert indexed_field("year") == IndexedField(name="year", kind="text")
    assert indexed_field("exif:iso:number") == IndexedField(name="exif:iso", kind="number")
    for text in ("year:integer", ":number", "a:b"):
        with pytest.raises(ValueError, match="expected NAME or NAME:KIND with a kind of text, number"):
            indexed_field(text)


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        (number, {"-1.5e3": -1500.0, " 7 ": 7.0, ".5": 0.5}, ["", "1_000", "nan", "inf", "1e999", "0x1", "1,5"]),
        (
            moment,
            {"1970-01-02": 86400.0, "1970-01-01T01:00:00+01:00": 0.0},
            ["1970", "1970-13-01", "noon", "0001-01-01x"],
        ),
        (items, {'["a", 1]': ("a", "1"), "a, b ,": ("a", "b"), "": (), "[]": (), "[a": ("[a",)}, []),
    ],
)
def test_how_texts_are_read(read, good, bad):
    assert {text: read(text) for text in good} == good
    assert [text for text in bad if read(text) is not None] == []


VALUES = st.none() | st.sampled_from(["1", "2", "3.5", "x", "xy"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.lists(VALUES, max_size=6), st.sets(st.integers(0, 40), max_size=6)), max_size=8))
def test_columns_are_a_dictionary_after_any_changes(changes):
    columns, plain, key = Columns({"n": "number", "t": "text"}), {}, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns_module, "LEAST_DEAD", 3)
        for texts, removed in changes:
            added = {key + place: {} if text is None else {"n": text, "t": text} for place, text in enumerate(texts)}
            key += len(texts)
            columns.add(np.array([*added], np.int64), [*added.values()])
            columns.remove(np.array([*removed], np.int64))
            plain = {one: found for one, found in (plain | added).items() if one not in removed}
    assert columns.nbytes("t") >= 150 * len({found["t"] for found in plain.values() if found})
    for text, test in {
        "n >= 2": lambda found: found.get("n") in ("2", "3.5"),
        "t:x": lambda found: "x" in found.get("t", ""),
        "NOT t = x": lambda found: found.get("t") != "x",
    }.items():
        keys = columns.snapshot().select(parse(text), lambda comparison, keys: keys < 0)
        assert keys.tolist() == [one for one, found in sorted(plain.items()) if test(found)]
