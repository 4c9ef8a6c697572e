"""Certificates for tests, made with the openssl command as docs/security.md shows."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A certificate and its key."""

    cert: Path
    key: Path


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        if shutil.which("openssl") is None:
            pytest.skip("no `openssl` here")
        self._folder, self._name = folder, name
        folder.mkdir(parents=True, exist_ok=True)
        self.cert, self._key = folder / f"{name}.crt", folder / f"{name}.key"
        options = ("-days", "2", "-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE")
        self._openssl("req", "-x509", *_NEW_KEY, "-keyout", self._key, "-out", self.cert, *options)

    def issue(self, name: str, *, into: Pair | None = None) -> Pair:
        """Sign a certificate for 127.0.0.1 and localhost; `into` replaces that pair."""
        pair = into or Pair(cert=self._folder / f"{name}.crt", key=self._folder / f"{name}.key")
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extensions.write_text("subjectAltName = IP:127.0.0.1, DNS:localhost\n")
        new = Pair(cert=self._folder / f"{name}.crt.new", key=self._folder / f"{name}.key.new")
        self._openssl("req", *_NEW_KEY, "-keyout", new.key, "-out", request, "-subj", f"/CN={name}")
        signer = ("-CA", self.cert, "-CAkey", self._key, "-CAcreateserial", "-days", "2", "-extfile", extensions)
        self._openssl("x509", "-req", "-in", request, "-out", new.cert, *signer)
        new.key.replace(pair.key)
        new.cert.replace(pair.cert)
        return pair

    def _openssl(self, *words: object) -> None:
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=30)


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
