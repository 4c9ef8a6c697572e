"""Finds the Triton that pip installed, and lays out its backends together with ours."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from landseer.ops.errors import OpsError

BACKENDS = Path(__file__).resolve().parents[1] / "backend" / "backends"
STUB = "triton_python_backend_stub"
SUPPORTED = ((3, 10), (3, 11), (3, 12))


@dataclass(frozen=True, kw_only=True)
class TritonInstall:
    """The parts of the nvidia-pytriton wheel that we use."""

    server: Path
    """The executable."""
    libraries: Path
    """Folder of the shared libraries that the server and the stub need."""
    python_backend: Path
    """Folder of libtriton_python.so."""
    stub: Path
    """The Python backend's stub executable for the running Python."""

    def environment(self) -> dict[str, str]:
        """Return our environment, extended so that the server and its stubs find their libraries and our packages."""
        paths = [str(self.libraries), *_libpython_folders(), os.environ.get("LD_LIBRARY_PATH", "")]
        return {
            **os.environ,
            "LD_LIBRARY_PATH": os.pathsep.join(path for path in paths if path),
            # The interpreter in the stub finds its virtual environment by looking for `python3` on PATH.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        }

    def lay_out_backends(self, folder: Path) -> None:
        """Fill `folder` with a copy of the Python backend (Triton rejects links there) and links to our backends."""
        python = folder / "python"
        python.mkdir(parents=True)
        for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
            shutil.copy2(self.python_backend / name, python / name)
        (python / STUB).symlink_to(self.stub)
        for backend in (path.parent for path in BACKENDS.glob("*/model.py")):
            (folder / backend.name).symlink_to(backend)


def find_triton() -> TritonInstall:
    """Find Triton; OpsError if it is not installed or cannot run under this Python."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise OpsError("Triton is not installed; run: pip install 'landseer[triton]'")
    root = Path(spec.origin).parent
    server = root / "tritonserver"
    version = ".".join(map(str, running_python()))
    install = TritonInstall(
        server=server / "bin" / "tritonserver",
        libraries=root.parent / "nvidia_pytriton.libs",
        python_backend=server / "backends" / "python",
        stub=server / "python_backend_stubs" / version / STUB,
    )
    if not install.stub.exists() or running_python() not in SUPPORTED:
        raise OpsError(f"Python {version} is not supported; create the environment with Python 3.10, 3.11 or 3.12")
    _check_stub(install.stub, install.environment(), version)
    return install


def running_python() -> tuple[int, int]:
    """Return the major and minor version of the interpreter."""
    return sys.version_info[:2]


def _check_stub(stub: Path, environment: Mapping[str, str], version: str) -> None:
    """Check that the stub loads: without arguments it prints its usage and exits with 1."""
    ended = subprocess.run([stub], env=environment, capture_output=True, text=True, check=False, timeout=60)
    if ended.returncode == 1:
        return
    if f"libpython{version}" in ended.stderr:
        raise OpsError(
            f"Triton's Python backend needs libpython{version}.so, which is missing; run: apt-get install "
            f"libpython{version}, or create the environment with a Python built with --enable-shared"
        )
    reason = (ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"])[-1]
    raise OpsError(f"Triton's Python backend cannot run on this machine: {reason}")


def _libpython_folders() -> list[str]:
    """Return the folders with the running Python's shared library, for a Python other than the system's."""
    names = (sysconfig.get_config_var("LIBDIR"), str(Path(sys.base_prefix) / "lib"))
    library = "libpython{}.{}.so.1.0".format(*running_python())
    return list(dict.fromkeys(name for name in names if name and (Path(name) / library).exists()))
