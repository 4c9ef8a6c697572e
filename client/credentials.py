"""What a client shows a server, and what it trusts: TLS, a certificate of its own, a token."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc

from landseer.client.addresses import stays_here
from landseer.client.errors import UnusableInput
from landseer.client.watched_files import WatchedFiles

SYSTEM = "system"
"""The value of `tls_ca` that trusts the public certificate authorities that gRPC ships."""


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """How to reach a server that has TLS or wants a token; without any, in plain text.

    `tls_ca` is a PEM file of the authorities that may sign the server's certificate, or the certificate itself;
    `"system"` trusts the public ones. `tls_cert` and `tls_key` are for a server that wants clients to have a
    certificate. `token_file` holds a token on one line, and is read again when it changes. UnusableInput for options
    that do not go together.
    """

    tls_ca: Path | str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    token_file: Path | None = None
    insecure: bool = False
    """Whether the token may leave this machine without TLS, readable on its way."""

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UnusableInput("a certificate needs its key: give both --tls-cert and --tls-key, or neither")
        if self.tls_cert is not None and self.tls_ca is None:
            raise UnusableInput("--tls-cert needs --tls-ca: the authority of the server, or `system` for public ones")

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return the same for Python's own TLS, None without `tls_ca`. UnusableInput for a file that cannot be used."""
        if self.tls_ca is None:
            return None
        try:
            context = ssl.create_default_context(cafile=None if self.tls_ca == SYSTEM else self.tls_ca)
            if self.tls_cert is not None:
                context.load_cert_chain(self.tls_cert, self.tls_key)
        except OSError as error:  # SSLError is one
            raise UnusableInput(f"cannot use --tls-ca, --tls-cert or --tls-key: {error}") from error
        return context

    def channel_credentials(self) -> grpc.ChannelCredentials | None:
        """Return the credentials of a channel, None for plain text. UnusableInput for a file that cannot be read."""
        if self.tls_ca is None:
            return None
        return grpc.ssl_channel_credentials(
            root_certificates=None if self.tls_ca == SYSTEM else _pem(Path(self.tls_ca), "--tls-ca", b"CERTIFICATE"),
            private_key=_pem(self.tls_key, "--tls-key", b"PRIVATE KEY") if self.tls_key else None,
            certificate_chain=_pem(self.tls_cert, "--tls-cert", b"CERTIFICATE") if self.tls_cert else None,
        )


PLAIN = Credentials()
"""Plain text, no token."""


class TokenMetadata:
    """The metadata that carries a client's token."""

    def __init__(self, credentials: Credentials, server: str) -> None:
        self._file = credentials.token_file
        self._watched = WatchedFiles(self._file) if self._file else None
        self._metadata: dict[str, str] = {}
        self._readable = not (credentials.tls_ca or credentials.insecure or stays_here(server))
        self._server = server

    def current(self) -> Mapping[str, str]:
        """Return it, empty without a token. UnusableInput if the file has none, or others could read it on the way."""
        if self._file is None or self._watched is None:
            return {}
        if self._readable:
            raise UnusableInput(
                f"the token would go to {self._server} in plain text; add --tls-ca, or --insecure if nobody else can "
                "read that network"
            )
        try:
            if self._watched.changed():
                self._metadata = {"authorization": f"Bearer {_token(self._file)}"}
        except OSError as error:
            raise UnusableInput(f"cannot read --token-file {self._file}: {error.strerror}") from error
        return self._metadata


def _token(path: Path) -> str:
    text = path.read_text("utf-8", "replace").strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise UnusableInput(f"--token-file {path} holds no token; expected one line, as `landseer token` prints it")
    return text


def _pem(path: Path, option: str, kind: bytes) -> bytes:
    try:
        found = path.read_bytes()
    except OSError as error:
        raise UnusableInput(f"cannot read {option} {path}: {error.strerror}") from error
    if b"-----BEGIN " not in found or kind + b"-----" not in found:
        raise UnusableInput(f"{option} {path} holds no {kind.decode().lower()} in PEM format")
    return found
