"""The memory that indexed fields need, before they are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from landseer.ensemble.filters.kinds import NUMERIC
from landseer.ensemble.index.columns import TEXT_BYTES, Kinds

ROOM = 2
"""Times what arrays hold, as they have room to grow."""
_ROW_BYTES = 8 + 1
"""Of a picture's key, and of whether it was removed."""
_NUMBER_BYTES, _PLACE_BYTES = 8, 4
"""Of a picture's number, and of the place of its text."""


def fields_bytes(kinds: Kinds, sample: Sequence[Mapping[str, str]], pictures: int) -> int:
    """Return the bytes that the indexed fields of a picture take in the mean of so many.

    sample: the metadata of some of them. A further picture brings a new text as often as one of the sample has a text
    that no other has (Good 1953): as many texts as that makes for paths, which all differ, and few for places.
    """
    if not kinds:
        return 0
    arrays, texts = _ROW_BYTES, 0.0
    for name, kind in kinds.items():
        arrays += _NUMBER_BYTES if kind in NUMERIC else _PLACE_BYTES
        if kind not in NUMERIC:
            texts += _text_bytes(Counter(one[name] for one in sample if name in one), len(sample), pictures)
    return round(ROOM * arrays + texts)


def _text_bytes(counts: Counter[str], sampled: int, pictures: int) -> float:
    """Return the bytes of texts a picture. counts: of the pictures of a sample that have each text."""
    if not counts or not pictures:
        return 0.0
    length = sum(map(len, counts)) / len(counts)
    single = sum(count == 1 for count in counts.values())
    different = len(counts) + max(0, pictures - sampled) * single / sampled
    return min(1.0, different / pictures) * (TEXT_BYTES + length)
