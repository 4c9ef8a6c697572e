"""Settings of the gRPC channel: message limits, load balancing, retries."""

from __future__ import annotations

import json
from typing import Any

import grpc

from landseer.client import keepalive

MAX_ANSWER_BYTES = 256 * 1024 * 1024
"""Largest answer that a client accepts by default, in bytes. By default a server sends up to 141 MiB: 1000 hits with
explanations. Requests have no limit here: the server has one, and says so."""
RETRIED_BYTES = 64 * 1024 * 1024
"""Largest request that gRPC keeps in order to retry it: the most that a server takes by default."""

_RETRY = {
    "maxAttempts": 4,
    "initialBackoff": "0.2s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    # An overloaded server says when to come back, or that no retry can help (grpc-retry-pushback-ms), and gRPC obeys.
    # CANCELLED is how gRPC's servers in Python answer calls that arrive just as they stop. A call that its own caller
    # cancels is never retried.
    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"],
}
_BUDGET = {"maxTokens": 20, "tokenRatio": 0.1}
"""Ten failures end the retries of a client, and ten successes allow one again. So retries soon add at most a tenth to
the load of a server that can answer some, and nothing to that of one that answers nobody."""

SERVICE_CONFIG: dict[str, Any] = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "landseer.v1.SearchService"}, {"service": "landseer.v1.IndexService"}],
            "retryPolicy": _RETRY,
        },
        {
            # Not retried: only the caller can send a stream again, and a Delete whose response was lost would return
            # NOT_FOUND the second time. The more specific name takes precedence.
            "name": [
                {"service": "landseer.v1.IndexService", "method": "UpsertMany"},
                {"service": "landseer.v1.IndexService", "method": "Delete"},
            ],
        },
    ],
    "retryThrottling": _BUDGET,
}
"""The gRPC service config: calls are spread over all addresses of a target; UNAVAILABLE, RESOURCE_EXHAUSTED and
CANCELLED are retried, after pauses that gRPC varies at random."""

_OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
    # gRPC retries only requests that fit this buffer. Most photographs exceed its default of 256 KiB.
    ("grpc.per_rpc_retry_buffer_size", RETRIED_BYTES),
    ("grpc.max_send_message_length", -1),
    # Reconnect soon after a server comes back; by default gRPC waits for up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # http_proxy is meant for the web; by default gRPC would send even 127.0.0.1 through it.
    ("grpc.enable_http_proxy", 0),
)


def open_channel(
    address: str,
    *,
    max_answer_bytes: int = MAX_ANSWER_BYTES,
    credentials: grpc.ChannelCredentials | None = None,
) -> grpc.aio.Channel:
    """Return a channel to `address`: host:port or any gRPC target. It connects on the first call.

    credentials: those of TLS, None for plain text.
    """
    options = (*_OPTIONS, *keepalive.client_options(), ("grpc.max_receive_message_length", max_answer_bytes))
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials, options=options)
