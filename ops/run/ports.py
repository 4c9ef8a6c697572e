"""Ports for the servers on one machine."""

from __future__ import annotations

import random
import socket
import threading
from collections import deque

from landseer.ops.errors import OpsError

LOOPBACK = "127.0.0.1"
LOWEST = 10_000
HIGHEST = 31_999
"""Below Linux's ephemeral range, where a retrying client can connect to itself."""
ATTEMPTS = 200
_GIVEN: deque[int] = deque(maxlen=256)
"""The last ports that were given out: a server asks for several before it listens on any."""
_GIVING = threading.Lock()


def is_free(port: int, *, host: str = LOOPBACK) -> bool:
    """Return whether a server could listen on `port` of `host` now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do, so that a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(*, host: str = LOOPBACK) -> int:
    """Return a free port of `host` between 10000 and 31999, none of the last that this process was given.

    OpsError if none is found.
    """
    chooser = random.SystemRandom()
    for _ in range(ATTEMPTS):
        port = chooser.randint(LOWEST, HIGHEST)
        with _GIVING:
            if port not in _GIVEN and is_free(port, host=host):
                _GIVEN.append(port)
                return port
    raise OpsError(f"found no free port of {host} between {LOWEST} and {HIGHEST} in {ATTEMPTS} attempts; choose one")


def require_free(port: int, flag: str, *, host: str = LOOPBACK) -> int:
    """Return `port` if it is free; otherwise raise an OpsError that names the flag to change it."""
    if not 1 <= port <= 65_535:
        raise OpsError(f"{flag} is {port}; a port is between 1 and 65535")
    if not is_free(port, host=host):
        raise OpsError(f"port {port} of {host} is in use or not permitted; choose another with {flag}")
    return port


def parse_address(text: str, flag: str) -> tuple[str, int]:
    """Split HOST:PORT; OpsError, with the flag, if it has another form."""
    host, separator, port = text.rpartition(":")
    if not (separator and host and port.isdigit()):
        raise OpsError(f"{flag} is {text!r}; expected HOST:PORT, such as {LOOPBACK}:7070")
    return host.strip("[]"), int(port)


def port_or_auto(text: str) -> int | None:
    """Parse a port from the command line; `auto` is None. ValueError for anything else."""
    return None if text == "auto" else int(text)
