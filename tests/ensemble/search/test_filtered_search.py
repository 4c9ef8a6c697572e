"""Filters, groups by a field, pages and metadata masks, end to end."""

from __future__ import annotations

import pytest
from fake_triton import SIZES
from grpc.aio import AioRpcError
from plain import PLAIN

from landseer.ensemble.api import page_tokens
from landseer.ensemble.filters.kinds import indexed_field
from landseer.ensemble.search.search import SearchRun
from landseer.ensemble.store import listing
from landseer.v1 import common_pb2, index_pb2, search_pb2

COUNT = 12
PLACES = ("Ely", "Wells", "York")
FIELDS = tuple(map(indexed_field, ("place", "year:number")))
WAYS = {
    "global": PLAIN,
    "default": {},
    "words": {"first_stage": search_pb2.FIRST_STAGE_WORDS},
    "expanded": PLAIN | {"expansion": {"method": search_pb2.EXPANSION_METHOD_ALPHA_QE, "neighbours": 5}},
    "dqe": PLAIN | {"expansion": {"method": search_pb2.EXPANSION_METHOD_DQE, "neighbours": 3}},
    "coattention": {"reranking": {"method": search_pb2.RERANKING_METHOD_COATTENTION}},
}


async def put(landseer, id, image, **metadata):
    picture = index_pb2.Picture(id=id, image=image, metadata=metadata)
    await landseer.index.Upsert(index_pb2.UpsertRequest(picture=picture))


async def filled(start, picture, **options):
    """Pictures p00 to p11 of three places in turn, one a year."""
    landseer = await start(index_fields=FIELDS, **options)
    for seed in range(COUNT):
        metadata = {"place": PLACES[seed % 3], "year": str(1990 + seed), "path": f"/p/{seed}"}
        await put(landseer, f"p{seed:02}", picture(seed), **metadata)
    return landseer


@pytest.fixture
async def album(start, picture):
    """Without keypoints, which take most of the time."""
    return await filled(start, picture, local_features="none")


@pytest.fixture
async def wordy(start, picture):
    return await filled(start, picture)


async def search(landseer, **fields):
    return await landseer.search.Search(search_pb2.SearchRequest(**fields))


async def listed(landseer, **fields):
    return await landseer.index.List(index_pb2.ListRequest(**fields))


def ids(answer):
    return [hit.id for hit in answer.hits]


async def test_a_filter_holds_in_every_kind_of_search(wordy, picture):
    for way, how in WAYS.items():
        answer = await search(wordy, image=picture(4, noise=4.0), filter="place = Wells AND year > 1991", **how)
        found = ids(answer)
        assert answer.matched == 3 and answer.index_size == COUNT and set(found) <= {"p04", "p07", "p10"}
        assert found[0] == "p04" and (len(found) == 3 or way == "words")
        assert answer.timings[0].stage == "filter" and not answer.degradations
        nothing = await search(wordy, image=picture(4), filter="year > 3000", **how)
        assert (list(nothing.hits), nothing.matched, nothing.HasField("matched")) == ([], 0, True)
    assert not (await search(wordy, id="p01", **PLAIN)).HasField("matched")
    query = search_pb2.Descriptor(values=[1.0] * SIZES.channels)
    found = ids(await search(wordy, descriptor=query, filter='id:"p0*" AND -place = Ely'))
    assert set(found) == {f"p{seed:02}" for seed in range(10) if seed % 3}


async def test_a_filtered_search_is_the_plain_one_without_the_others(album):
    plain = await search(album, id="p00", top_k=COUNT, **PLAIN)
    for wanted, keeps in {"place != Ely": lambda n: n % 3, "year >= 2000": lambda n: n >= 10}.items():
        answer = await search(album, id="p00", filter=wanted, **PLAIN)
        assert ids(answer) == [one for one in ids(plain) if keeps(int(one[1:]))]
        assert {hit.id: hit.score for hit in answer.hits}.items() <= {hit.id: hit.score for hit in plain.hits}.items()


async def test_a_mistake_in_a_request_names_its_field(album, rich):
    token = (await search(album, id="p00", page_size=3, **PLAIN)).next_page_token
    paged = {"page_size": 3, "page_token": token} | PLAIN
    mistakes = [
        (search, {"filter": "year > "}, "filter: year >: expected a value after column 6"),
        (
            search,
            {"filter": "year > soon"},
            "filter: year > soon: year is a number; expected 1990 at column 8, got soon",
        ),
        (search, {"group_by": search_pb2.GROUPING_FIELD}, "group_field: got ''; group_by GROUPING_FIELD and"),
        (search, {"group_field": "place"}, "group_field: got 'place'; group_by GROUPING_FIELD and"),
        (search, {"id": "p01"} | paged, "page_token: it belongs to another request"),
        (search, {"filter": "year > 3"} | paged, "page_token: it belongs to another request"),
        (search, paged | {"page_token": token[:-4]}, "page_token: it is no page token"),
        (search, paged | {"page_token": "é"}, "page_token: it is no page token"),
        (search, {"page_token": token}, "page_token: got a token without page_size"),
        (search, {"page_size": 11}, "page_size: got 11; expected 1 to 10"),
        (search, {"metadata_mask": common_pb2.MetadataMask(exclude=["a"] * 101)}, "metadata_mask.exclude: got 101"),
        (listed, {"filter": "year > "}, "filter: year >: expected a value after column 6"),
        (listed, {"filter": "year > soon"}, "filter: year > soon: year is a number"),
    ]
    for call, fields, message in mistakes:
        with pytest.raises(AioRpcError) as caught:
            await call(album, **(({"id": "p00"} if call is search else {}) | fields))
        found = rich(caught.value)
        assert found.message.startswith(message) and found.fields == [message.split(":")[0]]


async def test_a_picture_is_found_by_its_new_metadata_at_once(album, picture):
    await put(album, "p03", picture(3), place="Wells", year="2026")
    await album.index.Delete(index_pb2.DeleteRequest(id="p10"))
    answer = await search(album, id="p00", filter="place = Wells", **PLAIN)
    assert set(ids(answer)) == {"p01", "p03", "p04", "p07"} and answer.matched == 4
    stats = (await album.index.Stats(index_pb2.StatsRequest())).indexed_fields
    assert [(one.name, one.kind, one.pictures) for one in stats] == [("place", "text", 11), ("year", "number", 11)]


async def test_changes_while_the_query_is_described_are_found_and_told(album, picture, monkeypatch):
    first = await search(album, id="p00", page_size=3, top_k=5, **PLAIN)
    plain = SearchRun._resolve

    async def resolve(run):
        found = await plain(run)
        await put(album, "p04", picture(4), place="Wells", year="2000")
        await put(album, "new", picture(4, noise=1.0), place="Wells", year="2001")
        return found

    monkeypatch.setattr(SearchRun, "_resolve", resolve)
    answer = await search(album, image=picture(4), top_k=3, filter="place = Wells AND year >= 2000", **PLAIN)
    assert ids(answer)[:2] == ["p04", "new"] and answer.matched == 3
    second = await search(album, id="p00", page_size=2, top_k=5, page_token=first.next_page_token, **PLAIN)
    assert second.collection_changed
    # A mistake is told before the picture is described.
    described = len(album.triton.calls)
    with pytest.raises(AioRpcError):
        await search(album, image=picture(4), filter="year > soon", **PLAIN)
    assert len(album.triton.calls) == described


async def test_a_list_is_filtered_page_by_page(album, monkeypatch):
    monkeypatch.setattr(listing, "LOOKED_AT", 4)
    token, found, pages = "", [], 0
    while token or not pages:
        page = await listed(album, filter="place = York", page_size=3, page_token=token)
        assert page.matched == 4 and len(page.pictures) <= 3
        found += [one.id for one in page.pictures]
        token, pages = page.next_page_token, pages + 1
    assert found == ["p02", "p05", "p08", "p11"] and pages == 3
    both = await listed(album, prefix="p1", filter="place = York OR path:*")
    assert [one.id for one in both.pictures] == ["p10", "p11"]
    assert not (await listed(album)).HasField("matched")


async def test_the_best_hit_of_each_value_stands_for_the_others(album, picture):
    await put(album, "bare", picture(99))
    plain = ids(await search(album, id="p00", top_k=COUNT + 1, **PLAIN))
    by = {"group_by": search_pb2.GROUPING_FIELD, "group_field": "place"}
    answer = await search(album, id="p00", **by, **PLAIN)
    groups = {
        place: [one for one in plain if one[1:].isdigit() and PLACES[int(one[1:]) % 3] == place] for place in PLACES
    }
    groups[""] = ["bare"]
    assert {hit.group: [hit.id, *hit.grouped] for hit in answer.hits} == groups
    assert ids(answer) == sorted((group[0] for group in groups.values()), key=plain.index)
    assert answer.hits[0].near_identical == [] and answer.timings[-3].stage == "group"
    assert ids(await search(album, id="p00", top_k=2, **by, **PLAIN)) == ids(answer)[:2]


async def test_the_picture_of_a_page_is_hashed_once(album, picture, monkeypatch):
    hashed = []
    plain = page_tokens.hashlib.blake2b
    monkeypatch.setattr(
        page_tokens.hashlib, "blake2b", lambda data, **how: (hashed.append(len(data)), plain(data, **how))[1]
    )
    asked = {"image": picture(4), "top_k": 9, "page_size": 3} | PLAIN
    await pages(album, **asked)
    assert hashed == [len(asked["image"])] * 3


async def pages(landseer, **fields):
    found, token = [], ""
    while token or not found:
        found.append(await search(landseer, page_token=token, **fields))
        token = found[-1].next_page_token
    return found


async def test_pages_are_the_whole_answer_in_parts(wordy, picture):
    for way in ("global", "default", "coattention"):
        asked = {"image": picture(4), "top_k": 9, "filter": "year < 2001"} | WAYS[way]
        whole, parts = await search(wordy, **asked), await pages(wordy, page_size=4, **asked)
        assert [len(part.hits) for part in parts] == [4, 4, 1] and whole.next_page_token == ""
        assert [hit for part in parts for hit in part.hits] == list(whole.hits)
        assert not any(part.collection_changed for part in parts)
    first = await search(wordy, id="p00", page_size=3, **PLAIN)
    await put(wordy, "new", picture(50))
    second = await search(wordy, id="p00", page_size=3, page_token=first.next_page_token, **PLAIN)
    third = await search(wordy, id="p00", page_size=5, page_token=second.next_page_token, **PLAIN)
    assert second.collection_changed and third.collection_changed
    assert (len(third.hits), third.next_page_token) == (4, "")


async def test_masks_choose_metadata_in_every_answer(album):
    some = common_pb2.MetadataMask(include=["p*", "year"], exclude=["path"])
    (hit, *_) = (await search(album, id="p00", metadata_mask=some, **PLAIN)).hits
    got = await album.index.Get(index_pb2.GetRequest(id="p00", metadata_mask=some))
    (first, *_) = (await listed(album, include_metadata=True, metadata_mask=some)).pictures
    assert set(hit.metadata) == {"place", "year"}
    assert dict(got.metadata) == dict(first.metadata) == {"place": "Ely", "year": "1990"}
    none = common_pb2.MetadataMask(exclude=["*"])
    assert not (await album.index.Get(index_pb2.GetRequest(id="p00", metadata_mask=none))).metadata
