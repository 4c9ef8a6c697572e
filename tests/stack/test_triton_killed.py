"""Triton dies and comes back. LANDSEER_KILLS (`make chaos`) tells how often: 2 times by default, 50 at most."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import grpc
import psutil
import pytest
from stack.photos import strips, wheel
from stack.servers import Landseer, within

from landseer.ops.run.orchestrator import PATIENT
from landseer.ops.run.ports import LOOPBACK, free_port
from landseer.ops.run.stack import Stack, StackConfig
from landseer.v1 import index_pb2, search_pb2

pytestmark = pytest.mark.stack

# A kill with its recovery takes up to 15 s here; the full count, meant for kills that take none, would take hours.
KILLS = min(int(os.environ.get("LANDSEER_KILLS", "2")), 50)
COFFEE = wheel("coffee.png").read_bytes()


def leftovers(launcher):
    """Return what a launcher has in shared memory and among temporary files."""
    folders = (Path("/dev/shm"), Path(tempfile.gettempdir()))
    return [str(path) for folder in folders for path in folder.glob(f"landseer-{launcher}-*")]


def family(pid):
    """Return every process that descends from `pid`, itself included, zombies left out."""
    try:
        root = psutil.Process(pid)
        return alive({pid, *(child.pid for child in root.children(recursive=True))})
    except psutil.NoSuchProcess:
        return set()


def alive(pids):
    """Return those of the processes that still run, zombies left out."""
    return {pid for pid in pids if runs(pid)}


def runs(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def triton_of(pids):
    """Return the one process among them that runs tritonserver."""
    [found] = [pid for pid in pids if words_of(pid)[0].endswith("/tritonserver")]
    return found


def orchestrator_of(pids):
    """Return the one process among them that runs `landseer serve`."""
    [found] = [pid for pid in pids if {"serve", "--triton"} <= set(words_of(pid))]
    return found


def words_of(pid):
    return psutil.Process(pid).cmdline() or [""]


def refused_at_once(landseer, call, request):
    began = time.monotonic()
    refusal = landseer.refused(call, request)
    assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "MODELS_UNAVAILABLE"), refusal
    assert refusal.retry_s and refusal.retry_s > 0
    assert time.monotonic() - began < 2.0


@pytest.fixture(scope="module")
def stack(repository, tmp_path_factory):
    """One of our own, to be killed."""
    store = tmp_path_factory.mktemp("killed") / "store"
    with Stack(StackConfig(repository=repository, store=store, serve_args=PATIENT)) as running:
        yield running


@pytest.fixture(scope="module")
def landseer(stack):
    handle = Landseer(stack.search_address, stack.metrics_address)
    yield handle
    handle.close()


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_a_killed_triton_and_its_return(stack, landseer, busy):
    landseer.put({f"killed/{number}": image for number, image in enumerate(strips(5))} | {"killed/coffee": COFFEE})
    # The idle one was the first kill of this Triton.
    for _ in range(max(1, KILLS - 1) if busy else 1):
        with searching(landseer, 6 if busy else 0) as failures:
            if busy:
                within(10, lambda: landseer.in_flight() > 0)
            began = time.monotonic()
            os.kill(stack.triton.pid, signal.SIGKILL)
            within(5, lambda: not landseer.serving())
            assert time.monotonic() - began < 5
        assert set(failures) <= {"UNAVAILABLE"}, failures
        assert stack.orchestrator.alive
        within(5, lambda: landseer.metric("landseer_serving") == 0)

        refused_at_once(landseer, landseer.search.Search, search_pb2.SearchRequest(image=COFFEE))
        refused_at_once(landseer, landseer.search.Describe, search_pb2.DescribeRequest(image=COFFEE))
        picture = index_pb2.Picture(id="killed/new", image=COFFEE)
        refused_at_once(landseer, landseer.index.Upsert, index_pb2.UpsertRequest(picture=picture))
        # What needs no model is answered all the same.
        assert len(landseer.client.search("killed/coffee").hits) == 5
        assert landseer.client.get("killed/coffee", include_vectors=True).descriptor
        assert landseer.client.stats().pictures == 6

        # Its guard cleans up after it; whoever starts it again waits for that.
        within(15, lambda: not stack.triton.alive)
        stack.triton.start()
        stack.triton.wait_ready()
        within(10, landseer.serving)
        assert landseer.client.search(COFFEE, top_k=1).hits[0].id == "killed/coffee"
        within(5, lambda: landseer.in_flight() == 0)
    assert landseer.client.search(COFFEE, reranking="coattention", explain=True).hits[0].explanation.thumbnail


def test_up_starts_a_killed_triton_and_orchestrator_again_and_leaves_nothing(repository, tmp_path):
    listen, metrics = f"{LOOPBACK}:{free_port()}", f"{LOOPBACK}:{free_port()}"
    process = up(repository, tmp_path, listen, metrics)
    landseer = Landseer(listen, f"http://{metrics}/metrics")
    try:
        within(120, landseer.serving)
        landseer.put({"up/coffee": COFFEE})
        for which in ([triton_of, orchestrator_of] * KILLS)[:KILLS]:
            before = family(process.pid)
            killed = which(before)
            os.kill(killed, signal.SIGKILL)
            within(10, lambda: not landseer.serving())
            within(90, landseer.serving)
            assert killed not in family(process.pid)
            assert landseer.client.search(COFFEE, top_k=1).hits[0].id == "up/coffee"
        ours = family(process.pid)
        assert len(ours) > 3 and leftovers(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        landseer.close()
        process.kill()
        process.wait()
    assert not alive(ours)
    assert not leftovers(process.pid)


def test_up_killed_itself_leaves_nothing(repository, tmp_path):
    listen, metrics = f"{LOOPBACK}:{free_port()}", f"{LOOPBACK}:{free_port()}"
    process = up(repository, tmp_path, listen, metrics)
    landseer = Landseer(listen, f"http://{metrics}/metrics")
    try:
        within(120, landseer.serving)
        ours = family(process.pid)
        assert len(ours) > 3 and leftovers(process.pid)
    finally:
        landseer.close()
        process.kill()
        process.wait()
    within(30, lambda: not alive(ours))
    within(5, lambda: not leftovers(process.pid))


def up(repository, folder, listen, metrics):
    """Start the real command; its log goes to a file in `folder`."""
    options = ["--repository", str(repository), "--store", str(folder / "store"), "--listen", listen]
    with (folder / "up.log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "landseer.client.cli", "up", *options, "--metrics", metrics],
            stdout=log,
            stderr=subprocess.STDOUT,
        )


class searching:
    """Callers who search all the time while its block runs; gives the codes of what failed."""

    def __init__(self, landseer, callers):
        self._landseer, self._stop, self._codes = landseer, threading.Event(), []
        self._threads = [threading.Thread(target=self._search) for _ in range(callers)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self._codes

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _search(self):
        while not self._stop.is_set():
            try:
                self._landseer.search.Search(search_pb2.SearchRequest(image=COFFEE), timeout=30)
            except grpc.RpcError as error:
                self._codes.append(error.code().name)
                self._stop.wait(0.05)
