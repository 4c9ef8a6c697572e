"""What the benchmark commands share: their options, and how they end."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.markdown import Markdown

from landseer.client.errors import LandseerClientError
from landseer.ensemble.errors import LandseerError
from landseer.ops.errors import OpsError

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def bench_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser for `make NAME` with the options of every benchmark."""
    parser = argparse.ArgumentParser(prog=f"make {name}", description=description)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path(f"docs/reports/{name}.md"), metavar="FILE")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="random seed (default %(default)s)")
    return parser


def repeated(module: str, options: argparse.Namespace, *names: str) -> str:
    """Return the command line that repeats a run, for its report: these options of a module."""
    return " ".join([f"python -m {module}", *(f"--{name} {getattr(options, name)}" for name in names)])


def write_report(measure: Callable[[], tuple[str, bool]], out: Path, console: Console) -> int:
    """Measure, write the report to `out` and print it.

    measure: returns the report, and whether the result is good enough. Returns the exit status: 0 if it is, 1 if not or
    if it could not be measured, 130 after Ctrl-C.
    """
    try:
        text, good = measure()
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except (OpsError, LandseerError, LandseerClientError, ValueError) as error:
        return _failed(str(error))
    except OSError as error:
        return _failed(f"{error.strerror or error} ({error.filename or out})")
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    console.print(Markdown(text))
    console.print(f"Written to {out}.")
    return 0 if good else 1


def run_as_script(main: Callable[[], int]) -> None:
    """Exit with the status of `main`. SIGTERM, or the end of the terminal, ends it as Ctrl-C does.

    It then stops its servers and removes its files; another signal meanwhile does not keep it from that.
    """
    for number in ENDING:
        signal.signal(number, _interrupt)
    sys.exit(main())


def _interrupt(*_: object) -> NoReturn:
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _failed(reason: str) -> int:
    print(f"landseer: error: {' '.join(reason.split())}", file=sys.stderr)
    return 1
