import socket
import threading

import pytest

from landseer.ops.chaos.proxy import Proxy


@pytest.fixture
def echo():
    """A server that sends back what it receives."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection):
            with connection:
                while data := connection.recv(4096):
                    connection.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(echo):
    with Proxy(echo) as running:
        yield running


def connect(proxy):
    host, _, port = proxy.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=5.0)


def silent(connection):
    connection.settimeout(0.2)
    try:
        return not connection.recv(10)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(5.0)


def test_what_was_sent_while_it_was_frozen_arrives_when_it_thaws(proxy):
    with connect(proxy) as old:
        old.sendall(b"one")
        assert old.recv(10) == b"one"
        proxy.freeze()
        with connect(proxy) as new:
            for connection in (old, new):
                connection.sendall(b"two")
                assert silent(connection)
            proxy.thaw()
            assert old.recv(10) == new.recv(10) == b"two"


def test_forgotten_connections_stay_silent_and_new_ones_work(proxy):
    with connect(proxy) as old:
        old.sendall(b"one")
        assert old.recv(10) == b"one"
        proxy.lose()
        old.sendall(b"two")
        assert silent(old)
        with connect(proxy) as new:
            new.sendall(b"three")
            assert new.recv(10) == b"three"
        assert silent(old)


def test_its_end_closes_every_connection(proxy):
    with connect(proxy) as connection:
        connection.sendall(b"one")
        assert connection.recv(10) == b"one"
        proxy.stop()
        with pytest.raises(ConnectionError):
            while connection.recv(10):
                pass
            raise ConnectionError
