"""The options of `landseer serve` and `landseer up` that say who may call, and how the server calls Milvus."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

_FILES = {
    "tls_cert": ("LANDSEER_SERVE_TLS_CERT", "certificate in PEM format: gRPC and metrics then use TLS"),
    "tls_key": ("LANDSEER_SERVE_TLS_KEY", "its key"),
    "tls_client_ca": ("LANDSEER_SERVE_TLS_CLIENT_CA", "clients must have a certificate of these authorities"),
    "tokens": ("LANDSEER_SERVE_TOKENS", "calls must have a token of this file, which `landseer token` writes"),
    "milvus_token": (
        "LANDSEER_SERVE_MILVUS_TOKEN",
        "file with user:password or the key that Milvus asks for",
    ),
    "milvus_ca": (
        "LANDSEER_SERVE_MILVUS_CA",
        "authorities of Milvus' certificate, if not those of the system",
    ),
}
"""Fields of ServerConfig: their environment variable, and their help."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; their defaults are in the environment."""
    group = parser.add_argument_group("security (docs/security.md)")
    for field, (variable, help) in _FILES.items():
        group.add_argument(
            _option(field),
            type=Path,
            default=os.environ.get(variable) or None,
            metavar="FILE",
            help=f"{help} (default: ${variable})",
        )
    group.add_argument(
        "--insecure",
        action="store_true",
        help="listen beyond this machine without TLS or tokens: for a network that nobody else is in",
    )


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of ServerConfig."""
    return {field: getattr(args, field) for field in (*_FILES, "insecure")}


def words(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the options as words of a command line."""
    files = ((_option(field), getattr(args, field)) for field in _FILES)
    given = [word for option, path in files if path for word in (option, str(path))]
    return (*given, *(("--insecure",) if args.insecure else ()))


def _option(field: str) -> str:
    return f"--{field.replace('_', '-')}"
