"""`landseer up`: run Triton and the server together on one machine."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from landseer.ensemble.app import security_options
from landseer.ensemble.config import KEYPOINTS, LOCAL_FEATURES
from landseer.ops.arguments import options_of
from landseer.ops.commands.ending import failed
from landseer.ops.errors import OpsError
from landseer.ops.run.orchestrator import Warnings, is_json
from landseer.ops.run.processes import Stopping
from landseer.ops.run.stack import Stack, StackConfig
from landseer.ops.run.triton_log import is_worth_showing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--repository", type=Path, default=Path("model_repository"), metavar="DIR", help="models (default %(default)s)"
    )
    parser.add_argument(
        "--store",
        type=Path,
        default=Path("var/store"),
        metavar="DIR",
        help="store of the indexed pictures (default %(default)s)",
    )
    parser.add_argument(
        "--listen", default="127.0.0.1:7070", metavar="HOST:PORT", help="gRPC address (default %(default)s)"
    )
    parser.add_argument(
        "--metrics", default="127.0.0.1:7071", metavar="HOST:PORT", help="Prometheus metrics (default %(default)s)"
    )
    parser.add_argument(
        "--vectors", default="raw", choices=("raw", "augmented"), help="vectors to search (default %(default)s)"
    )
    parser.add_argument(
        "--local-features",
        default=KEYPOINTS,
        choices=LOCAL_FEATURES,
        help="local features to store, for visual words and verification (default %(default)s)",
    )
    parser.add_argument(
        "--regions",
        type=int,
        default=0,
        metavar="N",
        help="also describe up to N boxes per picture (default %(default)s)",
    )
    parser.add_argument(
        "--allow-network-store",
        action="store_true",
        help="allow a store on NFS, SMB or FUSE (unsafe: locks and memory maps may fail)",
    )
    parser.add_argument(
        "--index-field",
        action="append",
        default=[],
        metavar="NAME[:KIND]",
        help="metadata kept in memory for filters, as `landseer serve` has it; repeatable",
    )
    parser.add_argument("--codebook", type=Path, metavar="FILE", help="visual words from `landseer codebook`")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of each model (default: all cores)")
    parser.add_argument(
        "--timeout",
        type=float,
        default=180.0,
        metavar="S",
        help="seconds for each server to start (default %(default)g)",
    )
    parser.add_argument(
        "--log-format",
        default="text",
        choices=("text", "json"),
        help="the server's log format (default %(default)s)",
    )
    security_options.add_arguments(parser)
    parser.add_argument("--verbose", action="store_true", help="show every log line of Triton and the server")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM. Returns 0 after a clean stop; 1 with one line on stderr if it cannot serve."""
    try:
        with Stopping() as stopping:
            return _serve(_config(args), stopping)
    except (OpsError, OSError) as error:
        return failed("up", str(error))


def _serve(config: StackConfig, stopping: Stopping) -> int:
    stack = Stack(config)
    began = time.monotonic()
    _say("starting Triton, which loads and compiles the models, and then the server ...")
    try:
        stack.start(stopping.event)
        if not stopping.event.is_set():
            print(_summary(stack, time.monotonic() - began), flush=True)
            stack.supervise(stopping.event, _say)
    finally:
        stack.stop()
    return 0


def _config(args: argparse.Namespace) -> StackConfig:
    picks = {"triton": is_worth_showing, "server": Warnings().pick}

    def show(name: str, line: str) -> None:
        if args.verbose or picks[name](line):
            # Print a JSON record unchanged: it names its logger, and a program may read it.
            print(line if is_json(line) else f"{name}: {line}", file=sys.stderr, flush=True)

    return options_of(
        StackConfig, args, timeout_s=args.timeout, serve_args=_serve_args(args), tls=bool(args.tls_cert), on_line=show
    )


def _serve_args(args: argparse.Namespace) -> tuple[str, ...]:
    kept = ("--local-features", args.local_features)
    words = ("--codebook", str(args.codebook)) if args.codebook else ()
    fields = tuple(word for field in args.index_field for word in ("--index-field", field))
    network = ("--allow-network-store",) if args.allow_network_store else ()
    always = ("--log-format", args.log_format, "--vectors", args.vectors, "--regions", str(args.regions))
    return (*always, *kept, *words, *fields, *network, *security_options.words(args))


def _summary(stack: Stack, seconds: float) -> str:
    return "\n".join(
        [
            f"Landseer is ready after {seconds:.1f} s.",
            f"  search   {stack.search_address} (gRPC; try: landseer search IMAGE)",
            f"  metrics  {stack.metrics_address} and Triton's {stack.triton.metrics_url}",
            f"  store    {stack.config.store}",
            "Press Ctrl-C to stop both.",
        ]
    )


def _say(text: str) -> None:
    print(f"landseer up: {text}", file=sys.stderr, flush=True)
