"""A connection that waits for an answer only so long: one to a database that hangs is closed.

The limits of time that the database keeps itself, and those of the network, do not help there: a process that is
stopped keeps none, and its system still confirms what it is sent. Imports psycopg, so import it late.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import psycopg


class PatientConnection(psycopg.Connection[Any]):
    """Raises OperationalError, and is closed, when one answer takes longer than `patience_s`."""

    patience_s = 65.0
    """A little longer than the database lets a statement run (`database._SETTINGS`)."""

    def wait(self, gen: Generator[Any, Any, Any], *how: Any, **more: Any) -> Any:
        """See psycopg: run a conversation with the database to its end."""
        try:
            return super().wait(_within(gen, self.patience_s), *how, **more)
        except TimeoutError:
            self.close()
            raise psycopg.OperationalError(f"no answer within {self.patience_s:g} s") from None


def _within(conversation: Generator[Any, Any, Any], seconds: float) -> Generator[Any, Any, Any]:
    """Pass a conversation on; TimeoutError if it takes longer. psycopg resumes it ten times a second at least."""
    until = time.monotonic() + seconds
    try:
        wanted = next(conversation)
        while True:
            ready = yield wanted
            if time.monotonic() > until:
                conversation.close()
                raise TimeoutError
            wanted = conversation.send(ready) or wanted
    except StopIteration as end:
        return end.value
