from __future__ import annotations

import logging
import os
import threading

import pytest

from landseer.ensemble.telemetry.logs import JsonFormatter
from landseer.ops.errors import OpsError
from landseer.ops.run.orchestrator import Orchestrator, OrchestratorConfig, Warnings, _command, _told
from landseer.ops.run.ports import free_port
from landseer.ops.run.restarts import Restarts
from landseer.ops.run.stack import Stack, StackConfig
from landseer.ops.run.watched import Watched


class Server:
    """Replaces either server; starts after a given number of failures."""

    def __init__(self, failures=0):
        self.running, self.failures, self.starts, self.returncode = True, failures, 0, 137

    def look(self):
        return self.running

    def explain(self):
        return "no memory"

    def stop(self):
        self.running = False

    def start(self, stop):
        self.starts += 1
        if self.starts <= self.failures:
            raise OpsError("cannot start: no disk")
        self.running = True


def watch(server, **more):
    restarts = Restarts(name="Triton", first_delay_s=0.0, **more)
    said = []
    Watched(server, restarts, server.start).look(threading.Event(), said.append)
    return said


def test_a_server_that_runs_is_left_alone():
    server = Server()
    assert watch(server) == []
    assert server.starts == 0


def test_a_server_that_ended_is_started_until_it_runs():
    server = Server(failures=2)
    server.running = False
    said = watch(server)
    assert server.running
    assert said == [
        "Triton ended (killed by signal 9: no memory); restarting it in 0 s",
        "Triton ended (cannot start: no disk); restarting it in 0 s",
        "Triton ended (cannot start: no disk); restarting it in 0 s",
        "Triton is ready again",
    ]


def test_gives_up_with_the_last_reason():
    server = Server(failures=99)
    server.running = False
    with pytest.raises(OpsError, match=r"Triton ended 3 times in a row.*no disk"):
        watch(server, most=3)


def test_a_stack_that_is_told_to_stop_starts_nothing():
    server, stop = Server(), threading.Event()
    server.running = False
    stop.set()
    Watched(server, Restarts(name="Triton"), server.start).look(stop, print)
    assert server.starts == 0


def test_addresses(tmp_path):
    stack = Stack(StackConfig(repository=tmp_path, store=tmp_path))
    assert stack.search_address.startswith("127.0.0.1:")
    assert stack.metrics_address.startswith("http://127.0.0.1:")
    with pytest.raises(OpsError, match="--listen is 'here'; expected HOST:PORT"):
        Stack(StackConfig(listen="here"))


def test_only_warnings_are_picked_with_all_their_lines():
    picks = Warnings()
    log = [
        ("Traceback before the log", True),
        ("2026-11-21 03:19:10,561 INFO faiss: could not load:", False),
        ("ModuleNotFoundError: avx512", False),
        ("landseer serve: the port is taken", True),
        ("2026-11-21 03:19:10,561 ERROR server: failed", True),
        ("Traceback of the error", True),
        ("2026-11-21 03:19:10,562 INFO server: next", False),
    ]
    assert [(line, picks.pick(line)) for line, _ in log] == log


def test_warnings_are_picked_from_a_log_in_json():
    def written(level):
        return JsonFormatter().format(logging.LogRecord("server", level, "", 1, "said", (), None))

    picks = Warnings()
    log = [
        (written(logging.INFO), False),
        ("Segmentation fault, written outside the log", True),
        (written(logging.WARNING), True),
        (written(logging.DEBUG), False),
    ]
    assert [(line, picks.pick(line)) for line, _ in log] == log


def test_a_record_in_json_is_told_as_text():
    record = logging.LogRecord("server", logging.CRITICAL, "", 1, "the port is taken", (), None)
    assert _told(JsonFormatter().format(record)) == "landseer serve: the port is taken"
    cut_short = JsonFormatter().format(record)[:-3]
    assert _told(cut_short) == cut_short
    assert _told("landseer serve: {") == "landseer serve: {"


@pytest.mark.stack
def test_an_orchestrator_that_cannot_start_is_explained_and_leaves_nothing(small_repository, tmp_path, leftovers):
    config = StackConfig(
        repository=small_repository,
        store=tmp_path / "store",
        listen=f"127.0.0.1:{free_port()}",
        serve_args=("--engine", "abacus"),
    )
    stack = Stack(config)
    with pytest.raises(OpsError, match=r"the server ended while starting \(status 2\): .*abacus"), stack:
        pass
    assert not stack.triton.alive
    assert not leftovers(os.getpid())


def test_an_orchestrator_with_tls_is_ready_when_its_file_says_so(tmp_path):
    file = tmp_path / "ready"
    config = OrchestratorConfig(
        listen="127.0.0.1:1", triton="127.0.0.1:1", store=tmp_path, metrics="none", ready_file=file
    )
    assert [*_command(config)[-2:]] == ["--ready-file", str(file)]
    assert not Orchestrator(config).ready
    file.touch()
    assert Orchestrator(config).ready
