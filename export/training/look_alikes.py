"""Drawn covers in families. Those of one family share a design and differ in picture, title and small print.

Covers of a series, labels of one brand and banknotes resemble each other so. They teach a descriptor what tells things
of one kind apart, which photographs of different things do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]
Draw = np.random.Generator
Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]
"""x, y, width, height in pixels."""

WIDTH, HEIGHT = 420, 594
MEMBERS = 4
"""Covers of a family. The last has the picture of the first, under another title."""
CONSONANTS = [*"bcdfghklmnprstvwz", "st", "th", "ch", "br", "gr", "pl", "sh"]
VOWELS = [*"aeiou", "ea", "oo", "ie"]
FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-BoldOblique", "DejaVuSansMono-Bold"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    *("cmb10", "cmr10", "cmss10", "cmtt10"),
)
LIGHT = 380
"""Sum of the channels above which a colour counts as light."""


@dataclass(frozen=True, kw_only=True)
class Print:
    """A line of small print."""

    x: int
    y: int
    size: int
    colour: Colour
    text: str


@dataclass(frozen=True, kw_only=True)
class Design:
    """What the covers of a family share."""

    ground: Colour
    ink: Colour
    title_font: int
    small_font: int
    upper: bool
    """Whether titles are in capitals."""
    edge: int
    """Width of the titles' outline."""
    picture: Box
    title: Box
    bars: tuple[tuple[int, int, Colour], ...]
    """Top, height and colour."""
    prints: tuple[Print, ...]
    same_prints: bool
    """Whether all covers have the same small print."""
    logo: tuple[int, int, int, Colour]
    """x, y, size and colour."""
    brand: str


def family(seed: int, photograph: Callable[[Draw], Pixels]) -> list[Pixels]:
    """Return `MEMBERS` covers [HEIGHT, WIDTH, 3] of one design. photograph: draws pixels [h, w, 3] for pictures."""
    design = _design(np.random.default_rng((seed, 0)))
    covers, first = [], None
    for number in range(MEMBERS):
        draw = np.random.default_rng((seed, 1, number))
        last = number == MEMBERS - 1
        picture = first if last and first is not None else _picture(draw, photograph(draw), design.picture[2:])
        first = picture if first is None else first
        covers.append(_cover(design, picture, draw))
    return covers


def _design(draw: Draw) -> Design:
    full = draw.random() < 0.5
    y = 0 if full else int(draw.integers(0, HEIGHT // 3))
    height = HEIGHT if full else int(draw.integers(HEIGHT // 3, HEIGHT - y))
    x = 0 if full or draw.random() < 0.4 else int(draw.integers(10, 70))
    prints = tuple(
        Print(
            x=int(draw.integers(5, WIDTH // 2)),
            y=int(draw.integers(0, HEIGHT - 20)),
            size=int(draw.integers(12, 24)),
            colour=_colour(draw),
            text=_words(draw, 2, 5),
        )
        for _ in range(draw.integers(1, 6))
    )
    return Design(
        ground=_colour(draw),
        ink=_colour(draw),
        title_font=int(draw.integers(len(FONTS))),
        small_font=int(draw.integers(len(FONTS))),
        upper=draw.random() < 0.6,
        edge=int(draw.integers(0, 4)),
        picture=(x, y, WIDTH - 2 * x, height),
        title=(14, int(draw.integers(0, HEIGHT - 150)), WIDTH - 28, int(draw.integers(60, 150))),
        bars=tuple(
            (int(draw.integers(0, HEIGHT)), int(draw.integers(8, 60)), _colour(draw))
            for _ in range(draw.integers(0, 3))
        ),
        prints=prints,
        same_prints=draw.random() < 0.4,
        logo=(
            int(draw.integers(0, WIDTH - 60)),
            int(draw.choice([8, HEIGHT - 60])),
            int(draw.integers(20, 50)),
            _colour(draw),
        ),
        brand=_words(draw, 1, 2),
    )


def _cover(design: Design, picture: Pixels, draw: Draw) -> Pixels:
    pixels = np.full((HEIGHT, WIDTH, 3), design.ground, np.uint8)
    x, y, w, h = design.picture
    pixels[y : y + h, x : x + w] = picture
    for top, height, colour in design.bars:
        pixels[top : top + height] = colour
    image = Image.fromarray(pixels)
    canvas = ImageDraw.Draw(image)
    _title(canvas, design, _words(draw, 1, 4))
    for line in design.prints:
        text = line.text if design.same_prints else _words(draw, 2, 5)
        canvas.text((line.x, line.y), text, font=_font(design.small_font, line.size), fill=line.colour)
    x, y, size, colour = design.logo
    canvas.ellipse((x, y, x + size, y + size), fill=colour)
    brand = _font(design.small_font, max(size // 3, 9))
    canvas.text((x, y + size // 4), design.brand.upper(), font=brand, fill=(255, 255, 255))
    return np.asarray(image)


def _title(canvas: ImageDraw.ImageDraw, design: Design, text: str) -> None:
    """Print a title, two words a line, as large as its box allows."""
    x, y, w, h = design.title
    words = (text.upper() if design.upper else text.title()).split()
    lines = [" ".join(words[i : i + 2]) for i in range(0, len(words), 2)] if len(words) > 2 else words
    size = max(int(min(0.9 * h / len(lines), 1.7 * w / max(map(len, lines)))), 10)
    outline = (0, 0, 0) if sum(design.ink) > LIGHT else (255, 255, 255)
    for number, line in enumerate(lines):
        canvas.text(
            (x, y + number * h / len(lines)),
            line,
            font=_font(design.title_font, size),
            fill=design.ink,
            stroke_width=design.edge,
            stroke_fill=outline,
        )


def _picture(draw: Draw, photograph: Pixels, size: tuple[int, int]) -> Pixels:
    """Return part of a photograph in other colours, with shapes over it. size: width, height."""
    h, w = photograph.shape[:2]
    scale = draw.uniform(0.35, 1.0)
    part_w, part_h = max(int(w * scale), 8), max(int(h * scale), 8)
    x, y = draw.integers(0, max(w - part_w, 0) + 1), draw.integers(0, max(h - part_h, 0) + 1)
    part = cv2.resize(photograph[y : y + part_h, x : x + part_w], size, interpolation=cv2.INTER_AREA)
    if draw.random() < 0.5:
        part = part[:, ::-1]
    pixels = np.ascontiguousarray(np.clip(_recoloured(part.astype(np.float32), draw), 0, 255).astype(np.uint8))
    for _ in range(draw.integers(0, 9)):
        _shape(pixels, draw)
    return pixels


def _recoloured(part: NDArray[np.float32], draw: Draw) -> NDArray[np.float32]:
    kind = draw.random()
    if kind < 0.25:  # Two colours, as of cheap print.
        dark, bright = (np.array(_colour(draw), np.float32) for _ in range(2))
        grey = part.mean(axis=2, keepdims=True) / 255
        return np.asarray(bright * grey + dark * (1 - grey), np.float32)
    if kind < 0.5:
        return part[:, :, draw.permutation(3)]
    return np.asarray(part * draw.uniform(0.2, 1.2, 3), np.float32) if kind < 0.7 else part


def _shape(pixels: Pixels, draw: Draw) -> None:
    """Draw an ellipse or a polygon of three to five corners."""
    height, width = pixels.shape[:2]
    centre = (int(draw.integers(0, width)), int(draw.integers(0, height)))
    radius = int(draw.integers(8, max(max(width, height) // 3, 9)))
    if draw.random() < 0.5:
        axes, angle = (radius, int(radius * draw.uniform(0.3, 1))), float(draw.uniform(0, 180))
        line = int(draw.choice([-1, -1, 3, 8]))
        cv2.ellipse(pixels, centre, axes, angle, 0, 360, _colour(draw), line, cv2.LINE_AA)
    else:
        corners = draw.integers(-radius, radius, (int(draw.integers(3, 6)), 2)) + np.array(centre)
        cv2.fillPoly(pixels, [corners.astype(np.int32)], _colour(draw), cv2.LINE_AA)


def _colour(draw: Draw) -> Colour:
    red, green, blue = (int(value) for value in draw.integers(0, 256, 3))
    return red, green, blue


def _words(draw: Draw, fewest: int, most: int) -> str:
    """Return made-up words that can be pronounced."""
    return " ".join(_word(draw) for _ in range(draw.integers(fewest, most + 1)))


def _word(draw: Draw) -> str:
    syllables = "".join(draw.choice(CONSONANTS) + draw.choice(VOWELS) for _ in range(draw.integers(1, 4)))
    return syllables + (str(draw.choice(CONSONANTS)) if draw.random() < 0.5 else "")


@lru_cache(256)
def _font(number: int, size: int) -> ImageFont.FreeTypeFont:
    """Return a font that matplotlib, which training needs anyway, carries."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{FONTS[number]}.ttf"), size)
