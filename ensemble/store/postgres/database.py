"""Connections to PostgreSQL, and its errors as ours.

A connection is made when one is needed, and kept for the next use. One that was not used for a while is tried first, as
the database or a firewall may have closed it. When one is lost, all that are kept are dropped: calls fail while the
database is away, and succeed when it is back. Limits of time keep a machine that is gone, or a database that hangs,
from holding callers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from landseer.client.addresses import is_loopback
from landseer.ensemble.errors import LandseerError, StoreFull, StoreUnavailable, StoreUnusable, Unfinished
from landseer.ensemble.postgres_address import PostgresAddress

log = logging.getLogger(__name__)
_LIMITS = {
    "connect_timeout": "3",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "application_name": "landseer",
}
"""What the address may say otherwise; times in seconds, the last one in milliseconds."""
_SETTINGS = "SET statement_timeout = '60s'; SET idle_in_transaction_session_timeout = '60s'"
_AWAY = ("08", "25", "40", "53", "55", "57")
"""Classes of SQLSTATE that pass: lost connections, a standby that only reads, too many connections, shutdowns."""


FRESH_S = 1.0
"""Seconds for which a connection that is not used is taken to be good."""
PROBE_S = 5.0
"""What an answer that takes no work may take, before the database counts as hanging."""


class Database:
    """A PostgreSQL database. Threads may share it."""

    def __init__(self, address: PostgresAddress, *, insecure: bool = False) -> None:
        """insecure: whether what it sends to another machine may be plain text.

        ImportError without psycopg; StoreUnusable for a malformed address. Connects later.
        """
        self.address, self._insecure = address, insecure
        self._psycopg = _psycopg()
        try:
            told = self._psycopg.conninfo.conninfo_to_dict(address.url)
        except self._psycopg.Error as error:
            raise StoreUnusable(f"the store {address} is no address of PostgreSQL: {_why(error)}") from error
        self._how = {**_LIMITS, **told, "client_encoding": "UTF8"}
        self._lock, self._closed = threading.Lock(), False
        self._idle: list[tuple[Any, float]] = []
        """Connections that are kept, and since when they are not used."""

    @contextmanager
    def reading(self) -> Iterator[Any]:
        """Yield a cursor for statements that each see the state at their beginning. StoreUnavailable; StoreUnusable."""
        with self._cursor() as cursor:
            yield cursor

    @contextmanager
    def probing(self) -> Iterator[Any]:
        """Yield a cursor for statements that take no work. StoreUnavailable after PROBE_S; StoreUnusable."""
        with self._cursor() as cursor, _hurried(cursor.connection):
            yield cursor

    @contextmanager
    def snapshot(self) -> Iterator[Any]:
        """Yield a cursor for statements that all see one state. StoreUnavailable; StoreUnusable."""
        with self._cursor() as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield cursor
            cursor.execute("COMMIT")

    @contextmanager
    def writing(self) -> Iterator[Any]:
        """Yield a cursor for a change that is committed at the end, or rolled back on errors.

        StoreUnavailable: nothing was changed. Unfinished: the connection was lost while the change was committed.
        StoreFull; StoreUnusable.
        """
        with self._cursor() as cursor:
            cursor.execute("BEGIN")
            yield cursor
            try:
                cursor.execute("COMMIT")
            except self._psycopg.Error as error:
                raise Unfinished(
                    f"the store {self.address} was lost while a change was committed, so it may be stored, and may "
                    f"not: {_why(error)}; try again, which does no harm"
                ) from error

    def close(self) -> None:
        """Close all connections that are not used. May be called twice."""
        with self._lock:
            self._closed = True
        self._drop()

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        try:
            connection = self._taken()
            try:
                with connection.cursor(binary=True) as cursor:
                    yield cursor
            finally:
                self._give_back(connection)
        except self._psycopg.Error as error:
            raise self._explained(error) from error

    def _taken(self) -> Any:
        with self._lock:
            kept = self._idle.pop() if self._idle else None
        if kept is not None and self._answers(*kept):
            return kept[0]
        return self._connected()

    def _answers(self, connection: Any, since: float) -> bool:
        """Return whether a connection that was kept can be used; if not, the others are dropped, too."""
        if time.monotonic() - since < FRESH_S:
            return True
        try:
            with _hurried(connection):
                connection.execute("SELECT 1")
            return True
        except self._psycopg.Error:
            connection.close()
            self._drop()
            return False

    def _connected(self) -> Any:
        from landseer.ensemble.store.postgres.patient_connection import PatientConnection

        connection = PatientConnection.connect(**self._how, autocommit=True)
        host = connection.info.host
        plain = not connection.pgconn.ssl_in_use
        if plain and host and not host.startswith("/") and not is_loopback(host) and not self._insecure:
            connection.close()
            raise StoreUnusable(
                f"the store {self.address} is on another machine, and the connection would be plain text; add "
                "?sslmode=verify-full (or require) to the address, or pass --insecure on a network of your own"
            )
        connection.execute(_SETTINGS)
        return connection

    def _give_back(self, connection: Any) -> None:
        """Keep a connection for the next use, unless it is lost; then the others that are kept are, too."""
        with suppress(self._psycopg.Error):
            connection.rollback()
        states = self._psycopg.pq.TransactionStatus
        idle = not connection.closed and connection.info.transaction_status == states.IDLE
        with self._lock:
            if idle and not self._closed:
                self._idle.append((connection, time.monotonic()))
                return
        connection.close()
        self._drop()

    def _drop(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    def _explained(self, error: Any) -> LandseerError:
        state = error.sqlstate or ""
        if isinstance(error, self._psycopg.errors.DiskFull):
            return StoreFull(f"the disk of the store {self.address} is full; nothing was written: {_why(error)}")
        lost = isinstance(error, self._psycopg.OperationalError | self._psycopg.InterfaceError)
        if lost or state[:2] in _AWAY:
            return StoreUnavailable(f"the store {self.address} does not answer: {_why(error)}; try again")
        return StoreUnusable(f"the store {self.address} cannot be used: {_why(error)}")


@contextmanager
def _hurried(connection: Any) -> Iterator[None]:
    patience_s, connection.patience_s = connection.patience_s, PROBE_S
    try:
        yield
    finally:
        connection.patience_s = patience_s


def _psycopg() -> Any:
    """Import psycopg. ImportError that says how to install it."""
    try:
        import psycopg
    except ImportError as error:
        raise ImportError(
            f"a store in PostgreSQL needs psycopg: pip install 'landseer[cpu,milvus,postgres]' ({error})"
        ) from error
    return psycopg


def _why(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
