"""The contact sheet: the worst queries, beside what was found and what should have been."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from functools import cache

from landseer.client.readable import one_line, plural
from landseer.ops.evaluate.dataset import Dataset, Shot
from landseer.ops.evaluate.failures import Failure
from landseer.ops.evaluate.figures import MethodRow

SIDE = 320
"""Longer side of a thumbnail, pixels: twice its size on the page, so that it is sharp."""


def sheet(row: MethodRow, dataset: Dataset) -> str:
    """Return the list of a row's failures as HTML."""
    items = "\n".join(_item(failure, row, dataset) for failure in row.failures)
    return (
        f'<ol class="failures">\n{items}\n</ol>'
        if items
        else '<p class="soft">Every query found all right answers first.</p>'
    )


def _item(failure: Failure, row: MethodRow, dataset: Dataset) -> str:
    query = dataset.queries[failure.query]
    base = float(row.base.aps[failure.query])
    without = f", {100 * base:.1f} without expansion" if row.gain is not None else ""
    head = (
        f'<header><strong>{text(query.label or query.shot.path.name)}</strong><span class="soft">AP '
        f"{100 * failure.ap:.1f}{without}; {plural(failure.positives, 'right answer')}</span></header>"
    )
    figures = [_figure(query.shot, "query", "query")]
    figures += [_hit(rank, place, "wrong", dataset) for rank, place in failure.wrong]
    figures.append(_right(failure, dataset))
    return f'<li class="failure">{head}<div class="strip">{"".join(figures)}</div></li>'


def _right(failure: Failure, dataset: Dataset) -> str:
    if failure.right is None:
        return '<figure class="right"><div class="frame empty">none</div><figcaption>not found</figcaption></figure>'
    return _hit(*failure.right, "right", dataset)


def _hit(rank: int, place: int, kind: str, dataset: Dataset) -> str:
    caption = f"{'right, ' if kind == 'right' else ''}rank {rank:,}"
    if place < len(dataset.references):
        return _figure(Shot(path=dataset.references[place]), kind, caption)
    what = "synthetic" if dataset.synthetic else "another picture of the service"
    return f'<figure class="{kind}"><div class="frame empty">{what}</div><figcaption>{caption}</figcaption></figure>'


def _figure(shot: Shot, kind: str, caption: str) -> str:
    name = text(shot.path.name)
    data = _thumbnail(shot)
    inside = f'<img src="data:image/jpeg;base64,{data}" alt="{caption}: {name}">' if data else "gone"
    return (
        f'<figure class="{kind}"><div class="frame" title="{text(str(shot.path))}">{inside}</div>'
        f"<figcaption>{caption}<span>{name}</span></figcaption></figure>"
    )


@cache
def _thumbnail(shot: Shot) -> str:
    """Return a picture, or the searched part of it, as base64; empty if it can no longer be read."""
    from PIL import Image, ImageOps

    try:
        with Image.open(shot.path) as picture:
            seen = ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, ValueError, SyntaxError):
        return ""
    if (region := shot.region) is not None:
        box = (region.x, region.y, region.x + region.width, region.y + region.height)
        seen = seen.crop(tuple(round(side) for side in box))  # type: ignore[arg-type]
    seen.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    seen = seen.rotate(-shot.turn, expand=True)
    out = io.BytesIO()
    seen.save(out, "JPEG", quality=80)
    return base64.b64encode(out.getvalue()).decode("ascii")


def worst(rows: Sequence[MethodRow]) -> MethodRow:
    """Return the row whose failures are shown: the best of the table, since its failures are the hardest."""
    return max(rows, key=lambda row: (row.protocol == "medium", row.figures.map))


def text(plain: str) -> str:
    """Escape for element content and quoted attributes."""
    return html.escape(one_line(plain), quote=True)
