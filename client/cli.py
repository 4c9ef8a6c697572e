"""The `landseer` command: lists its subcommands and runs one.

`COMMANDS` names each subcommand's module. The module is imported only when its command runs, so `landseer --help` is
fast and lists every command whichever extras are installed.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn, Protocol

from landseer.client.errors import LandseerClientError
from landseer.client.readable import one_line

INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""
BROKEN_PIPE = 141
"""128 + SIGPIPE."""


class Command(NamedTuple):
    """A subcommand."""

    module: str
    """A `CommandModule`."""
    extra: str
    """The extra that installs what the module imports."""
    help: str


COMMANDS = {
    "up": Command("landseer.ops.commands.up", "cpu,triton", "run Triton and the server together on this machine"),
    "index": Command("landseer.client.commands.index", "cli", "add the pictures in folders and files to the index"),
    "bulk": Command(
        "landseer.ops.commands.bulk", "cpu,triton,bulk", "index millions of pictures into a store, without a server"
    ),
    "search": Command(
        "landseer.client.commands.search", "cli", "find the indexed pictures that show the same thing as a picture"
    ),
    "get": Command("landseer.client.commands.get", "cli", "show what the index stores about a picture"),
    "delete": Command("landseer.client.commands.delete", "cli", "remove pictures from the index; files are kept"),
    "list": Command("landseer.client.commands.list", "cli", "print the ids of the indexed pictures"),
    "prune": Command(
        "landseer.client.commands.prune", "cli", "list indexed pictures whose files are gone; --yes deletes them"
    ),
    "stats": Command("landseer.client.commands.stats", "cli", "show the size, models and limits of the index"),
    "top": Command("landseer.ops.commands.top", "serve", "show live metrics of a running Landseer"),
    "serve": Command(
        "landseer.ensemble.app.serve", "cpu", "run the server: the gRPC services, the index and the store"
    ),
    "token": Command("landseer.ensemble.app.token", "serve", "make a token for callers of a server, or remove one"),
    "triton": Command("landseer.ops.commands.triton", "triton", "run Triton on the model repository"),
    "evaluate": Command("landseer.ops.commands.evaluate", "demo", "measure mAP on a data set"),
    "train": Command("landseer.ops.commands.train", "train", "train a descriptor, detector or query expansion"),
    "data": Command("landseer.ops.commands.data", "demo", "clean a training set; find its overlap with an evaluation"),
    "augment": Command(
        "landseer.ops.commands.augment", "cpu,triton", "augment the vectors of a store by their nearest neighbours"
    ),
    "compact": Command("landseer.ops.commands.compact", "cpu", "shrink the file of a store that is not in use"),
    "tune-index": Command(
        "landseer.ops.commands.tune_index", "cpu", "measure indexes on a store's vectors, and choose the fastest"
    ),
    "index-versions": Command(
        "landseer.ops.commands.index_versions", "cpu", "list, check, choose or build the index files of a store"
    ),
    "backup": Command("landseer.ops.commands.backup", "cpu", "back up a store, also while a server uses it"),
    "restore": Command("landseer.ops.commands.restore", "cpu", "restore a store from a backup"),
    "export-store": Command(
        "landseer.ops.commands.export_store", "cpu,parquet", "write a store to a Parquet file, with all that it holds"
    ),
    "import-store": Command(
        "landseer.ops.commands.import_store", "cpu,parquet", "make a store of a Parquet file of `export-store`"
    ),
    "codebook": Command("landseer.ops.commands.codebook", "cpu", "learn visual words from pictures or a store"),
}


class CommandModule(Protocol):
    """What a subcommand's module defines."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""

    def run(self, args: argparse.Namespace) -> int:
        """Run the command and return the exit status. LandseerClientError or OSError for what the user can fix."""


class Parser(argparse.ArgumentParser):
    """An argument parser that prints errors on one line."""

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with status 2."""
        self.exit(2, f"{self.prog}: {one_line(message)} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status. Errors that the user can fix print one line on stderr."""
    # The commands report lost connections better than gRPC's log does. gRPC reads this once, when it is loaded.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    arguments = list(sys.argv[1:] if argv is None else argv)
    prog = " ".join(["landseer", *(name for name in arguments[:1] if not name.startswith("-"))])
    try:
        status = _dispatch(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return BROKEN_PIPE
    except (LandseerClientError, OSError) as error:
        print(one_line(f"{prog}: {error}"), file=sys.stderr)
        return 1


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        from importlib import metadata

        print(f"landseer {metadata.version('landseer')}")
        return 0
    if arguments[0] not in COMMANDS:
        raise LandseerClientError(_unknown(arguments[0]))
    return _run(arguments[0], COMMANDS[arguments[0]], arguments[1:])


def _run(name: str, command: Command, arguments: list[str]) -> int:
    try:
        module: CommandModule = importlib.import_module(command.module)
        parser = Parser(prog=f"landseer {name}", description=command.help)
        module.add_arguments(parser)
        return module.run(parser.parse_args(arguments))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "landseer":
            raise  # A broken installation, not a missing extra: the traceback names the module.
        raise LandseerClientError(
            f"this command needs {error.name}, which is not installed; pip install 'landseer[{command.extra}]'"
        ) from error


def _overview() -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            "usage: landseer COMMAND [OPTIONS]",
            "",
            "Which of my pictures show this very thing?",
            "",
            *(f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()),
            "",
            "`landseer COMMAND --help` shows a command's options; `landseer --version` prints the version.",
        ]
    )


def _unknown(name: str) -> str:
    if name.startswith("-"):
        return f"unknown option {name}; options go after a command, see landseer --help"
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean `landseer {close[0]}`?" if close else f"choose from {', '.join(COMMANDS)}"
    return f"unknown command {name!r}; {hint}"


def _silence_stdout() -> None:
    """Discard what the interpreter flushes at exit: nobody reads stdout any more."""
    with contextlib.suppress(OSError, ValueError):  # Not a real file, as under a test: nothing to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
