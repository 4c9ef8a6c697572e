"""Renders a search as one self-contained HTML page: the query, its attention, the hits and why they match.

The page loads nothing and runs no script; its content security policy forbids both. Ids, metadata and messages are
untrusted text and are escaped.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import resources
from string import Template

from landseer.client.heatmap import css_gradient, overlay
from landseer.client.readable import duration, one_line, plural
from landseer.client.scores import STAGES, score_of
from landseer.v1.common_pb2 import Box, DetectedBox, Heatmap
from landseer.v1.index_pb2 import GetResponse
from landseer.v1.search_pb2 import Hit, SearchResponse

EMBED_LIMIT = 1_500_000
"""Largest query picture, in bytes, to embed as it is. For larger ones the server's thumbnail is shown."""
_COSINES = "Scores are cosines: 1 is the same direction, 0 is unrelated. Scores by words run from 0 to 1."
_VERIFIED = (
    "A score is the number of inliers, local features that match the query under one affine map, plus "
    "(1 + the score before) / 2. Scores of other stages are cosines; those by words run from 0 to 1."
)
_HIT_BOXES = 3
_VIEW_REM = 27
"""Largest height of the query pictures, in rem."""


@dataclass(frozen=True, kw_only=True)
class QueryPicture:
    """The query picture and what to draw on it."""

    image: bytes
    """In a format that browsers show; empty if there is none."""
    width: int
    height: int
    """Size of the whole picture, in the pixels of `region` and `boxes`."""
    region: Box | None = None
    """The part searched for; None for the whole picture."""
    attention: Heatmap = field(default_factory=Heatmap)
    """Covers `region`."""
    boxes: Sequence[DetectedBox] = ()

    @classmethod
    def of_query(cls, answer: SearchResponse, image: bytes) -> QueryPicture:
        """Build it from the server's explanation of a picture that was sent."""
        told = answer.query_explanation
        sharp = len(image) <= EMBED_LIMIT and _media(image) in ("image/jpeg", "image/png", "image/webp")
        return cls(
            image=image if sharp else told.thumbnail,
            width=told.width,
            height=told.height,
            region=told.region if told.HasField("region") else None,
            attention=told.attention,
            boxes=tuple(told.boxes),
        )

    @classmethod
    def of_indexed(cls, found: GetResponse) -> QueryPicture:
        """Build it from the record of the indexed picture that was searched for."""
        return cls(image=found.thumbnail, width=found.width, height=found.height, boxes=tuple(found.boxes))


def render(answer: SearchResponse, *, query: QueryPicture | None, query_name: str, made: datetime | None = None) -> str:
    """Return the page for the response to a search with `explain`. `query` is None for a raw descriptor."""
    looked = any(hit.explanation.HasField("coattention") for hit in answer.hits)
    verified = any(hit.scores.HasField("inliers") for hit in answer.hits)
    most = max((hit.scores.inliers for hit in answer.hits), default=0)
    name = _text(query_name)
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
        controls=_controls(looked),
        layout="paired" if looked else "plain",
        hits="\n".join(_hit(rank, hit, most) for rank, hit in enumerate(answer.hits, start=1)),
        footer=_VERIFIED if verified else _COSINES,
    )


def _summary(answer: SearchResponse, made: datetime) -> str:
    searched = f"{plural(answer.index_size, 'picture')} searched"
    took = next((f" in {duration(t.seconds)}" for t in answer.timings if t.stage == "total"), "")
    return f"{searched}{took}, {made:%-d %B %Y, %H:%M} {_text(made.tzname() or '')}"


def _notes(answer: SearchResponse) -> str:
    notes = [f"<strong>{_text(gone.stage)}</strong> was skipped: {_text(gone.reason)}" for gone in answer.degradations]
    if answer.untrained:
        names = ", ".join(map(_text, answer.untrained))
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
    wide = _VIEW_REM * _ratio(query.width, query.height)
    return (
        f'<figure style="max-width:min(100%, {max(wide, 12):.2f}rem)"><div style="width:min(100%, {wide:.2f}rem)">'
        f"{frame}</div><figcaption>{caption}</figcaption></figure>"
    )


def _hit(rank: int, hit: Hit, most: int) -> str:
    why = hit.explanation
    boxes = _boxes(why.boxes[:_HIT_BOXES], hit.width, hit.height)
    name = f"Hit {rank}, {one_line(hit.id)}"
    frames = [(_frame(why.thumbnail, hit.width, hit.height, alt=name, over=boxes), "", "the picture")]
    if why.HasField("coattention"):
        heat = _heat(why.coattention, None, hit.width, hit.height)
        alt = f"{name}: where co-attention looked"
        heated = _frame(why.thumbnail, hit.width, hit.height, alt=alt, over=heat, heated=True)
        frames.append((heated, "looked", "where co-attention looked"))
    return (
        f'<li class="hit"><header><span class="rank"><span aria-label="rank {rank}">{rank}</span></span>'
        f'<span class="score"><span>score</span>{hit.score:.4f}</span></header>'
        f'<div class="pair">{_pair(frames, hit)}</div>'
        f'<p class="id">{_text(hit.id)}</p>{_scores(hit, most)}{_metadata(hit)}</li>'
    )


def _pair(frames: Sequence[tuple[str, str, str]], hit: Hit) -> str:
    """Place frames side by side in squares, each as large as its aspect ratio allows."""
    share = 100 * min(1.0, _ratio(hit.width, hit.height))
    return "".join(
        f'<figure class="{kind}"><div class="well"><div style="width:{share:.2f}%">{frame}</div></div>'
        + (f"<figcaption>{caption}</figcaption></figure>" if len(frames) > 1 else "</figure>")
        for frame, kind, caption in frames
    )


def _scores(hit: Hit, most: int) -> str:
    """Return a bar for each stage that scored the hit. The bar of inliers is relative to `most`, the largest of any."""
    ran = [(stage, label) for stage, label in STAGES.items() if hit.scores.HasField(stage)]
    lengths = {stage: getattr(hit.scores, stage) / (max(most, 1) if stage == "inliers" else 1) for stage, _ in ran}
    return _bars((label, lengths[stage], score_of(hit, stage, digits=3)) for stage, label in ran)


def _metadata(hit: Hit) -> str:
    pairs = "".join(f"<dt>{_text(key)}</dt><dd>{_text(hit.metadata[key])}</dd>" for key in sorted(hit.metadata))
    size = f"<dt>size</dt><dd>{hit.width} &times; {hit.height} px</dd>" if hit.width and hit.height else ""
    return f"<details><summary>Details</summary><dl>{size}{pairs}</dl></details>" if size or pairs else ""


def _timings(answer: SearchResponse) -> str:
    stages = [timing for timing in answer.timings if timing.stage != "total"]
    total = next((t.seconds for t in answer.timings if t.stage == "total"), sum(t.seconds for t in stages))
    if not stages:
        return ""
    bars = _bars((_text(t.stage), t.seconds / (total or 1.0), duration(t.seconds)) for t in stages)
    return f"<div><h3>Time by stage, {duration(total)} in total</h3>{bars}</div>"


def _models(answer: SearchResponse) -> str:
    if not answer.model_versions:
        return ""
    items = "".join(f"<li>{_text(model.name)} {_text(model.version)}</li>" for model in answer.model_versions)
    return f'<div><h3>Models and versions</h3><ul class="models">{items}</ul></div>'


def _legend(shown: bool) -> str:
    if not shown:
        return ""
    return (
        '<div><h3>Heat maps</h3><div class="legend">least <i role="img" aria-label="from transparent through violet '
        'and orange to pale yellow"></i> most</div>'
        '<p class="soft">Each map is scaled to its own maximum.</p></div>'
    )


def _controls(looked: bool) -> str:
    heat = '<label><input type="checkbox" id="heat" checked> Where co-attention looked</label>' if looked else ""
    return f'<label><input type="checkbox" id="boxes" checked> Boxes</label>{heat}'


def _bars(rows: Iterable[tuple[str, float, str]]) -> str:
    """Return a list of bars. Each row is an escaped label, a length in [0, 1] and the text after the bar."""
    cells = "".join(
        f'<dt>{label}</dt><dd class="track" aria-hidden="true"><i style="width:{_percent(length)}"></i></dd>'
        f"<dd>{value}</dd>"
        for label, length, value in rows
    )
    return f'<dl class="bars">{cells}</dl>' if cells else ""


def _frame(image: bytes, width: int, height: int, *, alt: str, over: str, heated: bool = False) -> str:
    """Return a picture with its aspect ratio kept and `over` on top of it."""
    shape = f'style="aspect-ratio:{_ratio(width, height):.4f}"'
    if not image:
        return f'<div class="frame empty" {shape} role="img" aria-label="{_text(alt)}">no thumbnail</div>'
    kind = "frame heated" if heated else "frame"
    return f'<div class="{kind}" {shape}><img src="{_data_url(image)}" alt="{_text(alt)}">{over}</div>'


def _heat(heatmap: Heatmap, region: Box | None, width: int, height: int) -> str:
    picture = overlay(heatmap)
    if not picture:
        return ""
    place = _place(region or Box(width=width, height=height), width, height)
    return f'<img class="heat" src="{_data_url(picture)}" alt="" style="{place}">'


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
        f"left:{_percent(box.x / across)};top:{_percent(box.y / down)};"
        f"width:{_percent(box.width / across)};height:{_percent(box.height / down)}"
    )


def _percent(share: float) -> str:
    """Return a share in [0, 1] as a CSS percentage, clamped; NaN is 0%."""
    return f"{100 * min(max(share, 0.0), 1.0):.2f}%" if share == share else "0%"  # noqa: PLR0124


def _ratio(width: int, height: int) -> float:
    return min(max(width / height, 0.2), 5.0) if width and height else 1.0


def _data_url(image: bytes) -> str:
    return f"data:{_media(image)};base64,{base64.b64encode(image).decode('ascii')}"


def _media(image: bytes) -> str:
    """Return an image's media type by its first bytes."""
    if image.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if image.startswith(b"RIFF") and image[8:12] == b"WEBP":
        return "image/webp"
    return "image/jpeg" if image.startswith(b"\xff\xd8\xff") else "application/octet-stream"


def _text(text: str) -> str:
    """Escape for element content and quoted attributes."""
    return html.escape(one_line(text), quote=True)
