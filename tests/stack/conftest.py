"""The real thing: Triton with the exported models, orchestrators over it, clients, photographs.

One Triton and one orchestrator serve all tests that leave them running; each test puts its pictures under ids of its
own. A test that needs an index to itself starts a further orchestrator over the same Triton, which takes a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from stack.eager import Eager
from stack.photos import WHEEL, groceries, wheel
from stack.repository import exported
from stack.servers import Landseer, TritonClient

from landseer.ops.run.orchestrator import PATIENT, Orchestrator, OrchestratorConfig
from landseer.ops.run.ports import LOOPBACK, free_port
from landseer.ops.run.stack import Stack, StackConfig


@pytest.fixture(scope="session")
def repository(pytestconfig: pytest.Config) -> Path:
    """The models as these sources export them; kept for the next run, and made anew when a source has changed."""
    # It takes minutes: let its progress be seen.
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        return exported()


@pytest.fixture(scope="session")
def eager(repository: Path) -> Eager:
    return Eager()


@pytest.fixture(scope="session")
def stack(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Triton and an orchestrator, for tests that end neither."""
    store = tmp_path_factory.mktemp("stack") / "store"
    with Stack(StackConfig(repository=repository, store=store, serve_args=PATIENT)) as running:
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
