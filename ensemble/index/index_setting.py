"""How the main index of a collection is built and searched: a FAISS factory string and two numbers, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

LEAST_CANDIDATES = 32
"""Fewest candidates of a search that are scored again."""


@dataclass(frozen=True, kw_only=True)
class IndexSetting:
    """How a main index is built and searched. ValueError for an invalid number."""

    factory: str
    """A FAISS factory string: `Flat` and `SQfp16` search exactly, all others approximately."""
    effort: int = 0
    """How far a search looks: lists that it scans (IVF's nprobe), nodes that it keeps (HNSW's efSearch), or candidates
    that it compares by finer codes (Refine). An exact index ignores it."""
    rescored: int = 1
    """Candidates scored again from the stored vectors for each hit that is asked for; at most, for many hits
    (`live_index.scores_of_enough`). Callers of an exact index add the margin that rounding needs instead."""

    def __post_init__(self) -> None:
        if not self.factory or self.factory != self.factory.strip():
            raise ValueError(f"index is {self.factory!r}; expected a FAISS factory string, such as HNSW32,SQ8")
        if self.effort < 0:
            raise ValueError(f"the index's effort is {self.effort}; expected 0 or more")
        if self.rescored < 1:
            raise ValueError(f"the index rescores {self.rescored} candidates a hit; expected 1 or more")

    def candidates(self, k: int) -> int:
        """Return how many candidates to ask a main index for, and to score again at most, for k hits."""
        return max(LEAST_CANDIDATES, k * self.rescored)

    def to_json(self) -> str:
        """Return it as a JSON object."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> IndexSetting:
        """Read what `to_json` wrote. ValueError for anything else."""
        try:
            found: Any = json.loads(text)
        except ValueError as error:
            raise ValueError(f"not JSON: {error}") from error
        kinds = {field.name: str if field.name == "factory" else int for field in fields(cls)}
        if not isinstance(found, dict) or found.keys() != kinds.keys():
            told = sorted(found) if isinstance(found, dict) else type(found).__name__
            raise ValueError(f"got {told}; expected an object with {', '.join(sorted(kinds))}")
        for name, kind in kinds.items():
            if type(found[name]) is not kind:
                raise ValueError(f"{name} is {found[name]!r}; expected a value of type {kind.__name__}")
        return cls(**found)
