"""Filters, groups by a field, pages and fields in the client and its commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from landseer.client import BlockingSearchClient, SearchClient
from landseer.client.commands.stats import _rows
from landseer.client.errors import UnusableInput
from landseer.v1.index_pb2 import IndexedFieldStats, StatsResponse
from landseer.v1.search_pb2 import GROUPING_FIELD, Hit, SearchResponse

FILTER = 'place = "Ely" AND year > 1990'


async def test_options_of_the_client_reach_their_fields(fake) -> None:
    async with SearchClient(fake.address) as client:
        paged = {"page_size": 5, "page_token": "t"}
        await client.search("a", filter=FILTER, group_by="field:album", fields=["p*", "-path"], **paged)
        await client.list_page("x", filter=FILTER, fields=["year"], include_metadata=True)
        with pytest.raises(UnusableInput, match="expected one of none, near-identical or field:NAME"):
            await client.search("a", group_by="field:")
    sent, listed = fake.requests["Search"][0], fake.requests["List"][0]
    assert (sent.filter, sent.group_by, sent.group_field) == (FILTER, GROUPING_FIELD, "album")
    assert (sent.page_size, sent.page_token) == (5, "t")
    assert (list(sent.metadata_mask.include), list(sent.metadata_mask.exclude)) == (["p*"], ["path"])
    assert (listed.filter, list(listed.metadata_mask.include)) == (FILTER, ["year"])


def test_lists_of_either_client_are_filtered_on_every_page(fake, run, photos: Path) -> None:
    run("index", "photos")
    with BlockingSearchClient(fake.address) as client:
        assert len(list(client.list(filter=FILTER, fields=["year"], include_metadata=True))) == 3
    run("list", "--filter", FILTER)
    run("list", "--filter", FILTER, "--json", "--fields=-path")
    assert len(fake.requests["List"]) == 6 and {sent.filter for sent in fake.requests["List"]} == {FILTER}
    assert list(fake.requests["List"][-1].metadata_mask.exclude) == ["path"]
    status, _, err = run("list", "--fields", "year")
    assert status != 0 and "--fields needs --json" in err


def test_search_shows_groups_fields_and_the_next_page(fake, run) -> None:
    hits = [Hit(id="a", score=2, group="Ely", grouped=["b", "c"], metadata={"year": "1083"}), Hit(id="d", score=1)]
    fake.answer = SearchResponse(hits=hits, index_size=1000, matched=7, next_page_token="tok", collection_changed=True)
    how = ("--filter", FILTER, "--group-by", "field:place", "--fields", "year", "--page-size", "2")
    _, out, err = run("search", "--id", "x", *how, "--page-token", "before")
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["rank", "score", "in", "group", "id", "year"] and ["1", "2.0000", "+2", "a", "1083"] in rows
    assert "7 of 1,000 pictures searched" in out and "next page: the same with --page-token tok" in out
    assert "indexed or deleted since the first page" in err
    told = json.loads(run("search", "--id", "x", *how, "--json")[1])
    assert (told["matched"], told["next_page_token"], told["hits"][0]["grouped"]) == (7, "tok", ["b", "c"])
    sent = fake.requests["Search"][0]
    assert (sent.filter, sent.group_field, sent.page_size, sent.page_token) == (FILTER, "place", 2, "before")


def test_search_says_when_a_filter_lets_nothing_through(fake, run) -> None:
    fake.answer = SearchResponse(index_size=3, matched=0)
    assert "no hits: the filter lets no picture through" in run("search", "--id", "x", "--filter", "a = 1")[1]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--page-token", "t"], "--page-token needs --page-size"),
        (["--group-by", "place"], "expected one of none, near-identical or field:NAME"),
        (["--fields", "a,,b"], "expected names such as place,year or -path"),
    ],
)
def test_options_that_cannot_work_are_refused(run, arguments, line, capsys) -> None:
    try:
        status, _, err = run("search", "--id", "x", *arguments)
    except SystemExit as ended:
        status, err = ended.code, capsys.readouterr().err
    assert status != 0 and line in err


def test_get_asks_for_fields(fake, run, photos: Path) -> None:
    run("index", "photos")
    run("get", "photos/a.jpg", "--fields", "path")
    assert list(fake.requests["Get"][-1].metadata_mask.include) == ["path"]


def test_stats_name_indexed_fields() -> None:
    field = IndexedFieldStats(name="year", kind="number", pictures=3, bytes=2048)
    assert _rows(StatsResponse(indexed_fields=[field]))["indexed fields"].startswith("year (number) of 3 pictures, 2")
