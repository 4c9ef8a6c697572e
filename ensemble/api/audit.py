"""The audit log, of logger `landseer.audit`: who wrote what, who was refused. Never a token's secret or a picture."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from landseer.ensemble.errors import LandseerError, Unauthenticated, reason_of
from landseer.ensemble.security.rates import Rate
from landseer.ensemble.security.tokens import Token

log = logging.getLogger("landseer.audit")
IDS_A_LINE = 100
"""A stream of many pictures has a line for every so many, while it runs."""
REFUSALS_PER_S = 10.0
"""Lines per second about calls without a valid token: strangers must not fill the disk."""
_LONGEST_ID = 512


class Audit:
    """Writes lines of `write {...}` and `refused {...}`, each with one JSON object."""

    def __init__(self) -> None:
        self._strangers = Rate(REFUSALS_PER_S)
        self._unlogged = 0

    def refused(self, token: Token | None, method: str, peer: str, error: LandseerError) -> None:
        """Log a refusal."""
        more = {}
        if isinstance(error, Unauthenticated):
            if self._strangers.wait_s() > 0:
                self._unlogged += 1
                return
            self._strangers.use(1)
            more, self._unlogged = ({"not_logged_before": self._unlogged} if self._unlogged else {}), 0
        name = token.name if token else None
        log.warning("refused %s", _line(token=name, method=method, peer=peer, reason=error.reason, **more))

    @contextmanager
    def write(self, token: Token, method: str, peer: str) -> Iterator[Callable[[str], None]]:
        """Log a write when it ends, with its outcome. Yields what to call with each id, before it is written."""
        ids: list[str] = []

        def told(outcome: str) -> None:
            log.info("write %s", _line(token=token.name, method=method, peer=peer, ids=ids, outcome=outcome))
            ids.clear()

        def seen(id: str) -> None:
            ids.append(id[:_LONGEST_ID])
            if len(ids) >= IDS_A_LINE:
                told("RUNNING")

        try:
            yield seen
        except (Exception, asyncio.CancelledError) as error:
            told(reason_of(error))
            raise
        told("OK")


def _line(**fields: object) -> str:
    return json.dumps({key: value for key, value in fields.items() if value is not None})
