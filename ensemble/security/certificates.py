"""The server's certificate, for gRPC and for metrics, read again when its files change."""

from __future__ import annotations

import logging
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

import grpc

from landseer.client.watched_files import WatchedFiles
from landseer.ensemble.config import ServerConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What the files held at one time, found to fit together."""

    certificate: bytes
    """PEM: ours, then those between us and the authority."""
    key: bytes
    client_ca: bytes | None
    context: ssl.SSLContext


class Certificates:
    """A certificate with its key, and the authority of clients' certificates if clients must have one.

    Each handshake looks whether the files have changed. Ones that do not fit together, as while the certificate is
    replaced and the key is not yet, leave the former in use. ValueError if they do not fit at the start.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._watched = WatchedFiles(*(path for path in (certificate, key, client_ca) if path is not None))
        self._lock = threading.Lock()
        try:
            self._watched.changed()
            self._loaded = self._load()
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot use {self._names()}: {_reason(error)}") from error

    def current(self) -> Loaded:
        """Return the certificate to use now. Any thread may call it."""
        with self._lock:
            try:
                if self._watched.changed():
                    self._loaded = self._load()
                    log.info("read %s again", self._names())
            except (OSError, ValueError) as error:
                log.warning("cannot use the new %s, the former stay in use: %s", self._names(), _reason(error))
            return self._loaded

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Return credentials that follow the files."""
        given = [self.current()]

        def changed() -> grpc.ServerCertificateConfiguration | None:
            now = self.current()
            if now is given[0]:
                return None
            given[0] = now
            return _configuration(now)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(given[0]),
            changed,  # type: ignore[arg-type]  # None, which means no change, is allowed
            require_client_authentication=self._client_ca is not None,
        )

    def _load(self) -> Loaded:
        # OpenSSL says what is wrong with them; gRPC would only refuse every connection.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._certificate, self._key, password=_no_password)
        if self._client_ca is not None:
            context.load_verify_locations(self._client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return Loaded(
            certificate=self._certificate.read_bytes(),
            key=self._key.read_bytes(),
            client_ca=self._client_ca.read_bytes() if self._client_ca else None,
            context=context,
        )

    def _names(self) -> str:
        authority = f", --tls-client-ca {self._client_ca}" if self._client_ca else ""
        return f"--tls-cert {self._certificate}, --tls-key {self._key}{authority}"


def certificates_of(config: ServerConfig) -> Certificates | None:
    """Return the certificates of a configuration, None without TLS. ValueError if they cannot be used."""
    if config.tls_cert is None or config.tls_key is None:
        return None
    return Certificates(config.tls_cert, config.tls_key, config.tls_client_ca)


def _configuration(loaded: Loaded) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(loaded.key, loaded.certificate)], loaded.client_ca)


def _no_password() -> str:
    raise ValueError("the key has a passphrase, which a server cannot type; store it without: openssl pkey -in KEY")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        told = (error.reason or str(error)).replace("_", " ").lower()
        return f"{told}; expected PEM files, and the key of this certificate"
    if isinstance(error, OSError):
        return f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror or error)
    return str(error)
