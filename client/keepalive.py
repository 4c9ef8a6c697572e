"""How a dead connection is noticed: keepalive pings, for the client, the server, and the server as Triton's client.

A proxy or a firewall can drop a connection without a word to its ends. A side that hears nothing for `TIME_MS` pings,
and gives up the connection when `TIMEOUT_MS` pass without an answer. Calls that wait on it then fail with UNAVAILABLE,
the next ones get a new connection: 16 s, and two for connecting. A side that hears something does not ping.
"""

from __future__ import annotations

TIME_MS = 8_000
"""Silence after which a ping is sent."""
TIMEOUT_MS = 8_000
"""How long an answer may take. A busy machine takes seconds, and a connection given up takes its calls with it."""
SHORTEST_PAUSE_MS = 4_000
"""The server accepts pings without data in between no more often than this. Others' clients often ping every 10 s, and
gRPC's own minimum, 5 minutes, would cut them off for "too many pings"."""
SERVER_TIME_MS = 60_000
"""Silence after which the server pings. It has nothing to send on the connection, so it need not hurry."""

Options = tuple[tuple[str, int], ...]


def client_options() -> Options:
    """Return the channel's options."""
    return (
        ("grpc.keepalive_time_ms", TIME_MS),
        ("grpc.keepalive_timeout_ms", TIMEOUT_MS),
        # gRPC also pings to measure bandwidth. While one of those is lost it sends no other, for a minute by default.
        ("grpc.http2.ping_timeout_ms", TIMEOUT_MS),
        # Without calls, too: the first call after a pause should not be the one that finds out.
        ("grpc.keepalive_permit_without_calls", 1),
        # By default gRPC sends two pings without data in between, then one in five minutes.
        ("grpc.http2.max_pings_without_data", 0),
        # By default channels of one process share connections, so that a new client would get the dead one.
        ("grpc.use_local_subchannel_pool", 1),
    )


def server_options() -> Options:
    """Return the server's options, which accept what `client_options` sends."""
    return (
        ("grpc.http2.min_ping_interval_without_data_ms", SHORTEST_PAUSE_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", SERVER_TIME_MS),
        ("grpc.keepalive_timeout_ms", 2 * TIMEOUT_MS),
        ("grpc.http2.max_pings_without_data", 0),
    )
