"""`landseer token`: make a token for callers of a server, or remove one."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from landseer.client.errors import UnusableInput
from landseer.ensemble.config import parse_bytes
from landseer.ensemble.security import tokens
from landseer.ensemble.security.tokens import ROLES, SEARCH

_ABOUT = """\
The token is printed once, on standard output, and stored nowhere: the file has only its salted hash.
  landseer token website --tokens tokens.json --role search > website.token
  landseer search cat.jpg --token-file website.token
A running server reads the file again when it changes. To replace a token, make another one, give it to the callers,
and remove the old one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _ABOUT
    parser.add_argument("name", metavar="NAME", help="who it is for, as the server's audit log will name it")
    parser.add_argument(
        "--tokens",
        type=Path,
        default=os.environ.get("LANDSEER_SERVE_TOKENS") or "tokens.json",
        metavar="FILE",
        help="the server's file, made if missing (default: $LANDSEER_SERVE_TOKENS, else tokens.json)",
    )
    parser.add_argument(
        "--role",
        choices=ROLES,
        default=SEARCH,
        help="search: search, describe, get, list, stats; write: also add, delete; admin: also reflection "
        "(default search)",
    )
    parser.add_argument(
        "--requests-per-s", type=float, metavar="N", help="maximum requests per second (default: no limit)"
    )
    parser.add_argument(
        "--bytes-per-s", type=_bytes, metavar="SIZE", help="maximum bytes per second, such as 5MiB (default: no limit)"
    )
    parser.add_argument("--remove", action="store_true", help="remove the token NAME instead")


def run(args: argparse.Namespace) -> int:
    """Change the file. UnusableInput for a name that is taken or missing, or a file of something else."""
    try:
        known = tokens.read(args.tokens) if args.tokens.exists() else ()
        same = [token for token in known if token.name == args.name]
        if args.remove:
            _remove(args, known, same)
            return 0
        if same:
            raise UnusableInput(f"{args.tokens} has a token {args.name}; choose another name, or --remove it first")
        made, secret = tokens.make(
            args.name, args.role, requests_per_s=args.requests_per_s, bytes_per_s=args.bytes_per_s
        )
    except ValueError as error:
        raise UnusableInput(str(error)) from error
    tokens.write(args.tokens, (*known, made))
    print(secret)
    print(f"added {args.name}, role {args.role}, to {args.tokens}; the line above is shown only now", file=sys.stderr)
    return 0


def _remove(args: argparse.Namespace, known: tuple[tokens.Token, ...], same: list[tokens.Token]) -> None:
    if not same:
        names = ", ".join(token.name for token in known) or "none"
        raise UnusableInput(f"{args.tokens} has no token {args.name}; it has {names}")
    tokens.write(args.tokens, tuple(token for token in known if token not in same))
    print(f"removed {args.name} from {args.tokens}", file=sys.stderr)


def _bytes(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
