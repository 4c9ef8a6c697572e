"""A collection of Milvus: every call that we make of pymilvus, with a limit of time, measured, and with our errors.

It has two fields: `key`, the primary one, and `vector`. Its description says what it was made for, with a random token
by which a store knows it again.

After a write, and after a connection, the first search or query asks for the consistency `Strong`: it waits until it
sees all that was written before it, by whomever, for up to Milvus' tick of 0.2 s. Those that follow ask for `Bounded`,
and wait for nothing. `Session`, which promises the first for less, shows removals late in Milvus 2.3.5, and forgets
what was added before them.
"""

from __future__ import annotations

import json
import logging
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np

from landseer.ensemble.errors import IndexUnavailable, StoreUnusable
from landseer.ensemble.index.engines import Keys, Vectors
from landseer.ensemble.index.milvus_setting import MilvusIndex, described
from landseer.ensemble.milvus_address import MilvusAddress
from landseer.ensemble.telemetry.metrics import Metrics, only_metrics

log = logging.getLogger(__name__)
T = TypeVar("T")
REACH_S, CONNECT_S, SEARCH_S, WRITE_S = 0.5, 2.0, 3.0, 5.0
LOAD_S = 3.0
"""Limits: of finding out whether somebody listens, and of calls. pymilvus tries a call again until its limit, so a
search outlives an interruption of a second. And how long to wait for a collection that is being loaded."""
MOST_FOUND = 16_384
"""Most hits of a search and rows of a query that Milvus returns."""
PART = 512
"""Vectors in a message: 2.6 MB of 1,280 values each."""
_MADE_BY = "landseer"


@dataclass(frozen=True, kw_only=True)
class MilvusLogin:
    """Where Milvus is, and how to be let in."""

    address: MilvusAddress
    token: Path | None = None
    """File with `user:password` or an API key, read at each connection."""
    ca: Path | None = None
    """Certificates of authorities, in PEM format; None for those of the system."""


class MilvusCollection:
    """A collection of vectors by key. Used by one thread at a time."""

    def __init__(self, login: MilvusLogin, index: MilvusIndex, *, dimension: int, metrics: Metrics) -> None:
        """index: for a collection that is made; one that is there keeps its own. ImportError without pymilvus."""
        self._login, self._metrics = login, metrics
        self._pymilvus = _pymilvus()
        self._name, self.dimension = login.address.collection, dimension
        self.search_s = SEARCH_S
        """Limit of a search, seconds; a benchmark among a million vectors allows more."""
        self.index = index
        """How it is searched; once it is open, the index that it has."""
        self._client: Any = None
        self._seen = False
        """Whether a search has waited for all that was written."""

    def open(self, made_of: str) -> str:
        """Connect, make the collection if it is not there, have it loaded, and return its token.

        made_of: which models made the vectors, and which vectors they are.
        IndexUnavailable if Milvus does not answer, or is still loading; StoreUnusable if the collection is another's,
        or of other vectors.
        """
        self.close()
        self._seen = False
        self._call("connect", self._connect)
        if not self._there():
            try:
                self._call("create", lambda c: self._create(c, made_of))
            except IndexUnavailable:
                # Another server may have made it meanwhile.
                if not self._there():
                    raise
        token = self._token(self._call("open", lambda c: c.describe_collection(self._name, timeout=CONNECT_S)), made_of)
        self._call("create", self._have_index)
        self._call("load", self._load)
        return token

    def close(self) -> None:
        """Disconnect. May be called twice."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def upsert(self, keys: Keys, vectors: Vectors) -> None:
        """Add or replace vectors [n, D] under keys [n]. IndexUnavailable: some may have been written."""
        for start in range(0, len(keys), PART):
            self._seen = False
            self._call("upsert", partial(self._upsert, keys=keys[start : start + PART], vectors=vectors[start:]))

    def delete(self, keys: Keys) -> None:
        """Remove the vectors under keys [n]; missing keys are ignored. IndexUnavailable: some may have been removed."""
        for start in range(0, len(keys), MOST_FOUND):
            self._seen = False
            self._call("delete", partial(self._delete, keys=keys[start : start + MOST_FOUND]))

    def expect_changes(self) -> None:
        """Have the next search see what others have written until then."""
        self._seen = False

    def search(self, queries: Vectors, k: int, expression: str = "") -> tuple[Keys, Vectors]:
        """Return keys and scores [Q, k'] of the nearest to each of queries [Q, D], best first, among those that satisfy
        an expression of Milvus. Rows that have fewer than others end in keys of -1. IndexUnavailable.
        """
        k = min(k, MOST_FOUND)
        parameters = {"metric_type": "IP", "params": self.index.search(k)}
        found = self._call(
            "search",
            lambda c: c.search(
                self._name,
                list(queries),
                filter=expression,
                limit=k,
                search_params=parameters,
                consistency_level=self._level,
                timeout=self.search_s,
            ),
        )
        self._seen = True
        return _table([(hits.ids, hits.distances) for hits in found])

    def count(self) -> int:
        """Return how many vectors a search would look among. IndexUnavailable."""
        return int(self._query("", "count(*)")[0]["count(*)"])

    def keys_after(self, key: int) -> Keys:
        """Return some keys above `key`; none only if there are none. IndexUnavailable."""
        found = self._query(f"key > {key}", "key", limit=MOST_FOUND)
        return np.array([row["key"] for row in found], np.int64)

    @property
    def _level(self) -> str:
        return "Bounded" if self._seen else "Strong"

    def _query(self, expression: str, field: str, **more: int) -> list[dict[str, Any]]:
        how: dict[str, Any] = {"filter": expression, "output_fields": [field], "consistency_level": self._level, **more}
        found: list[dict[str, Any]] = self._call("query", lambda c: c.query(self._name, timeout=SEARCH_S, **how))
        self._seen = True
        return found

    def _there(self) -> bool:
        return bool(self._call("open", lambda c: c.has_collection(self._name, timeout=CONNECT_S)))

    def _upsert(self, client: Any, *, keys: Keys, vectors: Vectors) -> None:
        data = [{"key": key, "vector": row} for key, row in zip(keys.tolist(), vectors, strict=False)]
        client.upsert(self._name, data, timeout=WRITE_S)

    def _delete(self, client: Any, *, keys: Keys) -> None:
        client.delete(self._name, ids=keys.tolist(), timeout=WRITE_S)

    def _connect(self, _: None) -> None:
        address, token, ca = self._login.address, self._login.token, self._login.ca
        # pymilvus would try for all of its time where nobody listens, while searches wait.
        socket.create_connection((address.host, address.port), timeout=REACH_S).close()
        scheme = "https" if address.tls else "http"
        secure = {"server_pem_path": str(ca)} if ca is not None else {}
        self._client = self._pymilvus.MilvusClient(
            f"{scheme}://{address.host}:{address.port}",
            token="" if token is None else token.read_text(encoding="utf-8").strip(),
            timeout=CONNECT_S,
            dedicated=True,
            **secure,
        )

    def _create(self, client: Any, made_of: str) -> None:
        told = json.dumps({"by": _MADE_BY, "token": secrets.token_hex(16), "vectors": made_of})
        kinds, name = self._pymilvus.DataType, self._name
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False, description=told)
        schema.add_field("key", kinds.INT64, is_primary=True)
        schema.add_field("vector", kinds.FLOAT_VECTOR, dim=self.dimension)
        client.create_collection(name, schema=schema, consistency_level="Strong", timeout=WRITE_S)
        log.info("made the collection %s of Milvus, with the index %s", self._login.address, self.index.kind)

    def _have_index(self, client: Any) -> None:
        there = client.list_indexes(self._name, timeout=CONNECT_S)
        if there:
            found = described(self.index, client.describe_index(self._name, there[0], timeout=CONNECT_S))
            if found.kind != self.index.kind:
                log.warning("%s has the index %s, which is searched as it is", self._login.address, found.kind)
            self.index = found
            return
        wanted = client.prepare_index_params()
        wanted.add_index("vector", index_type=self.index.kind, metric_type="IP", params=dict(self.index.build))
        client.create_index(self._name, wanted, timeout=WRITE_S)

    def _load(self, client: Any) -> None:
        client.load_collection(self._name, timeout=CONNECT_S, _async=True)
        until = time.monotonic() + LOAD_S
        while (told := client.get_load_state(self._name, timeout=CONNECT_S))["state"].name != "Loaded":
            if time.monotonic() > until:
                there = f"{told.get('progress', 0)}% are there"
                raise IndexUnavailable(f"Milvus at {self._login.address} is loading the collection: {there}")
            time.sleep(0.05)

    def _token(self, told: dict[str, Any], made_of: str) -> str:
        """Return the token of a collection. StoreUnusable if it is not for these vectors."""
        where = self._login.address
        instead = "name another collection in --engine, or drop this one: it is filled from the store again"
        try:
            made = json.loads(told["description"])
            by, token, vectors = made["by"], str(made["token"]), made["vectors"]
        except (ValueError, KeyError, TypeError):
            by, token, vectors = "", "", ""
        if by != _MADE_BY:
            raise StoreUnusable(f"the collection {where} of Milvus was not made by Landseer; {instead}")
        size = next((field["params"]["dim"] for field in told["fields"] if field["name"] == "vector"), 0)
        if vectors != made_of or int(size) != self.dimension:
            raise StoreUnusable(
                f"the collection {where} of Milvus has other vectors ({size} values, {vectors}) than this store is "
                f"searched by ({self.dimension} values, {made_of}); {instead}"
            )
        return token

    def _call(self, call: str, work: Callable[[Any], T]) -> T:
        """Do something with the client, measured. IndexUnavailable for whatever goes wrong."""
        began, outcome = time.perf_counter(), "OK"
        try:
            return work(self._client)
        except IndexUnavailable:
            outcome = "LOADING"
            raise
        except Exception as error:
            outcome = _outcome(error)
            raise IndexUnavailable(f"Milvus at {self._login.address} failed to {call}: {_why(error)}") from error
        finally:
            with only_metrics():
                self._metrics.milvus.labels(call).observe(time.perf_counter() - began)
                self._metrics.milvus_requests.labels(call, outcome).inc()


def _pymilvus() -> Any:
    """Import pymilvus. ImportError that says how to install it."""
    try:
        import pymilvus
    except ImportError as error:
        raise ImportError(
            f"an engine milvus://... needs pymilvus: pip install 'landseer[cpu,milvus]' ({error})"
        ) from error
    # It logs each failure with its traceback to stderr; our errors say it in a line.
    for name in ("pymilvus", "pymilvus.milvus_client"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    return pymilvus


def _outcome(error: Exception) -> str:
    """Return what went wrong, in one of few words: a gRPC status, or REFUSED if Milvus answered with an error."""
    code = error.code() if isinstance(error, grpc.Call) else getattr(error, "code", None)
    return code.name if isinstance(code, grpc.StatusCode) else "REFUSED"


def _why(error: Exception) -> str:
    told = error.details() if isinstance(error, grpc.Call) else getattr(error, "message", "") or str(error)
    return " ".join(str(told or type(error).__name__).split())[:300]


def _table(rows: list[tuple[list[int], list[float]]]) -> tuple[Keys, Vectors]:
    """Return rows of keys and scores as arrays; short ones end in keys of -1."""
    width = max((len(keys) for keys, _ in rows), default=0)
    keys, scores = np.full((len(rows), width), -1, np.int64), np.full((len(rows), width), -np.inf, np.float32)
    for place, (some, distances) in enumerate(rows):
        keys[place, : len(some)], scores[place, : len(some)] = some, distances
    return keys, scores
