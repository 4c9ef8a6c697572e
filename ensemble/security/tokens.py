"""Tokens: what is stored of one, and the file that holds them."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import math
import os
import re
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from landseer.client.watched_files import WatchedFiles

log = logging.getLogger(__name__)
SEARCH, WRITE, ADMIN = ROLES = ("search", "write", "admin")
"""Each may also do what those before it may."""
PREFIX = "landseer_"
"""Start of every token, so that people and scanners of secrets know one when they see it."""
_LONGEST = 256
"""Characters of a token that are looked at; ours have 52."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Token:
    """What is stored of a token. ValueError for an invalid value.

    A token is 256 random bits, which nobody can guess, so SHA-256 is enough: a slow hash, made for passwords that
    people choose, would cost time at every request, also for tokens that are wrong.
    """

    name: str
    """For the log."""
    role: str
    """One of `ROLES`."""
    salt: str
    """16 random bytes in hexadecimal."""
    sha256: str
    """SHA-256 of the salt's bytes and the token, in hexadecimal."""
    requests_per_s: float | None = None
    """Most requests per second, None for any number."""
    bytes_per_s: float | None = None
    """Most bytes of requests per second, None for any number."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError(f"got name {self.name!r}; expected up to 64 letters, digits and . _ @ -")
        if self.role not in ROLES:
            raise ValueError(f"token {self.name}: got role {self.role!r}; expected one of {', '.join(ROLES)}")
        for field, digits in (("salt", 32), ("sha256", 64)):
            if not re.fullmatch(f"[0-9a-f]{{{digits}}}", str(getattr(self, field))):
                raise ValueError(f"token {self.name}: expected {digits} hexadecimal digits as {field}")
        for field in ("requests_per_s", "bytes_per_s"):
            if (rate := getattr(self, field)) is not None and not _is_rate(rate):
                raise ValueError(f"token {self.name}: got {rate!r} as {field}; expected a number above 0, or none")

    def is_of(self, secret: bytes) -> bool:
        """Return whether `secret` is this token, in a time that does not depend on it."""
        return hmac.compare_digest(_hash(bytes.fromhex(self.salt), secret), self.sha256)

    def may(self, role: str) -> bool:
        """Return whether this token may do what `role` may."""
        return ROLES.index(self.role) >= ROLES.index(role)


class TokenFile:
    """The tokens of a file, read again when it changes. ValueError if it cannot be used at the start.

    A file that cannot be used later leaves the former tokens in use: one that is half written must lock out nobody.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._watched = WatchedFiles(path)
        try:
            self._watched.changed()
            self._tokens = read(path)
        except OSError as error:
            raise ValueError(f"cannot read --tokens {path}: {error.strerror}; `landseer token` makes one") from error
        self._told = ""

    def find(self, secret: str) -> Token | None:
        """Return the token that `secret` is. Compares with all, so that its time tells nothing about them."""
        self._refresh()
        given = secret[:_LONGEST].encode(errors="replace")
        found = [token for token in self._tokens if token.is_of(given)]
        return found[0] if found else None

    def _refresh(self) -> None:
        try:
            if self._watched.changed():
                self._tokens = read(self._path)
                log.info("read %s from --tokens %s again", f"{len(self._tokens)} tokens", self._path)
            self._told = ""
        except (OSError, ValueError) as error:
            if str(error) != self._told:
                self._told = str(error)
                log.error("cannot use the new --tokens, the former stay in use: %s", error)


def read(path: Path) -> tuple[Token, ...]:
    """Read a file of tokens. OSError; ValueError if it is none."""
    try:
        loaded = json.loads(path.read_bytes())
        tokens = tuple(Token(**entry) for entry in loaded["tokens"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"--tokens {path} is no file of tokens: {error}; `landseer token` writes them") from error
    names = [token.name for token in tokens]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"--tokens {path} has two tokens of the name {', '.join(sorted(twice))}")
    return tokens


def write(path: Path, tokens: tuple[Token, ...]) -> None:
    """Replace a file of tokens at once, readable by its owner alone."""
    entries = [{key: value for key, value in asdict(token).items() if value is not None} for token in tokens]
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({"tokens": entries}, file, indent=2)
        file.write("\n")
    beside.replace(path)


def make(name: str, role: str, **limits: float | None) -> tuple[Token, str]:
    """Return a new token and its secret, which is stored nowhere. ValueError for an invalid value."""
    secret, salt = PREFIX + secrets.token_urlsafe(32), secrets.token_bytes(16)
    return Token(name=name, role=role, salt=salt.hex(), sha256=_hash(salt, secret.encode()), **limits), secret


def _hash(salt: bytes, secret: bytes) -> str:
    return hashlib.sha256(salt + secret).hexdigest()


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
