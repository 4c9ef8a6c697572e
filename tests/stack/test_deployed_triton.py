"""Triton with the very line of ops/deploy/compose.yaml, and the relay before it: an orchestrator can use it, and nobody
can change it.

It is the Triton that pip brings and not NVIDIA's container: paths, ports and backends are others, its words the same.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import grpc
import pytest
import tritonclient.grpc as tritonclient
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from stack.photos import wheel
from stack.servers import Landseer, within
from tritonclient.utils import InferenceServerException

from landseer.ops.run.orchestrator import Orchestrator, OrchestratorConfig
from landseer.ops.run.ports import LOOPBACK, free_port
from landseer.ops.run.processes import Child, ChildConfig
from landseer.ops.run.triton_install import find_triton

pytestmark = pytest.mark.stack

COMPOSE = Path(__file__).resolve().parents[2] / "ops" / "deploy" / "compose.yaml"
COFFEE = wheel("coffee.png")


@pytest.fixture(scope="module")
def triton(repository, tmp_path_factory):
    """host:port of the relay before a Triton, both started as in the compose file, and a client of Triton itself."""
    install, backends = find_triton(), tmp_path_factory.mktemp("backends")
    install.lay_out_backends(backends)
    address, metrics = f"{LOOPBACK}:{free_port()}", free_port()
    shared = f"landseer-deployed-{metrics}-"
    child = Child.start(
        ChildConfig(
            command=["/bin/sh", "-c", line(install.server, repository, address, metrics, backends, shared)],
            env=install.environment(),
            remove=(f"/dev/shm/{shared}*",),
        )
    )
    before = f"{LOOPBACK}:{free_port()}"
    relay = Child.start(ChildConfig(command=relay_command(before, address)))
    try:
        with tritonclient.InferenceServerClient(address) as client:
            within(120, lambda: child.poll() is not None or ready(client))
            assert child.poll() is None, list(child.lines)[-5:]
            yield before, client
    finally:
        child.stop()
        relay.stop()


def relay_command(listen, triton):
    """The relay's line of the compose file for this machine."""
    [service] = [yaml.safe_load(COMPOSE.read_text())["services"]["relay"]]
    here = {
        "python": sys.executable,
        "--listen=0.0.0.0:8001": f"--listen={listen}",
        "--triton=triton:8003": f"--triton={triton}",
    }
    words = [*service["entrypoint"], *service["command"]]
    assert set(here) <= set(words)
    return [here.get(word, word) for word in words]


def line(server, repository, address, metrics, backends, shared):
    """The shell's line of the compose file for this machine."""
    [script] = yaml.safe_load(COMPOSE.read_text())["services"]["triton"]["command"]
    host, _, port = address.rpartition(":")
    here = {
        "tritonserver": str(server),
        "--model-repository=/models": f"--model-repository={repository}",
        "--grpc-address=0.0.0.0": f"--grpc-address={host}",
        "--grpc-port=8003": f"--grpc-port={port}",
        "--metrics-address=0.0.0.0": f"--metrics-address={host}",
        "--metrics-port=8002": f"--metrics-port={metrics}",
    }
    words = script.strip().split(" ")
    assert set(here) <= set(words)
    ours = [f"--backend-directory={backends}", "--model-config-name=pip", "--allow-gpu-metrics=false"]
    return " ".join([here.get(word, word) for word in words] + ours) + (
        f" --backend-config=python,shm-region-prefix-name={shared}"
    )


def ready(client):
    try:
        return client.is_server_ready()
    except InferenceServerException:
        return False


def test_kubernetes_hears_through_the_relay_that_it_is_ready(triton):
    with grpc.insecure_channel(triton[0]) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_an_orchestrator_serves_from_it(triton, tmp_path):
    listen, metrics = f"{LOOPBACK}:{free_port()}", f"{LOOPBACK}:{free_port()}"
    server = Orchestrator(
        OrchestratorConfig(listen=listen, triton=triton[0], store=tmp_path / "store", metrics=metrics)
    )
    landseer = Landseer(listen, f"http://{metrics}/metrics")
    try:
        server.start()
        server.wait_ready()
        landseer.put({"deployed/coffee": COFFEE})
        answer = landseer.client.search(COFFEE, top_k=1, reranking="coattention")
        assert [hit.id for hit in answer.hits] == ["deployed/coffee"]
        assert not answer.degradations
    finally:
        landseer.close()
        server.stop()


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.load_model("backbone"),
        lambda client: client.load_model("backbone", config="{}"),
        lambda client: client.unload_model("backbone"),
        lambda client: client.register_system_shared_memory("mine", "/any", 64),
        lambda client: client.get_system_shared_memory_status(),
        lambda client: client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}),
        lambda client: client.get_trace_settings(),
        lambda client: client.update_log_settings({"log_verbose_level": 2}),
        lambda client: client.get_log_settings(),
    ],
    ids=["load", "load-other", "unload", "share", "shares", "trace", "traces", "log", "logs"],
)
def test_nobody_changes_it_or_reads_its_memory(triton, call):
    _, client = triton
    with pytest.raises(InferenceServerException) as refused:
        call(client)
    assert re.search(r"protocol is restricted|load / unload is not allowed", str(refused.value))
    assert client.is_model_ready("backbone")
