"""Write the contact sheet: the evidence against each class for people to check, as one self-contained HTML file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from landseer.client.readable import one_line, plural
from landseer.export.curation.overlap import Overlap, OverlapEvidence, Size

SHOWN = 3
"""Pairs of each class."""
LINES = 30
"""Drawn for a pair, evenly chosen among its matched points."""
HEIGHT, GAP = 240, 16
"""Of the pictures and between them, in CSS pixels."""
_STYLE = """
:root { --paper: #f7f5f1; --card: #fffefb; --ink: #22211f; --soft: #6d6a64; --line: #e2ded6; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #161719; --card: #1e2023; --ink: #ecebe7; --soft: #a09d96; --line: #303338; }
}
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 82rem; background: var(--paper); color: var(--ink);
  font: 400 1rem/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; font-variant-numeric: tabular-nums; }
h1 { margin: 0 0 .25rem; font-size: 1.7rem; line-height: 1.2; }
h2 { margin: 0; font-size: 1.15rem; overflow-wrap: anywhere; }
p { margin: 0; max-width: 60rem; }
.soft, figcaption { color: var(--soft); font-size: .875rem; overflow-wrap: anywhere; }
section { margin-top: 1.5rem; padding: 1rem 1.25rem 1.25rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr)); gap: 1.25rem;
  margin-top: .75rem; align-items: start; }
figure { margin: 0; }
svg { display: block; max-width: 100%; height: auto; border-radius: .3rem; }
figcaption { margin-top: .4rem; }
line { stroke: #14e0b4; stroke-width: 1; stroke-opacity: .6; }
circle { fill: none; stroke: #ffe14d; stroke-width: 1.2; }
"""


def sheet(overlap: Overlap, *, training: str, queries: str, shown: int = SHOWN) -> str:
    """Return the HTML page. `training` and `queries` name the data sets. OSError if a picture is missing by now."""
    classes = overlap.by_class()
    parts = [_section(label, evidence, shown) for label, evidence in classes.items()]
    nothing = "<section><p>No training picture shows the object of a query.</p></section>"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>Landseer: overlap</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{plural(len(classes), 'class', 'classes')} to remove</h1>\n"
        f'<p class="soft">Training: {_text(training)}. Queries: {_text(queries)}. '
        f"{plural(len(overlap.evidence), 'pair')} verified; for each class the {shown} pairs with the most points are "
        "shown, the query on the left. To keep a class, delete its line from the list.</p>\n"
        + ("\n".join(parts) or nothing)
        + "\n</body>\n</html>\n"
    )


def _section(label: str, evidence: Sequence[OverlapEvidence], shown: int) -> str:
    pictures = len({one.training.path for one in evidence})
    queries = len({one.query.path for one in evidence})
    said = f"{plural(pictures, 'training picture')} against {plural(queries, 'query', 'queries')}"
    pairs = "\n".join(_pair(one) for one in evidence[:shown])
    head = f'<h2>{_text(label)}</h2>\n<p class="soft">{said}</p>'
    return f'<section>\n{head}\n<div class="pairs">\n{pairs}\n</div>\n</section>'


def _pair(one: OverlapEvidence) -> str:
    left, right = (_width(size) for size in (one.query_size, one.training_size))
    width = left + GAP + right
    alt = f"{one.query.path.name} beside {one.training.path.name}, {one.match.inliers} matched points joined by lines"
    return (
        f'<figure><svg width="{width}" height="{HEIGHT}" viewBox="0 0 {width} {HEIGHT}" role="img" '
        f'aria-label="{_text(alt)}">{_image(one.query.path, 0, left)}{_image(one.training.path, left + GAP, right)}'
        f"{''.join(_marks(one, left + GAP))}</svg>"
        f"<figcaption>{one.match.inliers} points, cosine {one.similarity:.3f}<br>{_name(one.query.path)}<br>"
        f"{_name(one.training.path)}</figcaption></figure>"
    )


def _marks(one: OverlapEvidence, offset: int) -> Iterator[str]:
    chosen = np.unique(np.linspace(0, one.match.inliers - 1, LINES).round().astype(int))
    first = one.match.first[chosen] * (HEIGHT / one.query_size[1])
    second = one.match.second[chosen] * (HEIGHT / one.training_size[1]) + (offset, 0)
    for (x1, y1), (x2, y2) in zip(first.tolist(), second.tolist(), strict=True):
        yield f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
        yield f'<circle cx="{x1:.1f}" cy="{y1:.1f}" r="2.5"/><circle cx="{x2:.1f}" cy="{y2:.1f}" r="2.5"/>'


def _width(size: Size) -> int:
    return max(1, round(HEIGHT * size[0] / size[1]))


def _image(path: Path, x: int, width: int) -> str:
    data = base64.b64encode(_thumbnail(path)).decode("ascii")
    return f'<image x="{x}" y="0" width="{width}" height="{HEIGHT}" href="data:image/jpeg;base64,{data}"/>'


def _thumbnail(path: Path) -> bytes:
    """Return a JPEG of the picture after EXIF rotation, at twice the displayed size for high-density screens."""
    from PIL import Image, ImageOps

    with Image.open(path) as picture:
        picture.draft("RGB", (4 * HEIGHT, 4 * HEIGHT))
        seen = ImageOps.exif_transpose(picture).convert("RGB")
    seen.thumbnail((4 * HEIGHT, 2 * HEIGHT), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    seen.save(out, "JPEG", quality=80)
    return out.getvalue()


def _name(path: Path) -> str:
    """Return a file name with its folder; hovering shows the whole path."""
    return f'<span title="{_text(str(path))}">{_text("/".join(path.parts[-2:]))}</span>'


def _text(text: str) -> str:
    return html.escape(one_line(text), quote=True)
