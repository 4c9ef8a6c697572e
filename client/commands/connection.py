"""The options shared by all commands that call a server, and the call itself."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from landseer.client import tracing
from landseer.client.client import DEFAULT_SERVER, DEFAULT_TIMEOUT, SearchClient
from landseer.client.commands.output import tell
from landseer.client.credentials import SYSTEM, Credentials

SERVER_VARIABLE = "LANDSEER_SERVER"

PATIENCE = 60.0
"""Seconds that a command waits for a server that is still loading."""

_T = TypeVar("_T")


_FILES = {
    "tls_ca": "CA certificates to trust, or the server's own certificate; `system` for the public CAs",
    "tls_cert": "client certificate, for a server that requires one",
    "tls_key": "its key",
    "token_file": "file with a token, for a server that asks for one",
}
"""Options that are files: their help. Each has a variable: LANDSEER_ and its name."""


def add_arguments(parser: argparse.ArgumentParser, *, json_help: str, patience: float = PATIENCE) -> None:
    """Declare --server, --timeout, --patience, --json and credentials. `json_help` documents the JSON below them."""
    parser.add_argument(
        "--server", metavar="HOST:PORT", help=f"server address (default: ${SERVER_VARIABLE}, else {DEFAULT_SERVER})"
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=DEFAULT_TIMEOUT,
        metavar="SECONDS",
        help="deadline of each call (default %(default)g)",
    )
    parser.add_argument(
        "--patience",
        type=not_negative,
        default=patience,
        metavar="SECONDS",
        help="how long to retry while the server loads or its models do not answer (default %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print only JSON, as described below")
    add_credentials(parser)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"JSON:\n{json_help}\nFields may be added later; within version 1 none is renamed or removed."


def add_credentials(parser: argparse.ArgumentParser) -> None:
    """Declare --tls-ca, --tls-cert, --tls-key, --token-file and --insecure."""
    group = parser.add_argument_group("security")
    for name, help in _FILES.items():
        option, variable = f"--{name.replace('_', '-')}", f"LANDSEER_{name.upper()}"
        group.add_argument(
            option, metavar="FILE", default=os.environ.get(variable), help=f"{help} (default: ${variable})"
        )
    group.add_argument(
        "--insecure",
        action="store_true",
        help="send the token in plain text to another machine: anyone on the network can read it",
    )


def credentials_of(args: argparse.Namespace) -> Credentials:
    """Return the credentials that the options of `add_credentials` name. UnusableInput if they do not fit together."""
    files = {name: getattr(args, name) for name in _FILES if getattr(args, name)}
    return Credentials(
        tls_ca=SYSTEM if files.get("tls_ca") == SYSTEM else _path(files, "tls_ca"),
        tls_cert=_path(files, "tls_cert"),
        tls_key=_path(files, "tls_key"),
        token_file=_path(files, "token_file"),
        insecure=args.insecure,
    )


def call(
    args: argparse.Namespace,
    do: Callable[[SearchClient], Awaitable[_T]],
    *,
    on_wait: Callable[[str], None] | None = None,
) -> _T:
    """Run `do` with a client built from the options and, where they name no server, the environment.

    on_wait: called with the reason whenever the client waits for the server; by default a line on stderr says it.
    """
    on_wait = on_wait or waiting(args.patience, tell)

    async def run() -> _T:
        server = args.server or os.environ.get(SERVER_VARIABLE) or DEFAULT_SERVER
        async with SearchClient(
            server,
            timeout=args.timeout,
            patience=args.patience,
            on_wait=on_wait,
            credentials=credentials_of(args),
        ) as client:
            return await do(client)

    with tracing.exporting("landseer-client"):
        return asyncio.run(run())


def _path(files: Mapping[str, str], name: str) -> Path | None:
    return Path(files[name]) if name in files else None


def waiting(patience: float, show: Callable[[str], None]) -> Callable[[str], None]:
    """Return what to do when a client waits: show a line, once for each reason."""
    told: set[str] = set()

    def on_wait(why: str) -> None:
        if why not in told:
            told.add(why)
            show(f"retrying for up to {patience:g} s: {why}")

    return on_wait


def not_negative(text: str) -> float:
    """Parse a number of seconds, 0 or more."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a number of seconds, 0 or more")
    return value


def seconds(text: str) -> float:
    """Parse a positive number of seconds."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a number of seconds above 0")
    return value


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a whole number of at least 1")
    return int(text)


def _number(text: str) -> float:
    """Return a number, or NaN, which no range contains."""
    try:
        return float(text)
    except ValueError:
        return math.nan
