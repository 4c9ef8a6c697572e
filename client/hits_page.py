"""Renders a search as one self-contained HTML page: the query, its attention, the hits and why they match.

The page loads nothing and runs no script; its content security policy forbids both. Ids, metadata and messages are
untrusted text and are escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import resources
from string import Template

from landseer.client import match_drawing
from landseer.client.heatmap import css_gradient, overlay
from landseer.client.markup import data_url, escaped, percent, ratio
from landseer.client.query_picture import QueryPicture
from landseer.client.readable import duration, one_line, plural
from landseer.client.scores import STAGES, copies_of, is_same, patches_of, sameness, score_of, searched, via_of
from landseer.v1.common_pb2 import Box, DetectedBox, Heatmap
from landseer.v1.search_pb2 import Hit, SearchResponse

_COSINES = "Scores are cosines: 1 is the same direction, 0 is unrelated. Scores by words run from 0 to 1."
_VERIFIED = (
    "A score is the logarithm of the odds that the hit shows the same thing, up to a constant: from its inliers, the "
    "keypoints that agree on one map from the query to the hit, from its patches, local features of the backbone that "
    "do, and from how much nearer it is than other hits by the global descriptor, and its rank by words. Scores of "
    "other stages are cosines; those by words run from 0 to 1."
)
_INLIERS = (
    "A score is the number of inliers, local features that match the query under one affine map, plus "
    "(1 + the score before) / 2. Scores of other stages are cosines; those by words run from 0 to 1."
)
_SAME = (
    "The outline is where a hit shows the part of the query that matched, and the percentage the probability that both "
    "show the same thing."
)
_HIT_BOXES = 3
_VIEW_REM = 27
"""Largest height of the query pictures, in rem."""


@dataclass(frozen=True, kw_only=True)
class _Card:
    """A hit and what to draw of its verification."""

    rank: int
    hit: Hit
    outline: str
    matches: str

    @classmethod
    def of(cls, rank: int, hit: Hit, query: QueryPicture | None) -> _Card:
        matches = match_drawing.figure(hit, query.width, query.height) if query and query.small else ""
        return cls(rank=rank, hit=hit, outline=match_drawing.outline(hit), matches=matches)


def render(answer: SearchResponse, *, query: QueryPicture | None, query_name: str, made: datetime | None = None) -> str:
    """Return the page for the response to a search with `explain`. `query` is None for a raw descriptor."""
    looked = any(hit.explanation.HasField("coattention") for hit in answer.hits)
    verified = any(hit.HasField("verification") for hit in answer.hits)
    most = {
        "inliers": max((hit.scores.inliers for hit in answer.hits), default=0),
        "patches": max((hit.verification.patches for hit in answer.hits), default=0),
    }
    cards = [_Card.of(rank, hit, query) for rank, hit in enumerate(answer.hits, start=1)]
    name = escaped(query_name)
    page = Template(resources.files("landseer.client").joinpath("hits_page.html").read_text(encoding="utf-8"))
    return page.substitute(
        title=f"Landseer: hits for {name}",
        heading=name,
        summary=_summary(answer, made or datetime.now(timezone.utc)),
        notes=_notes(answer),
        gradient=css_gradient(),
        views=_views(query),
        facts=_timings(answer) + _models(answer) + _legend(looked or bool(query and query.attention.values)),
        count=plural(len(answer.hits), "hit"),
        query_picture=_query_picture(query) if any(card.matches for card in cards) else "",
        controls=_controls(outlined=any(card.outline for card in cards), looked=looked),
        layout="paired" if looked else "plain",
        hits="\n".join(_hit(card, most=most, verified=verified) for card in cards),
        footer=_footer(answer),
    )


def _summary(answer: SearchResponse, made: datetime) -> str:
    took = next((f" in {duration(t.seconds)}" for t in answer.timings if t.stage == "total"), "")
    return f"{searched(answer)} searched{took}, {made:%-d %B %Y, %H:%M} {escaped(made.tzname() or '')}"


def _notes(answer: SearchResponse) -> str:
    skipped = [(escaped(gone.stage), escaped(gone.reason)) for gone in answer.degradations]
    notes = [f"<strong>{stage}</strong> was skipped: {reason}" for stage, reason in skipped]
    if answer.untrained:
        names = ", ".join(map(escaped, answer.untrained))
        notes.append(
            f"<strong>Not trained: {names}.</strong> These results used random weights. "
            "They show that the system runs, not how good it can be."
        )
    if not answer.hits:
        notes.append("No pictures found." if answer.index_size else "The index is empty.")
    return "\n".join(f'<p class="note" role="note">{note}</p>' for note in notes)


def _views(query: QueryPicture | None) -> str:
    if query is None:
        return '<p class="soft">The query was a descriptor; there is no picture to show.</p>'
    region = _region(query)
    boxes = _boxes(query.boxes, query.width, query.height)
    found = f", {plural(len(query.boxes), 'box', 'boxes')} found" if query.boxes else ""
    caption = f"The query{', with the region searched for' if region else ''}{found}"
    frame = _frame(query.image, query.width, query.height, alt="The query picture", over=region + boxes)
    views = [_view(frame, caption, query)]
    heat = _heat(query.attention, query.region, query.width, query.height)
    if heat:
        alt = "The query picture with its localisation attention"
        frame = _frame(query.image, query.width, query.height, alt=alt, over=heat + region, heated=True)
        views.append(_view(frame, "Localisation attention: where the model sees an object", query))
    return "\n".join(views)


def _view(frame: str, caption: str, query: QueryPicture) -> str:
    """Limit a frame's width so that its height fits a screen; the caption below may be wider than a narrow frame."""
    wide = _VIEW_REM * ratio(query.width, query.height)
    return (
        f'<figure style="max-width:min(100%, {max(wide, 12):.2f}rem)"><div style="width:min(100%, {wide:.2f}rem)">'
        f"{frame}</div><figcaption>{caption}</figcaption></figure>"
    )


def _query_picture(query: QueryPicture | None) -> str:
    """Return the background of the class `query-picture`: one copy for the drawings of all hits."""
    return f'.query-picture {{ background-image: url("{data_url(query.small)}"); }}' if query else ""


def _hit(card: _Card, *, most: Mapping[str, int], verified: bool) -> str:
    rank, hit, why = card.rank, card.hit, card.hit.explanation
    over = _boxes(why.boxes[:_HIT_BOXES], hit.width, hit.height) + card.outline
    name = f"Hit {rank}, {one_line(hit.id)}"
    alt = f"{name}, with the thing outlined" if card.outline else name
    frames = [(_frame(why.thumbnail, hit.width, hit.height, alt=alt, over=over), "", "the picture")]
    if why.HasField("coattention"):
        heat = _heat(why.coattention, None, hit.width, hit.height)
        alt = f"{name}: where co-attention looked"
        heated = _frame(why.thumbnail, hit.width, hit.height, alt=alt, over=heat, heated=True)
        frames.append((heated, "looked", "where co-attention looked"))
    return (
        f'<li class="hit"><header><span class="rank"><span aria-label="rank {rank}">{rank}</span></span>'
        f'<span class="score">{_verdict(hit, verified)}<span>score</span>{hit.score:.4f}</span></header>'
        f'<div class="pair">{_pair(frames, hit)}</div>'
        f'<p class="id">{escaped(hit.id)}</p>{_via(hit)}{_copies(hit)}{_scores(hit, most)}{card.matches}'
        f"{_metadata(hit)}</li>"
    )


def _verdict(hit: Hit, verified: bool) -> str:
    """Say how sure verification is of a hit; nothing where no hit of the answer was `verified`."""
    if is_same(hit):
        return f'<b class="same">same thing, {sameness(hit)}</b>'
    return '<i class="unsure">not verified</i>' if verified else ""


def _pair(frames: Sequence[tuple[str, str, str]], hit: Hit) -> str:
    """Place frames side by side in squares, each as large as its aspect ratio allows."""
    share = 100 * min(1.0, ratio(hit.width, hit.height))
    return "".join(
        f'<figure class="{kind}"><div class="well"><div style="width:{share:.2f}%">{frame}</div></div>'
        + (f"<figcaption>{caption}</figcaption></figure>" if len(frames) > 1 else "</figure>")
        for frame, kind, caption in frames
    )


def _scores(hit: Hit, most: Mapping[str, int]) -> str:
    """Return a bar for each stage that scored the hit. Those of counts are relative to the largest of any hit."""
    ran = [(stage, label) for stage, label in STAGES.items() if hit.scores.HasField(stage)]
    lengths = {stage: getattr(hit.scores, stage) / max(most.get(stage, 1), 1) for stage, _ in ran}
    bars = [(label, lengths[stage], score_of(hit, stage, digits=3)) for stage, label in ran]
    if most["patches"] and hit.HasField("verification"):
        bars.append(("patches", hit.verification.patches / most["patches"], patches_of(hit)))
    return _bars(bars)


def _via(hit: Hit) -> str:
    """Say by which other hit this one was recognised."""
    return f'<p class="soft">recognised via {escaped(via_of(hit))}</p>' if via_of(hit) else ""


def _copies(hit: Hit) -> str:
    """Return how many near-identical pictures the hit stands for; their ids unfold."""
    others = hit.near_identical or hit.grouped
    if not others:
        return ""
    ids = "".join(f"<li>{escaped(id)}</li>" for id in others)
    what = "near-identical" if hit.near_identical else f"of {escaped(hit.group)}"
    return f'<details class="copies"><summary>{copies_of(hit)} {what}</summary><ul>{ids}</ul></details>'


def _metadata(hit: Hit) -> str:
    pairs = "".join(f"<dt>{escaped(key)}</dt><dd>{escaped(hit.metadata[key])}</dd>" for key in sorted(hit.metadata))
    size = f"<dt>size</dt><dd>{hit.width} &times; {hit.height} px</dd>" if hit.width and hit.height else ""
    return f"<details><summary>Details</summary><dl>{size}{pairs}</dl></details>" if size or pairs else ""


def _timings(answer: SearchResponse) -> str:
    stages = [timing for timing in answer.timings if timing.stage != "total"]
    total = next((t.seconds for t in answer.timings if t.stage == "total"), sum(t.seconds for t in stages))
    if not stages:
        return ""
    bars = _bars((escaped(t.stage), t.seconds / (total or 1.0), duration(t.seconds)) for t in stages)
    return f"<div><h3>Time by stage, {duration(total)} in total</h3>{bars}</div>"


def _models(answer: SearchResponse) -> str:
    if not answer.model_versions:
        return ""
    items = "".join(f"<li>{escaped(model.name)} {escaped(model.version)}</li>" for model in answer.model_versions)
    return f'<div><h3>Models and versions</h3><ul class="models">{items}</ul></div>'


def _legend(shown: bool) -> str:
    if not shown:
        return ""
    return (
        '<div><h3>Heat maps</h3><div class="legend">least <i role="img" aria-label="from transparent through violet '
        'and orange to pale yellow"></i> most</div>'
        '<p class="soft">Each map is scaled to its own maximum.</p></div>'
    )


def _controls(*, outlined: bool, looked: bool) -> str:
    """Return the switches. Where outlines show the thing, the boxes of its picture start hidden."""
    outlines = '<label><input type="checkbox" id="outlines" checked> Outlines</label>' if outlined else ""
    boxes = f'<label><input type="checkbox" id="boxes"{"" if outlined else " checked"}> Boxes</label>'
    heat = '<label><input type="checkbox" id="heat" checked> Where co-attention looked</label>' if looked else ""
    return outlines + boxes + heat


def _footer(answer: SearchResponse) -> str:
    if any(hit.HasField("verification") for hit in answer.hits):
        scores = _VERIFIED
    else:
        scores = _INLIERS if any(hit.scores.HasField("inliers") for hit in answer.hits) else _COSINES
    same = f" {_SAME}" if any(map(is_same, answer.hits)) else ""
    return scores + same


def _bars(rows: Iterable[tuple[str, float, str]]) -> str:
    """Return a list of bars. Each row is an escaped label, a length in [0, 1] and the text after the bar."""
    cells = "".join(
        f'<dt>{label}</dt><dd class="track" aria-hidden="true"><i style="width:{percent(length)}"></i></dd>'
        f"<dd>{value}</dd>"
        for label, length, value in rows
    )
    return f'<dl class="bars">{cells}</dl>' if cells else ""


def _frame(image: bytes, width: int, height: int, *, alt: str, over: str, heated: bool = False) -> str:
    """Return a picture with its aspect ratio kept and `over` on top of it."""
    shape = f'style="aspect-ratio:{ratio(width, height):.4f}"'
    if not image:
        return f'<div class="frame empty" {shape} role="img" aria-label="{escaped(alt)}">no thumbnail</div>'
    kind = "frame heated" if heated else "frame"
    return f'<div class="{kind}" {shape}><img src="{data_url(image)}" alt="{escaped(alt)}">{over}</div>'


def _heat(heatmap: Heatmap, region: Box | None, width: int, height: int) -> str:
    picture = overlay(heatmap)
    if not picture:
        return ""
    place = _place(region or Box(width=width, height=height), width, height)
    return f'<img class="heat" src="{data_url(picture)}" alt="" style="{place}">'


def _region(query: QueryPicture) -> str:
    box = query.region
    if box is None or (box.width >= query.width and box.height >= query.height):
        return ""
    return f'<span class="region" style="{_place(box, query.width, query.height)}"></span>'


def _boxes(boxes: Sequence[DetectedBox], width: int, height: int) -> str:
    return "".join(
        f'<span class="box{" lesser" if place else ""}" style="{_place(found.box, width, height)}">'
        f"<b>{found.score:.2f}</b></span>"
        for place, found in enumerate(boxes)
    )


def _place(box: Box, width: int, height: int) -> str:
    across, down = max(width, 1), max(height, 1)
    return (
        f"left:{percent(box.x / across)};top:{percent(box.y / down)};"
        f"width:{percent(box.width / across)};height:{percent(box.height / down)}"
    )
