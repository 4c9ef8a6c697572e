"""Kinds of metadata: how the text of a value is read.

Metadata are texts, in the API and in the store. A field gets a kind when it is indexed, and its texts are read as that.
So stores and clients that know nothing of kinds work unchanged, and a kind can be changed by a restart.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal, get_args

Kind = Literal["text", "number", "bool", "time", "list"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NUMERIC: tuple[Kind, ...] = ("number", "bool", "time")
"""Kinds whose values are kept as numbers."""
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_TRUTHS = {"true": 1.0, "false": 0.0}
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class IndexedField:
    """A field of the metadata that is kept in memory."""

    name: str
    kind: Kind


def indexed_field(text: str) -> IndexedField:
    """Read `NAME` or `NAME:KIND`, as `--index-field` takes it. ValueError for an unknown kind or no name."""
    name, _, kind = text.rpartition(":") if ":" in text else (text, "", "text")
    for known in KINDS:
        if kind == known and name:
            return IndexedField(name=name, kind=known)
    raise ValueError(f"got index-field {text!r}; expected NAME or NAME:KIND with a kind of {', '.join(KINDS)}")


def numeric(text: str, kind: Kind) -> float | None:
    """Return the value of a text of a kind of `NUMERIC`; None if it has none."""
    if kind == "number":
        return number(text)
    return moment(text) if kind == "time" else truth(text)


def number(text: str) -> float | None:
    """Return the number that a text is, None if it is none. It is a double, so whole numbers are exact up to 2^53."""
    found = float(text) if _NUMBER.fullmatch(text.strip()) else math.inf
    return found if math.isfinite(found) else None


def truth(text: str) -> float | None:
    """Return 1 for true, 0 for false, in capitals or not; None for another text."""
    return _TRUTHS.get(text.strip().lower())


def moment(text: str) -> float | None:
    """Return the Unix seconds of a time by RFC 3339, or of a date; None for another text. UTC, unless it says more."""
    text = text.strip()
    if not _DATE.match(text):
        return None
    try:
        found = datetime.fromisoformat(f"{text[:-1]}+00:00" if text[-1] in "Zz" else text)
        return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, OverflowError):
        return None


def items(text: str) -> tuple[str, ...]:
    """Return the elements of a list: a JSON array of texts, or else what is between commas."""
    found = json_items(text)
    return tuple(item for part in text.split(",") if (item := part.strip())) if found is None else found


def json_items(text: str) -> tuple[str, ...] | None:
    """Return the elements of a JSON array of texts or numbers; None for any other text."""
    if not text.startswith("["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return tuple(item if isinstance(item, str) else json.dumps(item) for item in found)
