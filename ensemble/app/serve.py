"""`landseer serve`: the server as a command."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landseer.client.readable import one_line
from landseer.ensemble.app import security_options
from landseer.ensemble.app.blas import multiply_alone
from landseer.ensemble.app.heap import give_back_large_blocks
from landseer.ensemble.asmk.kernel import KERNELS
from landseer.ensemble.config import AUGMENTED, LOCAL_FEATURES, RAW, Limits, ServerConfig, parse_bytes
from landseer.ensemble.errors import LandseerError
from landseer.ensemble.filters.kinds import KINDS, IndexedField, indexed_field
from landseer.ensemble.index.engines import ENGINES
from landseer.ensemble.milvus_address import milvus_address
from landseer.ensemble.postgres_address import store_argument
from landseer.ensemble.telemetry.logs import FORMATS, log_to_stderr

if TYPE_CHECKING:
    from landseer.ensemble.app.server import RunningServer

log = logging.getLogger(__name__)
_LEVELS = ("debug", "info", "warning", "error")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare one option for each field of ServerConfig that operators set."""

    def option(name: str, help: str, default: Any, **how: Any) -> None:
        parser.add_argument(name, default=default, help=f"{help} (default %(default)s)", **how)

    limits, flag = Limits(), partial(parser.add_argument, action="store_true")
    option("--listen", "gRPC address", ServerConfig.listen, metavar="HOST:PORT")
    option("--triton", "Triton's gRPC endpoint", ServerConfig.triton, metavar="HOST:PORT")
    store = "folder of the store, made if missing; or postgresql://[USER@]HOST[:PORT]/DATABASE, which several servers "
    store += "over one Milvus share (password by PGPASSFILE or ?service=NAME, TLS by ?sslmode=verify-full)"
    parser.add_argument("--store", required=True, type=store_argument, metavar="DIR|URL", help=store)
    option("--metrics", "address of /metrics, or `none`", ServerConfig.metrics, metavar="HOST:PORT")
    engine = f"where vectors are searched: {', '.join(ENGINES)}, or milvus://HOST:PORT/COLLECTION (milvuss: TLS)"
    option("--engine", engine, ServerConfig.engine, type=_engine, metavar="ENGINE")
    _add_index_arguments(parser, option)
    vectors = "search the pictures' own descriptors, or those written by `landseer augment`"
    option("--vectors", vectors, ServerConfig.vectors, choices=(RAW, AUGMENTED))
    parser.add_argument("--threads", type=int, metavar="N", help="threads that decode pictures (default: all cores)")
    option(
        "--max-image-bytes", "maximum bytes per picture", f"{limits.max_bytes >> 20}MiB", type=_bytes, metavar="SIZE"
    )
    option("--max-image-pixels", "maximum pixels per picture", limits.max_pixels, type=int, metavar="N")
    seconds = "maximum seconds of processor time to decode a picture"
    option("--max-decode-seconds", seconds, ServerConfig.decode_s, type=float, metavar="S")
    flag("--decode-in-process", help="decode in the server's process: a picture that crashes the decoder ends it")
    option("--in-flight", "pictures being processed by Triton at a time", ServerConfig.in_flight, type=int, metavar="N")
    option("--queue", "queries that may wait for Triton", ServerConfig.waiting, type=int, metavar="N")
    late = "refuse searches that would be answered later than this; a third of it while many are refused"
    option("--refuse-after", late, ServerConfig.refuse_after_s, type=float, metavar="SECONDS")
    option("--calls", "maximum number of open calls", ServerConfig.calls, type=int, metavar="N")
    held = "maximum bytes of requests being answered; they take up to four times that in memory"
    option("--bytes-in-flight", held, f"{ServerConfig.bytes_in_flight >> 20}MiB", type=_bytes, metavar="SIZE")
    option("--max-top-k", "maximum hits per search", ServerConfig.max_top_k, type=int, metavar="K")
    option("--store-limit", "maximum disk space of the store", "16GiB", type=_bytes, metavar="SIZE")
    flag("--allow-network-store", help="allow a store on NFS, SMB or FUSE (unsafe: locks and memory maps may fail)")
    flag("--no-thumbnails", help="do not store small pictures for explanations")
    local = "local features to store, for visual words and verification: keypoints (32 KiB per picture), "
    local += "deep (68 KiB), both (100 KiB), none"
    option("--local-features", local, ServerConfig.local_features, choices=LOCAL_FEATURES)
    regions = (
        "also describe the N best boxes of each picture, for R-ASMK*; up to 67 KiB each; needs deep local features"
    )
    option("--regions", regions, ServerConfig.regions, type=int, metavar="N")
    codebook = "visual words, written by `landseer codebook` (default: the words of keypoints that ship)"
    parser.add_argument("--codebook", type=Path, metavar="FILE", help=codebook)
    kernel = f"similarity by visual words: {', '.join(KERNELS)} (default how-idf; for deep local features asmk, or "
    kernel += "r-asmk with --regions)"
    parser.add_argument("--kernel", default=ServerConfig.kernel, choices=KERNELS, metavar="NAME", help=kernel)
    kept = f"metadata kept in memory for filters; a KIND is one of {', '.join(KINDS)} (default text); repeatable"
    parser.add_argument(
        "--index-field", action="append", default=[], type=_index_field, metavar="NAME[:KIND]", help=kept
    )
    ready = "file that exists while the health status is SERVING, for probes without a certificate"
    parser.add_argument("--ready-file", type=Path, metavar="FILE", help=ready)
    security_options.add_arguments(parser)
    option("--log-level", "least severe messages logged", "info", choices=_LEVELS)
    option("--log-format", "log for people, or one JSON object per line", "text", choices=sorted(FORMATS))


def _add_index_arguments(parser: argparse.ArgumentParser, option: Callable[..., None]) -> None:
    """Declare those of the main index."""
    index = "FAISS factory string of the main index, its effort, and candidates to score again for each hit, such as "
    index += "HNSW32,SQ8:96:4 (default: what `landseer tune-index` wrote, or else by the number of pictures)"
    parser.add_argument("--index", default=ServerConfig.index, metavar="FACTORY[:EFFORT[:RESCORED]]", help=index)
    files = "pictures from which on the index is kept in files, as versions, and changes lie beside it"
    option("--versions-from", files, ServerConfig.versions_from, type=int, metavar="N")
    kept = "index versions kept: the one that serves, and those before it"
    option("--versions-kept", kept, ServerConfig.versions_kept, type=int, metavar="N")
    merge = "share of the index that may have changed before a new version is built"
    option("--merge-share", merge, ServerConfig.merge_share, type=float, metavar="SHARE")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT. Return 0 after a clean stop, 1 with one line on stderr on failure."""
    log_to_stderr(args.log_level, args.log_format)
    give_back_large_blocks()
    multiply_alone()
    try:
        asyncio.run(_serve(config_of(args)))
    except (LandseerError, OSError, ValueError, ImportError) as error:
        _say(one_line(str(error)) or type(error).__name__, args.log_format)
        return 1
    return 0


def config_of(args: argparse.Namespace) -> ServerConfig:
    """Return the configuration for the options. ValueError for an invalid value."""
    threads = {} if args.threads is None else {"threads": args.threads}
    return ServerConfig(
        store=args.store,
        listen=args.listen,
        triton=args.triton,
        metrics=None if args.metrics == "none" else args.metrics,
        vectors=args.vectors,
        engine=args.engine,
        index=args.index,
        versions_from=args.versions_from,
        versions_kept=args.versions_kept,
        merge_share=args.merge_share,
        limits=Limits(max_bytes=args.max_image_bytes, max_pixels=args.max_image_pixels),
        decode_processes=not args.decode_in_process,
        decode_s=args.max_decode_seconds,
        max_top_k=args.max_top_k,
        in_flight=args.in_flight,
        waiting=args.queue,
        refuse_after_s=args.refuse_after,
        calls=args.calls,
        bytes_in_flight=args.bytes_in_flight,
        store_limit_bytes=args.store_limit,
        network_store=args.allow_network_store,
        thumbnails=not args.no_thumbnails,
        local_features=args.local_features,
        regions=args.regions,
        codebook=args.codebook,
        kernel=args.kernel,
        index_fields=tuple(args.index_field),
        ready_file=args.ready_file,
        **security_options.settings(args),
        **threads,
    )


async def _serve(config: ServerConfig) -> None:
    # Importing the server loads gRPC; `landseer --help` should not wait for that.
    from landseer.ensemble.app.server import start_server
    from landseer.ensemble.telemetry.tracing import tracing_by_environment

    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    server = await start_server(config, tracing_by_environment())
    failure = asyncio.create_task(server.failed())
    stop = asyncio.create_task(told.wait())
    freezing = asyncio.create_task(_freeze_when_ready(server))
    try:
        await asyncio.wait({failure, stop}, return_when=asyncio.FIRST_COMPLETED)
        if failure.done():
            failure.result()
    finally:
        stop.cancel()
        failure.cancel()
        freezing.cancel()
        await asyncio.gather(freezing, return_exceptions=True)
        await server.stop()


async def _freeze_when_ready(server: RunningServer) -> None:
    """Have Python's garbage collector pass over what is there once the server serves, which stays.

    All searches wait while it looks at everything: 74 ms, once in 600 searches among a million.
    """
    await server.ready()
    gc.collect()
    gc.freeze()


def _say(why: str, log_format: str) -> None:
    """Report why the server stopped, on stderr or in the JSON log."""
    if log_format == "json":
        log.critical(why)
    else:
        print(f"landseer serve: {why}", file=sys.stderr)


def _index_field(text: str) -> IndexedField:
    try:
        return indexed_field(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _engine(text: str) -> str:
    try:
        known = text in ENGINES or milvus_address(text) is not None
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not known:
        expected = ", ".join(ENGINES)
        # Of an address only the scheme is quoted: it may have a password, which an address must not.
        scheme, colon, _ = text.partition("://")
        got = f"{scheme}{colon}..." if colon else text
        raise argparse.ArgumentTypeError(f"got {got!r}; expected {expected}, or milvus://HOST:PORT/COLLECTION")
    return text


def _bytes(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
