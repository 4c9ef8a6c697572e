"""The address of a store in PostgreSQL, as `landseer serve --store` takes it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

_SCHEMES = ("postgres", "postgresql")
_SECRET = {"password", "sslpassword"}


@dataclass(frozen=True)
class PostgresAddress:
    """Where a store in PostgreSQL is: a URL of libpq, without a password."""

    url: str

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def postgres_address(store: str) -> PostgresAddress | None:
    """Return the address that the text of `--store` is; None for a folder. ValueError for a password in it."""
    scheme, colon, _ = store.partition(":")
    if not colon or scheme not in _SCHEMES:
        return None
    # Not quoted: it may have a password.
    if not store.startswith(f"{scheme}://"):
        raise ValueError(f"store {scheme}:... is malformed; expected {scheme}://[USER@]HOST[:PORT]/DATABASE")
    parts = urlsplit(store)
    if ":" in parts.netloc.rpartition("@")[0] or _SECRET & {name for name, _ in parse_qsl(parts.query)}:
        raise ValueError(
            f"store {scheme}://... has a password, which everybody on this machine could read; put it in a file, as of "
            "PGPASSFILE (~/.pgpass), or in a service file (?service=NAME)"
        )
    return PostgresAddress(store)


def store_argument(text: str) -> Path | PostgresAddress:
    """Return the store that an argument of a command names: a folder, or a database."""
    try:
        return postgres_address(text) or Path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
