"""Which index a Milvus collection gets, named as FAISS names it, and how it is searched."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from landseer.ensemble.index.index_setting import IndexSetting
from landseer.ensemble.index.setting_choice import parsed

DEFAULT = "HNSW32"
_BUILT = {
    "FLAT": (re.compile(r"Flat"), ""),
    "HNSW": (re.compile(r"HNSW(\d+)"), "M"),
    "IVF_FLAT": (re.compile(r"IVF(\d+),Flat"), "nlist"),
}
"""By the name that Milvus gives: what we call it, and the parameter that the number is."""
_SEARCHED = {"HNSW": ("ef", 128), "IVF_FLAT": ("nprobe", 16)}
"""The parameter that the effort is, and its default."""
_CONSTRUCTION = 200
"""Of HNSW: nodes kept while it is built."""


@dataclass(frozen=True, kw_only=True)
class MilvusIndex:
    """An index of Milvus. They keep whole vectors, in fp32."""

    kind: str
    """As Milvus names it."""
    build: Mapping[str, int]
    effort: int
    """0 for the default."""

    def search(self, k: int) -> dict[str, int]:
        """Return the parameters of a search for k candidates."""
        if self.kind not in _SEARCHED:
            return {}
        name, default = _SEARCHED[self.kind]
        effort = self.effort or default
        # Milvus refuses to return more than `ef`.
        return {name: max(effort, k) if name == "ef" else effort}


def milvus_index(setting: IndexSetting) -> MilvusIndex:
    """Return the index for a setting: `Flat`, `HNSW<M>` or `IVF<lists>,Flat`. ValueError for another."""
    for kind, (form, name) in _BUILT.items():
        if match := form.fullmatch(setting.factory):
            build = {name: int(match[1])} if name else {}
            more = {"efConstruction": _CONSTRUCTION} if kind == "HNSW" else {}
            if setting.rescored == 1:
                return MilvusIndex(kind=kind, build={**build, **more}, effort=setting.effort)
            raise ValueError(
                f"index rescores {setting.rescored} candidates a hit; Milvus keeps whole vectors: leave it out"
            )
    raise ValueError(
        f"index is {setting.factory!r}; for Milvus expected Flat, HNSW<links> such as HNSW32, or IVF<lists>,Flat such "
        "as IVF1024,Flat, each with :EFFORT if you like"
    )


def milvus_index_of(text: str) -> MilvusIndex:
    """Return the index for the text of `landseer serve --index`, or the default. ValueError."""
    return milvus_index(parsed(text or DEFAULT))


def described(index: MilvusIndex, found: Mapping[str, Any]) -> MilvusIndex:
    """Return the index that a collection has, as Milvus describes it; with the effort of `index` if of its kind."""
    kind = str(found.get("index_type", ""))
    return MilvusIndex(kind=kind, build={}, effort=index.effort if kind == index.kind else 0)
