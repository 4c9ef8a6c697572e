"""What happens to clients when their process forks.

gRPC's connections do not survive `fork`: in the child its threads are gone, and calls hang past their deadline or crash
(grpcio 1.85, also with GRPC_ENABLE_FORK_SUPPORT). This holds for every channel of the child, a new one, too, if any was
open at the moment of the fork. A client that has not called anything has no channel, and works in the child.
"""

from __future__ import annotations

import os
from typing import Any
from weakref import WeakSet

from landseer.client.errors import ForkedClient

_open: WeakSet[Any] = WeakSet()
_broken = False


def opened(channel: Any) -> None:
    """Remember an open channel."""
    _open.add(channel)


def closed(channel: Any) -> None:
    """Forget a channel that was closed."""
    _open.discard(channel)


def broken() -> bool:
    """Return whether this process was forked while a channel was open."""
    return _broken


def check() -> None:
    """Raise ForkedClient where a call could only hang."""
    if _broken:
        raise ForkedClient(
            f"process {os.getpid()} was forked while a Landseer client was connected, and gRPC does not survive that; "
            "make a client in each process: fork before the first call, close clients before forking, or start "
            "processes with multiprocessing.get_context('spawn')"
        )


def _in_child() -> None:
    global _broken  # noqa: PLW0603 - a fact about the process
    _broken = _broken or bool(_open)


os.register_at_fork(after_in_child=_in_child)
