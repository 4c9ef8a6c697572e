"""`landseer serve`: the orchestrator as a command."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from landseer.ensemble.asmk.kernel import KERNELS
from landseer.ensemble.config import AUGMENTED, RAW, Limits, ServerConfig, parse_bytes
from landseer.ensemble.errors import LandseerError
from landseer.ensemble.index.engines import ENGINES
from landseer.ensemble.telemetry.logs import FORMATS, log_to_stderr

log = logging.getLogger(__name__)
_LEVELS = ("debug", "info", "warning", "error")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options, one for each field of ServerConfig that operators set."""
    limits = Limits()
    parser.add_argument("--listen", default="127.0.0.1:7070", metavar="HOST:PORT", help="gRPC (default %(default)s)")
    parser.add_argument(
        "--triton", default="127.0.0.1:8001", metavar="HOST:PORT", help="Triton's gRPC endpoint (default %(default)s)"
    )
    parser.add_argument("--store", required=True, type=Path, metavar="DIR", help="folder of the indexed pictures")
    parser.add_argument(
        "--metrics", default="127.0.0.1:7071", metavar="HOST:PORT", help="/metrics, or `none` (default %(default)s)"
    )
    parser.add_argument("--engine", default="faiss-exact", choices=sorted(ENGINES), help="default %(default)s")
    parser.add_argument(
        "--vectors",
        default=RAW,
        choices=(RAW, AUGMENTED),
        help="what is searched: the pictures' own descriptors, or those of `landseer augment` (default %(default)s)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads that decode pictures (default: all cores)")
    parser.add_argument(
        "--max-image-bytes", default=limits.max_bytes, type=_bytes, metavar="SIZE", help="default %(default)s"
    )
    parser.add_argument(
        "--max-image-pixels", default=limits.max_pixels, type=int, metavar="N", help="default %(default)s"
    )
    parser.add_argument(
        "--in-flight", default=8, type=int, metavar="N", help="pictures with Triton at a time (%(default)s)"
    )
    parser.add_argument("--queue", default=64, type=int, metavar="N", help="queries that may wait beyond (%(default)s)")
    parser.add_argument("--max-top-k", default=1000, type=int, metavar="K", help="most hits (default %(default)s)")
    parser.add_argument("--store-limit", default="16GiB", type=_bytes, metavar="SIZE", help="default %(default)s")
    parser.add_argument("--no-thumbnails", action="store_true", help="keep no small pictures for explanations")
    parser.add_argument(
        "--local-features",
        action="store_true",
        help="keep local features of pictures, for spatial verification and visual words (68 KiB a picture)",
    )
    parser.add_argument(
        "--regions",
        type=int,
        default=0,
        metavar="N",
        help="describe up to N boxes of a picture again, for R-ASMK* (%(default)s; up to 67 KiB each)",
    )
    parser.add_argument(
        "--codebook",
        type=Path,
        metavar="FILE",
        help="visual words, of `landseer codebook`, to search by and to filter by; needs --local-features",
    )
    parser.add_argument(
        "--kernel",
        default="",
        choices=KERNELS,
        metavar="NAME",
        help=f"of searches by words: {', '.join(KERNELS)} (r-asmk with --regions, else asmk)",
    )
    parser.add_argument("--log-level", default="info", choices=_LEVELS, help="default %(default)s")
    parser.add_argument(
        "--log-format", default="text", choices=sorted(FORMATS), help="json: an object a line (default %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT. 0 after a clean stop; 1 with one line on stderr if it cannot serve."""
    log_to_stderr(args.log_level, args.log_format)
    try:
        asyncio.run(_serve(config_of(args)))
    except (LandseerError, OSError, ValueError, ImportError) as error:
        _say(_one_line(error), args.log_format)
        return 1
    return 0


def config_of(args: argparse.Namespace) -> ServerConfig:
    """Return the configuration that the options ask for. ValueError if a value cannot work."""
    threads = {} if args.threads is None else {"threads": args.threads}
    return ServerConfig(
        store=args.store,
        listen=args.listen,
        triton=args.triton,
        metrics=None if args.metrics == "none" else args.metrics,
        vectors=args.vectors,
        engine=args.engine,
        limits=Limits(max_bytes=args.max_image_bytes, max_pixels=args.max_image_pixels),
        max_top_k=args.max_top_k,
        in_flight=args.in_flight,
        waiting=args.queue,
        store_limit_bytes=args.store_limit,
        thumbnails=not args.no_thumbnails,
        local_features=args.local_features,
        regions=args.regions,
        codebook=args.codebook,
        kernel=args.kernel,
        **threads,
    )


async def _serve(config: ServerConfig) -> None:
    # gRPC loads with the server; `landseer --help` should not wait for it.
    from landseer.ensemble.app.server import start_server
    from landseer.ensemble.telemetry.tracing import tracing_by_environment

    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    server = await start_server(config, tracing_by_environment())
    failure = asyncio.create_task(server.failed())
    stop = asyncio.create_task(told.wait())
    try:
        await asyncio.wait({failure, stop}, return_when=asyncio.FIRST_COMPLETED)
        if failure.done():
            failure.result()
    finally:
        stop.cancel()
        failure.cancel()
        await server.stop()


def _say(why: str, log_format: str) -> None:
    """Tell why it cannot serve, to a person or to whatever reads the log."""
    if log_format == "json":
        log.critical(why)
    else:
        print(f"landseer serve: {why}", file=sys.stderr)


def _bytes(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
