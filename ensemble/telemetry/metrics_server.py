"""`/metrics` over HTTP or HTTPS."""

from __future__ import annotations

import logging
import socket
import threading
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from landseer.ensemble.config import split_address
from landseer.ensemble.security.certificates import Certificates
from landseer.ensemble.telemetry.metrics import Metrics

log = logging.getLogger(__name__)
PATIENCE_S = 10.0
"""How long a connection may take for its handshake and for its request."""


class MetricsServer:
    """Serves the registry over HTTP, or HTTPS with certificates, from separate threads. OSError for a taken port."""

    def __init__(self, metrics: Metrics, address: str, certificates: Certificates | None = None) -> None:
        host, port = split_address(address)

        class Server(_Server):
            pass

        try:
            Server.address_family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self._server = make_server(host, port, make_wsgi_app(metrics.registry), Server, _Quiet)
        except OSError as error:
            said = f"cannot serve metrics on {address}: {error.strerror}; choose another with --metrics"
            raise OSError(said) from error
        self._server.certificates = certificates
        self._thread = threading.Thread(target=self._server.serve_forever, name="landseer-metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The bound port."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop serving; blocks for up to half a second."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingWSGIServer):
    """One thread a connection. Handshakes happen there: one that hangs must not keep others waiting."""

    certificates: Certificates | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection."""
        request.settimeout(PATIENCE_S)
        if self.certificates is None:
            super().finish_request(request, client_address)
            return
        with self.certificates.current().context.wrap_socket(request, server_side=True) as encrypted:
            super().finish_request(encrypted, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log why a connection failed, at debug level: a port scan or a caller that went away."""
        log.debug("a connection to the metrics failed", exc_info=True)


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log no requests."""
