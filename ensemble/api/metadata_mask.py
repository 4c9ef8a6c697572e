"""Which metadata an answer has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from landseer.ensemble.errors import InvalidInput
from landseer.v1 import common_pb2

_MOST = 100
"""Names of each kind in a request."""


@dataclass(frozen=True)
class MetadataMask:
    """Names of fields; one that ends in `*` stands for all that begin so."""

    include: tuple[str, ...] = ()
    """Empty for all."""
    exclude: tuple[str, ...] = ()

    def of(self, metadata: Mapping[str, str]) -> Mapping[str, str]:
        """Return the metadata that are wanted."""
        if not self.include and not self.exclude:
            return metadata
        return {
            name: value
            for name, value in metadata.items()
            if (not self.include or _named(name, self.include)) and not _named(name, self.exclude)
        }


def metadata_mask(request: common_pb2.MetadataMask) -> MetadataMask:
    """Return the mask of a request. InvalidInput for too many names."""
    for field in ("include", "exclude"):
        if (count := len(getattr(request, field))) > _MOST:
            raise InvalidInput(f"metadata_mask.{field}", f"got {count} names; expected at most {_MOST}")
    return MetadataMask(tuple(request.include), tuple(request.exclude))


def _named(name: str, patterns: Sequence[str]) -> bool:
    return any(name.startswith(one[:-1]) if one.endswith("*") else name == one for one in patterns)
