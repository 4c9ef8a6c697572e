"""The tables of a store in PostgreSQL.

`landseer_store` is one row: the number of the last change, sums, and what made what is stored. Each write locks it
until it is committed, so numbers are without gaps and become visible in their order: whoever has read up to a number
misses nothing below it. `landseer_pictures` has a column for each part of a record, in the bytes of the LMDB store;
PostgreSQL keeps large ones apart from the row, so that reading one part reads no other. `landseer_removals` has the
keys that changes removed, and is never emptied. `landseer_outbox` has for each collection of Milvus, by its token, the
last change that it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from landseer.ensemble.errors import ProfileMismatch, StoreUnusable
from landseer.ensemble.postgres_address import PostgresAddress
from landseer.ensemble.store.folder import explain_difference

FORMAT = "landseer-postgres-1"
"""Changes when a release cannot read the stores of older ones."""
PARTS = ("record", "descriptor", "clusters", "thumbnail", "locals", "keypoints", "patches")
"""Columns of bytes."""
_LOCK = 0x1A4D5EE2
"""Of the transaction that makes the tables."""
_STORE = """
CREATE TABLE landseer_store (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    format text NOT NULL, fingerprint text NOT NULL, descriptor_size integer,
    locals_by text, keypoints_by text, patches_by text,
    sequence bigint NOT NULL DEFAULT 0, last_change double precision,
    pictures bigint NOT NULL DEFAULT 0, bytes bigint NOT NULL DEFAULT 0,
    locals bigint NOT NULL DEFAULT 0, locals_bytes bigint NOT NULL DEFAULT 0,
    keypoints bigint NOT NULL DEFAULT 0, keypoints_bytes bigint NOT NULL DEFAULT 0
)"""
_PICTURES = """
CREATE TABLE landseer_pictures (
    key bigint PRIMARY KEY, id text COLLATE "C" NOT NULL UNIQUE,
    record bytea NOT NULL, descriptor bytea NOT NULL, clusters bytea NOT NULL, thumbnail bytea NOT NULL,
    locals bytea, keypoints bytea, patches bytea
)"""
_OTHERS = """
CREATE TABLE landseer_removals (number bigint PRIMARY KEY, key bigint NOT NULL);
CREATE TABLE landseer_outbox (token text PRIMARY KEY, sequence bigint NOT NULL)"""
# Not compressed: vectors and JPEG do not get shorter.
_UNCOMPRESSED = "ALTER TABLE landseer_pictures " + ", ".join(f"ALTER {part} SET STORAGE EXTERNAL" for part in PARTS)
_WHAT = {"locals": "local features", "keypoints": "keypoints", "patches": "patches"}


def prepare(cursor: Any, address: PostgresAddress, fingerprint: str, made_by: Mapping[str, str]) -> None:
    """Make the tables if they are missing, in the transaction of a cursor, and require them to be for these models.

    fingerprint: of the profile. made_by: what makes the features that are stored: locals, keypoints, patches.
    ProfileMismatch; StoreUnusable for tables of another format, or a database that is not in UTF-8.
    """
    encoding = cursor.connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise StoreUnusable(
            f"the database {address} is in {encoding}; ids need UTF8: make one with `createdb --encoding UTF8 "
            "--template template0 NAME`"
        )
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    if cursor.execute("SELECT to_regclass('landseer_store')::text").fetchone()[0] is None:
        for statement in (_STORE, _PICTURES, *_OTHERS.split(";"), _UNCOMPRESSED):
            cursor.execute(statement)
        cursor.execute("INSERT INTO landseer_store (format, fingerprint) VALUES (%s, %s)", (FORMAT, fingerprint))
    format, stored = cursor.execute("SELECT format, fingerprint FROM landseer_store").fetchone()
    if format != FORMAT:
        raise StoreUnusable(
            f"the store {address} has format {format!r}, but this release reads {FORMAT!r}; use the release that wrote "
            "it, or index the pictures again into another database"
        )
    if stored != fingerprint:
        raise ProfileMismatch(
            f"the store {address} was filled by other models than are served now: "
            f"{explain_difference(stored, fingerprint)}. Serve those models, or index the pictures again into another "
            "database"
        )
    for name, by in made_by.items():
        _stamp(cursor, address, name, by)


def _stamp(cursor: Any, address: PostgresAddress, name: str, by: str) -> None:
    """Note what makes features; servers that share a store must agree, even before it has any."""
    cursor.execute(f"UPDATE landseer_store SET {name}_by = coalesce({name}_by, %s) RETURNING {name}_by", (by,))
    there = cursor.fetchone()[0]
    if there != by:
        raise ProfileMismatch(
            f"the {_WHAT[name]} in the store {address} are made by {there[:12]}, and this server's by {by[:12]}; start "
            "it with the models and the codebook of the other servers, or with --local-features none"
        )
