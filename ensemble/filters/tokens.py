"""The words and signs of a filter, each with its column."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NoReturn

from landseer.ensemble.errors import InvalidInput

_SHOWN = 60
"""Characters of a filter that an error quotes."""
_TOKEN = re.compile(
    r"""(?P<blank>\s+)
    |(?P<text>\d{4}-\d\d-\d\d[Tt]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:[Zz]|[+-]\d\d:\d\d)?|[^\s"'()<>=!:,\\]+)
    |(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<operator><=|>=|!=|[<>=:])
    |(?P<sign>[(),])""",
    re.VERBOSE | re.DOTALL,
)
_PIECE = re.compile(r"\\(.)|(\*)|([^\\*]+)", re.DOTALL)
Sort = Literal["text", "string", "operator", "sign", "end"]


@dataclass(frozen=True, kw_only=True)
class Token:
    """A word or a sign."""

    sort: Sort
    text: str
    """As it is written."""
    column: int
    """Of its first character, from 1."""

    @property
    def quoted(self) -> bool:
        """Whether it is in quotes."""
        return self.sort == "string"

    @property
    def pieces(self) -> tuple[str, ...]:
        """What it means, cut at its wildcards: after a backslash, `*` and quotes are themselves."""
        if not self.quoted:
            return tuple(self.text.split("*"))
        pieces = [""]
        for escaped, star, plain in _PIECE.findall(self.text[1:-1]):
            if star:
                pieces.append("")
            else:
                pieces[-1] += escaped or plain
        return tuple(pieces)


def tokens_of(text: str) -> Iterator[Token]:
    """Yield the tokens of a filter, then one of the sort `end`. InvalidInput for what is none."""
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            fail(text, at + 1, _strange(text[at], at + 1))
        for sort in ("text", "string", "operator", "sign"):
            if found.lastgroup == sort:
                yield Token(sort=sort, text=found.group(), column=at + 1)
        at = found.end()
    yield Token(sort="end", text="", column=len(text.rstrip()))


def fail(text: str, column: int, message: str) -> NoReturn:
    """Raise InvalidInput that quotes the filter around a column."""
    first = max(0, min(column - _SHOWN // 2, len(text) - _SHOWN))
    shown = text[first : first + _SHOWN].strip()
    before, after = "…" if first else "", "…" if first + _SHOWN < len(text) else ""
    raise InvalidInput("filter", f"{before}{shown}{after}: {message}")


def _strange(character: str, column: int) -> str:
    if character in "\"'":
        return f"the quote at column {column} has no end; add {character}"
    return f"did not expect {character} at column {column}; put names and values with such characters in quotes"
