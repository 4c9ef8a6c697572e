"""Starting and ending a real Triton."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request

import psutil
import pytest

from landseer.ops.errors import OpsError
from landseer.ops.run.ports import free_port
from landseer.ops.run.triton import TritonConfig, TritonServer

pytestmark = pytest.mark.stack


def test_start_and_stop_leave_nothing(small_repository, leftovers, session_of, tmp_path):
    log = tmp_path / "triton.log"
    server = TritonServer(TritonConfig(repository=small_repository, log_file=log, verbose=True))
    with server:
        server.wait_ready(60)
        assert len(session_of(server.pid)) == 2, "tritonserver and one stub"
        assert leftovers(os.getpid())
        with urllib.request.urlopen(server.metrics_url, timeout=5) as answer:
            assert b"nv_inference_count" in answer.read()
        for port in (server.config.http_port, server.config.grpc_port, server.config.metrics_port):
            assert _listens_on_loopback_only(port)
    assert server.returncode == 0
    assert not server.alive
    assert session_of(server.pid) == []
    assert not leftovers(os.getpid())
    assert "onnxruntime, fp32, 1 threads" in log.read_text()


def test_killed_triton_leaves_nothing_and_starts_again_on_the_same_ports(small_repository, leftovers, session_of):
    with TritonServer(TritonConfig(repository=small_repository)) as server:
        server.wait_ready(60)
        before, url = server.pid, server.grpc_url
        os.kill(before, signal.SIGKILL)
        assert server._child.wait(15) == 128 + signal.SIGKILL
        assert session_of(before) == []
        assert not leftovers(os.getpid())
        server.start()
        server.wait_ready(60)
        assert server.pid != before
        assert server.grpc_url == url
    assert not leftovers(os.getpid())


def test_a_dead_stub_ends_triton(small_repository, leftovers, session_of, eventually):
    """Left alone, Triton would report the model ready for ever, and fail every request for it."""
    with TritonServer(TritonConfig(repository=small_repository)) as server:
        server.wait_ready(60)
        assert server.look() and server.look()
        [stub] = [pid for pid in session_of(server.pid) if pid != server.pid]
        os.kill(stub, signal.SIGKILL)
        assert eventually(lambda: not server.look(), 10)
        assert "the process of one of its models died" in server.explain()
        assert session_of(server.pid) == []
    assert not leftovers(os.getpid())


def test_killed_launcher_leaves_nothing(small_repository, leftovers, session_of, eventually):
    code = f"""
import sys, time
from pathlib import Path
from landseer.ops.run.triton import TritonConfig, TritonServer
server = TritonServer(TritonConfig(repository=Path({str(small_repository)!r})))
server.start()
server.wait_ready(60)
print(server.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as launcher:
        pid = int(launcher.stdout.readline())
        assert len(session_of(pid)) == 2
        launcher.kill()
    assert eventually(lambda: not session_of(pid), 20)
    assert eventually(lambda: not leftovers(launcher.pid), 5)


def test_a_broken_model_is_named(tmp_path, make_model, make_config, leftovers):
    make_model(tmp_path, "tiny", make_config("tiny", openvino=False))
    (tmp_path / "tiny" / "1" / "model.onnx").write_bytes(b"not a graph")
    with TritonServer(TritonConfig(repository=tmp_path)) as server:
        with pytest.raises(
            OpsError, match=r"failed to load 'tiny' version 1: .*Load model from .*model.onnx failed"
        ) as raised:
            server.wait_ready(60)
        assert "\n" not in str(raised.value)
        assert len(str(raised.value)) < 600
    assert not leftovers(os.getpid())


def test_an_unknown_output_is_named(tmp_path, make_model, make_config):
    make_model(tmp_path, "tiny", make_config("tiny").replace('"stripes"', '"spots"'))
    with (
        TritonServer(TritonConfig(repository=tmp_path)) as server,
        pytest.raises(OpsError, match=r"the graph has no output 'spots'; its outputs are descriptor, stripes"),
    ):
        server.wait_ready(60)


def test_a_repository_that_is_missing_or_empty(tmp_path):
    for repository, message in ((tmp_path / "none", "does not exist"), (tmp_path, "has no models")):
        with pytest.raises(OpsError, match=rf"{message}; run: python export/all.py"):
            TritonServer(TritonConfig(repository=repository)).start()


def test_a_port_that_is_taken(small_repository):
    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port()))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(OpsError, match=rf"port {port} .*--grpc-port"):
            TritonServer(TritonConfig(repository=small_repository, grpc_port=port)).start()


def test_a_log_file_that_cannot_be_written(small_repository, tmp_path):
    with pytest.raises(OpsError, match="cannot write the log file"):
        TritonServer(TritonConfig(repository=small_repository, log_file=tmp_path)).start()


def test_without_the_wheel(small_repository, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(OpsError, match=r"Triton is not installed.*pip install 'landseer\[triton\]'"):
        TritonServer(TritonConfig(repository=small_repository)).start()


def test_an_unsupported_python(small_repository, monkeypatch):
    monkeypatch.setattr("landseer.ops.run.triton_install.running_python", lambda: (3, 13))
    with pytest.raises(OpsError, match=r"Python 3.13 is not supported.*3.10, 3.11 or 3.12"):
        TritonServer(TritonConfig(repository=small_repository)).start()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_runs_until_it_is_told_to_end(number, small_repository, leftovers):
    options = ["--http-port", "auto", "--grpc-port", "auto", "--metrics-port", "auto"]
    command = [sys.executable, "-m", "landseer.client.cli", "triton", "--repository", str(small_repository), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        ready = process.stdout.readline()
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert ready.startswith("Triton is ready: gRPC 127.0.0.1:"), ready + errors
    assert process.returncode == 0
    assert errors == "", "nothing to say on a machine without a GPU"
    assert not leftovers(process.pid)


CALLER = """
import asyncio, sys
import numpy as np
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.grpc.aio import InferenceServerClient

async def one(client, image):
    while True:
        await client.infer("brief", [image], outputs=[InferRequestedOutput("descriptor")], client_timeout=30)
        print("answered", flush=True)

async def main():
    image = InferInput("image", [1, 256, 256, 3], "UINT8")
    image.set_data_from_numpy(np.zeros((1, 256, 256, 3), np.uint8))
    client = InferenceServerClient(sys.argv[1])
    await asyncio.gather(*(one(client, image) for _ in range(16)))

asyncio.run(main())
"""


def test_the_command_outlives_killed_callers_and_starts_a_killed_triton_again(full_repository, leftovers, eventually):
    """Without the relay half of the kills crash Triton 2.51 with the real models (docs/triton.md)."""
    options = ["--http-port", "auto", "--grpc-port", "auto", "--metrics-port", "auto"]
    command = [sys.executable, "-m", "landseer.client.cli", "triton", "--repository", str(full_repository), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().split()[4].rstrip(",")
        before = _tritonserver(process.pid)
        for _ in range(10):
            with subprocess.Popen([sys.executable, "-c", CALLER, address], stdout=subprocess.PIPE) as caller:
                assert caller.stdout.readline() == b"answered\n"
                caller.kill()
        assert eventually(lambda: _tritonserver(process.pid) == before, 1)
        os.kill(before, signal.SIGKILL)
        assert "Triton ended (killed by signal 9: " in process.stderr.readline()
        assert "Triton is ready again" in process.stderr.readline()
        assert _tritonserver(process.pid) not in (None, before)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not leftovers(process.pid)


def _tritonserver(launcher):
    """The process id of the one Triton that a launcher has started."""
    children = psutil.Process(launcher).children(recursive=True)
    found = [child.pid for child in children if (child.cmdline() or [""])[0].endswith("/tritonserver")]
    return found[0] if found else None


def test_the_command_says_in_one_line_what_is_wrong(tmp_path):
    command = [sys.executable, "-m", "landseer.client.cli", "triton", "--repository", str(tmp_path / "none")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert "run: python export/all.py" in ended.stderr


def _listens_on_loopback_only(port):
    sockets = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    addresses = {one.laddr.ip for one in sockets if one.laddr.port == port}
    return len(addresses) == 1 and addresses <= {"127.0.0.1", "::ffff:127.0.0.1"}
