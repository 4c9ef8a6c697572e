"""`tensorrt.json`: the engines in a repository, with their graphs, GPU and agreement with torch."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from landseer.export.manifest import file_sha256
from landseer.export.tensorrt.device import Device
from landseer.export.tensorrt.engine_config import PLAN_FILE, config_path
from landseer.export.tensorrt.errors import BuildError
from landseer.export.tensorrt.timing_cache import replace_file

FILE = "tensorrt.json"


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One graph's engine, or the reason why it has none."""

    version: str
    onnx_sha256: str
    """Hash of the graph it was built from."""
    precision: str | None
    """"fp16" or "fp32"; None if the ONNX graph is served."""
    refused: dict[str, list[str]]
    """Reasons by rejected precision."""
    profiles: list[Any] = field(default_factory=list)
    parity: dict[str, float] = field(default_factory=dict)
    """By output: the worst agreement with eager fp32 torch over all cases; 1 is perfect."""


@dataclass(frozen=True, kw_only=True)
class EngineRecord:
    """All engines of a repository, built on one GPU with one TensorRT version."""

    device: Device
    version_compatible: bool
    graphs: dict[str, Engine]

    @classmethod
    def read(cls, repository: Path) -> EngineRecord | None:
        """Read a repository's record; None if there is none. BuildError if it cannot be read."""
        path = repository / FILE
        try:
            data = json.loads(path.read_text())
            return cls(
                device=Device(**data["device"]),
                version_compatible=bool(data["version_compatible"]),
                graphs={name: Engine(**engine) for name, engine in data["graphs"].items()},
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BuildError(f"{path} cannot be read ({error}): delete it and build the engines again") from error

    def write(self, repository: Path) -> None:
        """Write atomically. BuildError if it cannot be written."""
        data = dataclasses.asdict(self) | {"graphs": {n: dataclasses.asdict(e) for n, e in sorted(self.graphs.items())}}
        replace_file(repository / FILE, (json.dumps(data, indent=2) + "\n").encode())

    def alike(self, other: EngineRecord) -> bool:
        """Return whether engines of both may share a repository."""
        return (self.device, self.version_compatible) == (other.device, other.version_compatible)


def drop_stale(repository: Path) -> list[str]:
    """Remove engines whose ONNX graph has changed, so that Triton serves the graph. Returns the graphs' names.

    BuildError if the record cannot be read.
    """
    record = EngineRecord.read(repository)
    stale = [name for name, engine in record.graphs.items() if _is_stale(repository, name, engine)] if record else []
    if record is None or not stale:
        return []
    for name in stale:
        remove_engine(repository, name)
    EngineRecord(
        device=record.device,
        version_compatible=record.version_compatible,
        graphs={name: engine for name, engine in record.graphs.items() if name not in stale},
    ).write(repository)
    return [name for name in stale if record.graphs[name].precision]


def remove_engine(repository: Path, name: str) -> None:
    """Remove a graph's engines, their configuration first: from then on Triton serves the ONNX graph."""
    (repository / config_path(name)).unlink(missing_ok=True)
    for plan in (repository / name).glob(f"*/{PLAN_FILE}"):
        plan.unlink()


def _is_stale(repository: Path, name: str, engine: Engine) -> bool:
    """Return whether the engine is missing or was not built from the newest version, which Triton serves."""
    versions = [int(path.name) for path in (repository / name).glob("*") if path.name.isdecimal()]
    graph = repository / name / engine.version / "model.onnx"
    newest = versions and max(versions) == int(engine.version)
    gone = engine.precision is not None and not graph.with_name(PLAN_FILE).exists()
    return gone or not newest or not graph.exists() or file_sha256(graph) != engine.onnx_sha256
