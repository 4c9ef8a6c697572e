"""Converts Python arguments to request messages."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from landseer.client.errors import UnusableInput
from landseer.client.readable import size
from landseer.v1.common_pb2 import Box, MetadataMask
from landseer.v1.search_pb2 import (
    EXPANSION_METHOD_ALPHA_QE,
    EXPANSION_METHOD_AQE,
    EXPANSION_METHOD_AQEWD,
    EXPANSION_METHOD_AQEWD_DIR,
    EXPANSION_METHOD_DQE,
    EXPANSION_METHOD_LATTQE,
    EXPANSION_METHOD_NONE,
    EXPANSION_METHOD_RANK_CURVE,
    EXPANSION_METHOD_VERIFIED,
    FIRST_STAGE_BOTH,
    FIRST_STAGE_GLOBAL,
    FIRST_STAGE_WORDS,
    GROUPING_FIELD,
    GROUPING_NEAR_IDENTICAL,
    GROUPING_NONE,
    RERANKING_METHOD_COATTENTION,
    RERANKING_METHOD_NONE,
    RERANKING_METHOD_SPATIAL,
    Descriptor,
    Expansion,
    ExpansionMethod,
    FirstStage,
    Grouping,
    Reranking,
    RerankingMethod,
    SearchRequest,
)

Image: TypeAlias = bytes | Path
"""An encoded picture (JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF; HEIC if the server reads it), or its path."""
Query: TypeAlias = bytes | Path | str | Descriptor | Iterable[float]
"""A picture, the id (str) of an indexed one, or a raw descriptor."""
Region: TypeAlias = Box | tuple[float, float, float, float]
"""x, y, width, height in pixels of the picture after EXIF rotation."""
MOST_FROM_STDIN = 256 << 20
"""Bytes of a picture on standard input, which may never end; servers refuse pictures long before that."""
_T = TypeVar("_T")

ExpansionName = Literal["none", "lattqe", "aqe", "aqewd", "aqewd-dir", "alphaqe", "dqe", "rank-curve", "verified"]
RerankingName = Literal["none", "coattention", "spatial"]

EXPANSIONS: dict[str, ExpansionMethod] = {
    "none": EXPANSION_METHOD_NONE,
    "lattqe": EXPANSION_METHOD_LATTQE,
    "aqe": EXPANSION_METHOD_AQE,
    "aqewd": EXPANSION_METHOD_AQEWD,
    "aqewd-dir": EXPANSION_METHOD_AQEWD_DIR,
    "alphaqe": EXPANSION_METHOD_ALPHA_QE,
    "dqe": EXPANSION_METHOD_DQE,
    "rank-curve": EXPANSION_METHOD_RANK_CURVE,
    "verified": EXPANSION_METHOD_VERIFIED,
}
RERANKINGS: dict[str, RerankingMethod] = {
    "none": RERANKING_METHOD_NONE,
    "coattention": RERANKING_METHOD_COATTENTION,
    "spatial": RERANKING_METHOD_SPATIAL,
}

FirstStageName = Literal["global", "words", "both"]
FIRST_STAGES: dict[str, FirstStage] = {
    "global": FIRST_STAGE_GLOBAL,
    "words": FIRST_STAGE_WORDS,
    "both": FIRST_STAGE_BOTH,
}

GROUPINGS: dict[str, Grouping] = {
    "none": GROUPING_NONE,
    "near-identical": GROUPING_NEAR_IDENTICAL,
}
BY_FIELD = "field:"
"""How a grouping by a field of the metadata begins; its name follows."""


async def search_request(query: Query) -> SearchRequest:
    """Return a request with only the query set. Raises UnusableInput if its file cannot be read."""
    if isinstance(query, bytes | Path):
        return SearchRequest(image=await image_bytes(query))
    if isinstance(query, str):
        return SearchRequest(id=utf8("id", query))
    if isinstance(query, Descriptor):
        return SearchRequest(descriptor=query)
    return SearchRequest(descriptor=Descriptor(values=query))


async def image_bytes(image: Image) -> bytes:
    """Return the encoded picture; a file is read in a thread. Raises UnusableInput if it cannot be read."""
    return await asyncio.to_thread(read_picture, image) if isinstance(image, Path) else bytes(image)


def read_picture(path: Path) -> bytes:
    """Read a file. Raises UnusableInput, with the reason, if it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        if str(path).startswith(("http:/", "https:/")):
            raise UnusableInput(f"{path} is an address; download it, and give the path of the file") from None
        raise UnusableInput(f"there is no file {path}; give the path of a picture") from None
    except IsADirectoryError:
        raise UnusableInput(f"{path} is a folder; give the path of one picture") from None
    except OSError as error:
        raise UnusableInput(f"cannot read {path}: {error.strerror or error}") from error


def read_stdin() -> bytes:
    """Read a picture from standard input. Raises UnusableInput if nothing comes, or too much."""
    try:
        image = sys.stdin.buffer.read(MOST_FROM_STDIN + 1)
    except OSError as error:
        raise UnusableInput(f"cannot read standard input: {error.strerror or error}") from error
    if not image:
        raise UnusableInput("got nothing on standard input; expected a picture, as in: landseer search - < query.jpg")
    if len(image) > MOST_FROM_STDIN:
        raise UnusableInput(f"got more than {size(MOST_FROM_STDIN)} on standard input; expected one picture")
    return image


def utf8(name: str, text: str) -> str:
    """Return a text as it is. Raises UnusableInput if it cannot be sent, as a file name that is not valid UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        got = text.encode("utf-8", "backslashreplace").decode()
        raise UnusableInput(f"{name}: got {got}, which is not valid UTF-8; give a text in UTF-8") from None
    return text


def not_negative(name: str, number: int) -> int:
    """Return a number as it is. Raises UnusableInput if it does not fit an unsigned field of 32 bits."""
    if not 0 <= number < 2**32:
        raise UnusableInput(f"{name}: got {number}, expected 0 or more")
    return number


def box(region: Region | None) -> Box | None:
    """Return a region as a Box; None stays None."""
    if region is None or isinstance(region, Box):
        return region
    x, y, width, height = region
    return Box(x=x, y=y, width=width, height=height)


def expansion(value: Expansion | ExpansionName | None) -> Expansion | None:
    """Return the message for a method's name. Raises UnusableInput for an unknown name."""
    if value is None or isinstance(value, Expansion):
        return value
    return Expansion(method=_named(value, EXPANSIONS, "expansion"))


def reranking(value: Reranking | RerankingName | None) -> Reranking | None:
    """Return the message for a method's name. Raises UnusableInput for an unknown name."""
    if value is None or isinstance(value, Reranking):
        return value
    return Reranking(method=_named(value, RERANKINGS, "reranking"))


def first_stage(name: FirstStageName | None) -> FirstStage | None:
    """Return the enum value of a first stage's name. Raises UnusableInput for an unknown name."""
    return None if name is None else _named(name, FIRST_STAGES, "first_stage")


def grouping(name: str | None) -> tuple[Grouping | None, str]:
    """Return the enum value of `none`, `near-identical` or `field:NAME`, and that NAME. Raises UnusableInput."""
    if name is None:
        return None, ""
    if name.startswith(BY_FIELD) and name != BY_FIELD:
        return GROUPING_FIELD, utf8("group_by", name[len(BY_FIELD) :])
    if name not in GROUPINGS:
        raise UnusableInput(f"group_by: got {name!r}, expected one of {', '.join(GROUPINGS)} or {BY_FIELD}NAME")
    return GROUPINGS[name], ""


def metadata_mask(fields: Sequence[str]) -> MetadataMask | None:
    """Return the mask of names to include and, with a minus before them, to exclude; None without any."""
    if not fields:
        return None
    for name in fields:
        utf8("fields", name)
    excluded = [name[1:] for name in fields if name.startswith("-")]
    return MetadataMask(include=[name for name in fields if not name.startswith("-")], exclude=excluded)


def _named(name: str, methods: dict[str, _T], what: str) -> _T:
    if name not in methods:
        raise UnusableInput(f"{what}: got {name!r}, expected one of {', '.join(methods)}")
    return methods[name]
