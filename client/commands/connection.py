"""The options shared by all commands that call a server, and the call itself."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

from landseer.client import tracing
from landseer.client.client import DEFAULT_SERVER, DEFAULT_TIMEOUT, SearchClient

SERVER_VARIABLE = "LANDSEER_SERVER"

_T = TypeVar("_T")


def add_arguments(parser: argparse.ArgumentParser, *, json_help: str) -> None:
    """Declare --server, --timeout and --json. `json_help` documents the JSON below the options."""
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
    parser.add_argument("--json", action="store_true", help="print only JSON, as described below")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"JSON:\n{json_help}\nFields may be added later; within version 1 none is renamed or removed."


def call(args: argparse.Namespace, do: Callable[[SearchClient], Awaitable[_T]]) -> _T:
    """Run `do` with a client built from the options and, where they name no server, the environment."""

    async def run() -> _T:
        server = args.server or os.environ.get(SERVER_VARIABLE) or DEFAULT_SERVER
        async with SearchClient(server, timeout=args.timeout) as client:
            return await do(client)

    with tracing.exporting("landseer-client"):
        return asyncio.run(run())


def seconds(text: str) -> float:
    """Parse a positive number of seconds."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text}, expected a number of seconds above 0")
    return value


def positive(text: str) -> int:
    """Parse an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {text}, expected 1 or more")
    return value
