"""Models that are exported to be evaluated."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

import landseer.ensemble
import landseer.export
from landseer.export.build import Wanted, build
from landseer.export.exporter import ExportError, ExportOptions, export
from landseer.export.manifest import Manifest, ManifestError, file_sha256
from landseer.export.models.heads import HEADS
from landseer.export.models.torch_file import WeightsError
from landseer.export.models.trunks import BACKBONES
from landseer.export.to_onnx import OPSETS
from landseer.ops.errors import OpsError

HOME = Path("var/evaluate/models")
NEEDED = ("backbone", "detector", "cluster", "lattqe", "coattention")
"""The graphs that an evaluation needs."""


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """One --backbone on the command line, with the options that follow it."""

    backbone: str
    weights: Path | None = None
    descriptor: str | None = None
    parts: Path | None = None

    @property
    def label(self) -> str:
        """A name for display, without the chosen descriptor."""
        return " ".join([self.backbone, *(path.stem for path in (self.weights, self.parts) if path)])

    def check(self) -> None:
        """Raise OpsError, before any work, for a name that does not exist or a file that cannot be read."""
        for name, known, option in (
            (self.backbone, BACKBONES, "--backbone"),
            (self.descriptor, HEADS, "--descriptor"),
        ):
            if name is not None and name not in known:
                raise OpsError(f"got {option} {name}; expected one of {', '.join(known)}")
        for path, option in ((self.weights, "--weights"), (self.parts, "--parts")):
            if path is not None and not path.is_file():
                raise OpsError(f"got {option} {path}, which is not a file; name the file itself")


def exported(request: ExportRequest, console: Console, *, home: Path = HOME) -> Path:
    """Return the repository with the requested graphs, exported the first time. OpsError."""
    folder = home / f"{request.backbone}-{_key(request)}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _alone(folder):
            if not _is_whole(folder):
                _export(request, folder, console)
    except (ExportError, WeightsError, ManifestError) as error:
        raise OpsError(f"{request.label} cannot be exported: {error}") from error
    return folder


def _export(request: ExportRequest, folder: Path, console: Console) -> None:
    wanted = Wanted(
        backbone=request.backbone,
        weights=request.weights,
        descriptor=request.descriptor,
        parts=request.parts,
    )
    networks = build(wanted)
    # An export of some graphs adds to a manifest; this one is still empty.
    Manifest(profile=networks.profile, source=networks.source, graphs={}).write(folder)
    export(ExportOptions(wanted=wanted, only=NEEDED, opset=OPSETS[0], out=folder, dry_run=False), console)


def _is_whole(folder: Path) -> bool:
    try:
        return set(NEEDED) <= set(Manifest.read(folder).graphs)
    except ManifestError:
        return False


def _key(request: ExportRequest) -> str:
    """Hash what the graphs depend on: the contents of the files, and our own code."""
    files = [None if path is None else file_sha256(path) for path in (request.weights, request.parts)]
    digest = hashlib.sha256(json.dumps([request.backbone, request.descriptor, files]).encode())
    export_folder = Path(landseer.export.__file__).parent
    contracts = Path(landseer.ensemble.__file__).parent / "inference"
    trained = [path for path in export_folder.glob("trained/**/*") if path.is_file()]
    sources = [*export_folder.glob("*.py"), *export_folder.glob("models/*.py"), *trained]
    for path in (*sorted(sources), contracts / "contracts.py", contracts / "profile.py"):
        digest.update(file_sha256(path).encode())
    return digest.hexdigest()[:16]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lock the folder, so that two evaluations at once export only once."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
