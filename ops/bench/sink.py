"""A collector that receives spans and drops them: `python -m landseer.ops.bench.sink HOST:PORT`."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

EXPORT = "opentelemetry.proto.collector.trace.v1.TraceService"


def main(address: str) -> None:
    """Serve until killed."""
    server = grpc.server(ThreadPoolExecutor(1))
    # A successful ExportTraceServiceResponse is empty.
    export = grpc.unary_unary_rpc_method_handler(lambda request, context: b"")
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(EXPORT, {"Export": export})])
    server.add_insecure_port(address)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(sys.argv[1])
