"""`landseer triton`: run Triton on the model repository."""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path

from landseer.ops.arguments import options_of
from landseer.ops.commands.ending import failed
from landseer.ops.errors import OpsError
from landseer.ops.run.ports import LOOPBACK, port_or_auto
from landseer.ops.run.processes import Stopping
from landseer.ops.run.restarts import Restarts
from landseer.ops.run.triton import TritonConfig, TritonServer
from landseer.ops.run.triton_log import is_worth_showing
from landseer.ops.run.watched import Watched

WATCH_S = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--repository", type=Path, default=Path("model_repository"), metavar="DIR", help="models (default %(default)s)"
    )
    parser.add_argument("--host", default=LOOPBACK, help="address to listen on (default %(default)s)")
    for name, port in (("http", 8000), ("grpc", 8001), ("metrics", 8002)):
        parser.add_argument(
            f"--{name}-port",
            type=port_or_auto,
            default=port,
            metavar="PORT",
            help="port or `auto` (default %(default)s)",
        )
    parser.add_argument("--threads", type=int, metavar="N", help="threads of each model (default: all cores)")
    parser.add_argument(
        "--timeout", type=float, default=180.0, metavar="S", help="seconds to load the models (default %(default)g)"
    )
    parser.add_argument("--log-file", type=Path, metavar="FILE", help="also append the whole log to this file")
    parser.add_argument(
        "--traces", metavar="URL", help="send spans to URL, such as http://127.0.0.1:4318/v1/traces (default: none)"
    )
    parser.add_argument("--verbose", action="store_true", help="also show Triton's informational lines")


def run(args: argparse.Namespace) -> int:
    """Run Triton, again if it ends, until SIGINT or SIGTERM. Return its exit status; 1 if it cannot serve."""
    try:
        return _serve(_config(args), args.timeout)
    except OpsError as error:
        return failed("triton", str(error))


def _config(args: argparse.Namespace) -> TritonConfig:
    def show(line: str) -> None:
        if args.verbose or is_worth_showing(line):
            print(line, file=sys.stderr, flush=True)

    return options_of(TritonConfig, args, on_line=show)


def _serve(config: TritonConfig, timeout: float) -> int:
    server = TritonServer(config)

    def start(stop: threading.Event | None) -> None:
        server.start()
        server.wait_ready(timeout, stop=stop)

    with Stopping() as stopping, server:
        server.wait_ready(timeout, stop=stopping.event)
        if not stopping.event.is_set():
            print(f"Triton is ready: gRPC {server.grpc_url}, HTTP {server.http_url}, {server.metrics_url}", flush=True)
        watched = Watched(server, Restarts(name=server.name), start)
        while not stopping.event.wait(WATCH_S):
            watched.look(stopping.event, _say)
        return server.stop() or 0


def _say(text: str) -> None:
    print(f"landseer triton: {text}", file=sys.stderr, flush=True)
