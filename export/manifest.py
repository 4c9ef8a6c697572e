"""`manifest.json`: the graphs of an export, their origin, and their agreement with torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landseer.ensemble.inference.contracts import Graph
from landseer.ensemble.inference.profile import Profile
from landseer.export.build import UNTRAINED

FILE = "manifest.json"


class ManifestError(RuntimeError):
    """The manifest is missing or unreadable."""


@dataclass(frozen=True, kw_only=True)
class ManifestEntry:
    """One graph."""

    sha256: str
    opset: int
    precision: str
    """Serving precision, "bf16" or "fp32"; bf16 is used only on CPUs that have it."""
    bf16_refused: list[str]
    """Outputs below their bf16 limits, if that is why fp32 is served; empty otherwise."""
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    parity: dict[str, dict[str, float]]
    """By engine and output: the worst agreement with eager fp32 torch over all cases; 1 is perfect."""

    @classmethod
    def of(cls, graph: Graph, **figures: Any) -> ManifestEntry:
        """Return the entry of a graph with its tensor contract. figures: the other fields."""
        inputs, outputs = ([dataclasses.asdict(t) for t in tensors] for tensors in (graph.inputs, graph.outputs))
        return cls(inputs=inputs, outputs=outputs, **figures)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All graphs of a repository and their common profile."""

    profile: Profile
    source: str
    graphs: dict[str, ManifestEntry]

    @classmethod
    def read(cls, repository: Path) -> Manifest:
        """Read a repository's manifest. ManifestError if it is missing or unreadable."""
        path = repository / FILE
        try:
            data = json.loads(path.read_text())
            return cls(
                profile=Profile.from_json(json.dumps(data["profile"])),
                source=data["source"],
                graphs={name: ManifestEntry(**entry) for name, entry in data["graphs"].items()},
            )
        except FileNotFoundError as error:
            raise ManifestError(f"{repository} holds no export yet: run without --only first") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ManifestError(f"{path} cannot be read ({error}): export again without --only") from error

    def write(self, repository: Path) -> None:
        """Write atomically."""
        data = {
            "profile": json.loads(self.profile.to_json()),
            "source": self.source,
            "untrained": {part: UNTRAINED[part] for part in self.profile.untrained},
            "graphs": {name: dataclasses.asdict(entry) for name, entry in sorted(self.graphs.items())},
        }
        staged = repository / f".{FILE}"
        staged.write_text(json.dumps(data, indent=2) + "\n")
        staged.replace(repository / FILE)


def file_sha256(path: Path) -> str:
    """Hash a file without reading it whole into memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
