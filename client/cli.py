"""The `landseer` command: finds the other commands by their entry points and runs one.

A command is a module named by an entry point of the group `landseer.commands`. It has `HELP: str` (one line, a
literal), `add_arguments(parser) -> None` and `run(args) -> int`, which returns the exit status and raises
`LandseerClientError` or OSError for what the user can mend. So this package need not import the ones that know how to
serve, and only the chosen command's module is ever imported: `landseer --help` reads the others' HELP from their
source.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NoReturn, Protocol

from landseer.client.errors import LandseerClientError
from landseer.client.readable import one_line

GROUP = "landseer.commands"

EXTRAS = {
    "landseer.client": "cli",
    "landseer.ensemble": "cpu",
    "landseer.export": "export",
    "landseer.ops": "cpu,triton",
    "landseer.ops.commands.top": "serve",
    "landseer.ops.commands.train": "train",
    "landseer.ops.commands.triton": "triton",
}
"""Which extra brings what a command's module imports; the longest matching name counts."""

INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""
BROKEN_PIPE = 141
"""128 + SIGPIPE."""


class Command(Protocol):
    """What a command's module holds."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's options."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; return the exit status."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors take one line."""

    def error(self, message: str) -> NoReturn:
        """Print the error and leave with status 2."""
        self.exit(2, f"{self.prog}: {one_line(message)} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status; errors that the user can mend take one line on stderr."""
    # What gRPC logs about lost connections the commands say better. It reads this once, when it is loaded.
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
        print(f"{prog}: {one_line(str(error))}", file=sys.stderr)
        return 1


def commands() -> dict[str, str]:
    """Return the module of each installed command by the command's name, sorted by name."""
    return dict(sorted((point.name, point.value) for point in metadata.entry_points(group=GROUP)))


def _dispatch(arguments: list[str]) -> int:
    known = commands()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview(known))
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(f"landseer {metadata.version('landseer')}")
        return 0
    if arguments[0] not in known:
        raise LandseerClientError(_unknown(arguments[0], known))
    return _run(arguments[0], known[arguments[0]], arguments[1:])


def _run(name: str, module: str, arguments: list[str]) -> int:
    try:
        command: Command = importlib.import_module(module)
        parser = Parser(prog=f"landseer {name}", description=command.HELP)
        command.add_arguments(parser)
        return command.run(parser.parse_args(arguments))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "landseer":
            raise  # A broken installation, not a missing extra: the traceback says which module.
        raise LandseerClientError(_missing(error.name, module)) from error


def _overview(known: dict[str, str]) -> str:
    width = max(map(len, known), default=0)
    lines = [f"  {name:<{width}}  {_help(module)}".rstrip() for name, module in known.items()]
    return "\n".join(
        [
            "usage: landseer COMMAND [OPTIONS]",
            "",
            "Which of my pictures show this very thing?",
            "",
            *(lines or ["  (no commands are installed; install Landseer again: pip install landseer)"]),
            "",
            "`landseer COMMAND --help` says more; `landseer --version` tells the version.",
        ]
    )


def _help(module: str) -> str:
    """Return a module's literal HELP without importing it, so that a missing extra does not hide the command."""
    try:
        spec = importlib.util.find_spec(module)
        source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
        for node in ast.parse(source).body:
            match node:
                case ast.Assign(targets=[ast.Name(id="HELP")], value=value):
                    return str(ast.literal_eval(value))
                case ast.AnnAssign(target=ast.Name(id="HELP"), value=ast.expr() as value):
                    return str(ast.literal_eval(value))
    except (ImportError, OSError, SyntaxError, ValueError):
        pass
    return f"(needs pip install 'landseer[{_extra(module)}]')"


def _unknown(name: str, known: dict[str, str]) -> str:
    if name.startswith("-"):
        return f"there is no option {name} before a command; see landseer --help"
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean `landseer {close[0]}`?" if close else f"there are {', '.join(known)}"
    return f"there is no command {name!r}; {hint}"


def _missing(package: str, module: str) -> str:
    return f"this command needs {package}, which is not installed; pip install 'landseer[{_extra(module)}]'"


def _extra(module: str) -> str:
    matching = [prefix for prefix in EXTRAS if f"{module}.".startswith(f"{prefix}.")]
    return EXTRAS[max(matching, key=len)] if matching else "cli"


def _silence_stdout() -> None:
    """Let the interpreter flush into nowhere at exit; the reader is gone."""
    with contextlib.suppress(OSError, ValueError):  # Not a real file (under a test, say): there is nothing to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
