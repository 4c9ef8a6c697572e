"""How the client talks to a server: limits, balancing, retries."""

from __future__ import annotations

import json
from typing import Any

import grpc

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""Most bytes of one message: a picture on its way out, or 1000 explained hits on their way in."""

_RETRY = {
    "maxAttempts": 4,
    "initialBackoff": "0.2s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}

SERVICE_CONFIG: dict[str, Any] = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "landseer.v1.SearchService"}, {"service": "landseer.v1.IndexService"}],
            "retryPolicy": _RETRY,
        },
        {
            # A stream of uploads is the caller's to send again, and a Delete whose answer was lost would be told
            # NOT_FOUND the second time. The more exact name wins, so neither is retried.
            "name": [
                {"service": "landseer.v1.IndexService", "method": "UpsertMany"},
                {"service": "landseer.v1.IndexService", "method": "Delete"},
            ],
        },
    ],
}
"""The gRPC service config: every server of a name takes part, and only UNAVAILABLE is tried again."""

OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
    # Only what fits into this buffer (256 KiB unless set) can be sent a second time: most photographs would not.
    ("grpc.per_rpc_retry_buffer_size", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A server that comes back is found again soon; gRPC would wait for up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # An http_proxy in the environment is for the web; gRPC would send even 127.0.0.1 through it.
    ("grpc.enable_http_proxy", 0),
)


def open_channel(address: str) -> grpc.aio.Channel:
    """Open a plain-text channel to `address`: host:port, or any target gRPC resolves. Connects at the first call."""
    return grpc.aio.insecure_channel(address, options=OPTIONS)
