from __future__ import annotations

import re
from datetime import datetime, timezone
from html.parser import HTMLParser

import pytest

from landseer.client.hits_page import render
from landseer.client.query_picture import EMBED_LIMIT, QueryPicture
from landseer.v1.common_pb2 import Box, Degradation, DetectedBox, Heatmap, ModelVersion, StageTiming
from landseer.v1.index_pb2 import GetResponse
from landseer.v1.search_pb2 import (
    Hit,
    HitExplanation,
    Point,
    PointMatch,
    QueryExplanation,
    SearchResponse,
    StageScores,
    Verification,
    Via,
)

JPEG = b"\xff\xd8\xffthumbnail"
HOSTILE = "<script>alert('1')</script>\"'&\n\x1b[2J\u202e${gradient}$title"
VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """Collects elements and text; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, kind: str = "") -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag and kind in (attrs.get("class") or "").split(" ")]


def answer(text: str = "photos/a.jpg", **changes) -> SearchResponse:
    heat = Heatmap(width=2, height=2, values=[0, 0.5, 0.25, 0.25])
    boxes = [DetectedBox(box=Box(x=10, y=10, width=50, height=25), score=0.75)]
    hit = Hit(id=text, score=0.9, metadata={text: text}, width=200, height=100)
    hit.scores.CopyFrom(StageScores(**{"global": 0.5, "coattention": -0.2}))
    hit.explanation.CopyFrom(HitExplanation(thumbnail=JPEG, coattention=heat, boxes=boxes))
    told = QueryExplanation(thumbnail=JPEG, width=400, height=200, attention=heat, boxes=boxes)
    told.region.CopyFrom(Box(x=100, y=50, width=200, height=100))
    fields = {
        "hits": [hit, Hit(id="bare", score=0.1)],
        "timings": [StageTiming(stage=text, seconds=0.05), StageTiming(stage="total", seconds=0.1)],
        "model_versions": [ModelVersion(name=text, version=text)],
        "degradations": [Degradation(stage=text, reason=text)],
        "untrained": [text],
        "index_size": 1234,
        "query_explanation": told,
    }
    return SearchResponse(**(fields | changes))


def verified(text: str = "same.jpg", **changes) -> SearchResponse:
    """An answer with a hit that shows the same thing, one that does not, and one that was not verified."""
    same, other = answer(text).hits[0], answer(text).hits[0]
    corners = [Point(x=20, y=10), Point(x=180, y=10), Point(x=180, y=90), Point(x=20, y=90)]
    same.verification.CopyFrom(Verification(inliers=40, probability=0.987, outline=corners))
    same.explanation.matches.append(PointMatch(query=Point(x=100, y=50), hit=Point(x=50, y=25)))
    other.verification.CopyFrom(Verification(inliers=5, probability=0.02, outline=corners, via=Via(id=text)))
    return answer(text, **({"hits": [same, other, Hit(id="bare", score=0.1)]} | changes))


def checked(shown: Page, id: str) -> bool:
    return next("checked" in attrs for attrs in shown.all("input") if attrs["id"] == id)


def page(response: SearchResponse, image: bytes = JPEG, name: str = "q.jpg") -> Page:
    made = datetime(2026, 1, 31, 12, 0, tzinfo=timezone.utc)
    return Page(render(response, query=QueryPicture.of_query(response, image), query_name=name, made=made))


def test_everything_is_on_the_page() -> None:
    shown = page(answer())
    for text in ("q.jpg", "1,234 pictures searched in 100 ms", "31 January 2026", "2 hits", "0.9000", "0.500", "50 ms"):
        assert text in shown.text
    assert "Not trained: photos/a.jpg." in shown.text
    assert "was skipped: photos/a.jpg" in shown.text
    assert "where co-attention looked" in shown.text


def test_hostile_text_stays_text() -> None:
    plain, hostile = page(verified()), page(verified(HOSTILE), name=HOSTILE)
    assert [tag for tag, _ in plain.elements] == [tag for tag, _ in hostile.elements]
    assert [set(attrs) for _, attrs in plain.elements] == [set(attrs) for _, attrs in hostile.elements]
    assert "<script>alert('1')</script>" in hostile.text
    assert "${gradient}$title" in hostile.text
    assert not re.search("[\x1b\u202e]", hostile.text)


def test_a_hit_names_the_near_identical_pictures_that_it_stands_for() -> None:
    alone, grouped = answer(), answer()
    grouped.hits[0].near_identical.extend(["photos/a-small.jpg", HOSTILE])
    shown = page(grouped)
    assert "+2 near-identical" in shown.text and "photos/a-small.jpg" in shown.text
    assert len(shown.all("details", "copies")) == 1 and "<script>alert('1')</script>" in shown.text
    assert not page(alone).all("details", "copies")


def test_the_page_needs_no_network_and_runs_nothing() -> None:
    shown = page(verified(HOSTILE))
    policy = next(attrs["content"] for attrs in shown.all("meta") if "http-equiv" in attrs)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert all((attrs["src"] or "").startswith("data:image/") for attrs in shown.all("img"))
    assert not shown.all("script") and not shown.all("link")
    assert not any(name.startswith("on") or name == "href" for _, attrs in shown.elements for name in attrs)


def test_every_picture_has_an_alternative_text() -> None:
    shown = page(answer())
    assert all(attrs.get("alt") for attrs in shown.all("img") if "heat" not in (attrs.get("class") or ""))


def test_boxes_and_regions_lie_where_they_belong() -> None:
    shown = page(answer())
    assert shown.all("span", "region")[0]["style"] == "left:25.00%;top:25.00%;width:50.00%;height:50.00%"
    query_box, hit_box = shown.all("span", "box")
    assert query_box["style"] == "left:2.50%;top:5.00%;width:12.50%;height:12.50%"
    assert hit_box["style"] == "left:5.00%;top:10.00%;width:25.00%;height:25.00%"
    over_region, over_hit = shown.all("img", "heat")
    assert over_region["style"] == "left:25.00%;top:25.00%;width:50.00%;height:50.00%"
    assert over_hit["style"] == "left:0.00%;top:0.00%;width:100.00%;height:100.00%"


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(9), "data:image/png"),
        (b"RIFF1234WEBP", "data:image/webp"),
        (b"\xff\xd8\xff" + bytes(EMBED_LIMIT), "data:image/jpeg;base64,/9j/dGh1"),
        (b"II*\0tiff", "data:image/jpeg;base64,/9j/dGh1"),
    ],
)
def test_the_original_is_shown_where_a_browser_can(image: bytes, shown: str) -> None:
    assert (page(answer(), image).all("img")[0]["src"] or "").startswith(shown)


def test_a_bare_answer() -> None:
    shown = page(SearchResponse(hits=[Hit(id="a", score=0.5)], index_size=1), image=b"II*\0")
    assert "1 hit" in shown.text
    assert "1 picture searched" in shown.text
    assert "no thumbnail" in shown.text
    assert not shown.all("img") and not shown.all("span", "region")


def test_no_hits_and_no_picture() -> None:
    assert "The index is empty." in Page(render(SearchResponse(), query=None, query_name="d")).text
    assert "No pictures found." in Page(render(SearchResponse(index_size=2), query=None, query_name="d")).text


def test_an_indexed_picture_as_the_query() -> None:
    found = GetResponse(id="a", thumbnail=JPEG, width=40, height=20)
    shown = Page(render(SearchResponse(), query=QueryPicture.of_indexed(found), query_name="a"))
    assert len(shown.all("img")) == 1


def test_inliers_are_counted_and_explained() -> None:
    scores = [StageScores(inliers=40, **{"global": 0.5}), StageScores(inliers=10, **{"global": 0.6})]
    hits = [Hit(id=f"p{count}", score=score.inliers + 0.75, scores=score) for count, score in enumerate(scores)]
    shown = page(answer(hits=hits))
    assert "number of inliers" in shown.text and "Scores are cosines: 1" not in shown.text
    lengths = [attrs["style"] for attrs in shown.all("i") if attrs.get("style")]
    assert "width:100.00%" in lengths and "width:25.00%" in lengths
    assert "number of inliers" not in page(answer()).text


def test_a_hit_of_the_same_thing_says_so_and_is_outlined() -> None:
    shown = page(verified())
    assert "same thing, 99%" in shown.text and shown.text.count("not verified") == 2
    assert len(shown.all("svg", "outline")) == 1
    assert checked(shown, "outlines") and not checked(shown, "boxes")
    assert "the probability that both show the same thing" in shown.text
    assert shown.text.count("recognised via same.jpg") == 1


def test_patches_are_counted_where_any_agree() -> None:
    def bars(response: SearchResponse) -> list[tuple[str, str]]:
        html = render(response, query=None, query_name="q.jpg")
        return re.findall(r'<dt>patches</dt><dd [^>]+><i style="width:(.+?)"></i></dd>\n?<dd>(\d+)', html)

    told = verified()
    assert bars(told) == []
    told.hits[0].verification.patches, told.hits[1].verification.patches = 80, 20
    assert bars(told) == [("100.00%", "80"), ("25.00%", "20")], "none for the hit that was not verified"
    assert "local features of the backbone" in page(told).text


def test_without_verification_the_page_is_silent_about_it() -> None:
    shown = page(answer())
    assert "not verified" not in shown.text and "probability" not in shown.text
    assert checked(shown, "boxes") and not any(attrs["id"] == "outlines" for attrs in shown.all("input"))
    assert not shown.all("svg") and "url(" not in shown.text


def test_the_query_is_embedded_once_for_all_drawings_of_matches() -> None:
    hit = verified().hits[0]
    shown = page(verified(hits=[hit, hit]))
    assert len(shown.all("details", "matches")) == 2
    assert shown.text.count('.query-picture { background-image: url("data:image/jpeg;base64,') == 1


def test_matches_are_drawn_only_with_a_picture_of_the_query() -> None:
    response = verified()
    response.query_explanation.thumbnail = b""
    assert not page(response).all("details", "matches")
    assert not Page(render(verified(), query=None, query_name="d")).all("details", "matches")
