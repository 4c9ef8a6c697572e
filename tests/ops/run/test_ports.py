from __future__ import annotations

import socket
from collections import deque

import pytest

from landseer.ops.errors import OpsError
from landseer.ops.run import ports
from landseer.ops.run.ports import HIGHEST, LOWEST, free_port, is_free, parse_address, port_or_auto, require_free


def test_free_port_is_below_the_ephemeral_range_and_free():
    given = {free_port() for _ in range(20)}
    assert all(LOWEST <= port <= HIGHEST for port in given)
    assert len(given) == 20
    with socket.socket() as server:
        server.bind(("127.0.0.1", given.pop()))


def test_a_port_somebody_listens_on_is_refused_with_the_flag():
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
        server.listen()
        port = server.getsockname()[1]
        assert not is_free(port)
        with pytest.raises(OpsError, match=rf"port {port} of 127.0.0.1 is in use.*--grpc-port"):
            require_free(port, "--grpc-port")
    assert require_free(port, "--grpc-port") == port


def test_a_port_out_of_range_is_refused():
    with pytest.raises(OpsError, match="--http-port is 70000"):
        require_free(70_000, "--http-port")


def test_addresses():
    assert parse_address("127.0.0.1:7070", "--listen") == ("127.0.0.1", 7070)
    assert parse_address("[::1]:7070", "--listen") == ("::1", 7070)
    for wrong in ("7070", "host:", ":7070", "host:x"):
        with pytest.raises(OpsError, match=r"--listen is .* expected HOST:PORT"):
            parse_address(wrong, "--listen")
    assert port_or_auto("auto") is None
    assert port_or_auto("8000") == 8000


def test_a_port_is_not_given_twice_before_a_server_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "HIGHEST", ports.LOWEST + 40)
    monkeypatch.setattr(ports, "_GIVEN", deque(maxlen=256))
    given = [ports.free_port() for _ in range(12)]
    assert len(set(given)) == len(given)
