"""A store moves from a folder to PostgreSQL and back, by a Parquet file: a real database, and the commands."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
from whole_stores import PROFILE, full_record, kept, open_full

from landseer.client.cli import main
from landseer.ensemble.errors import StoreUnavailable
from landseer.ensemble.postgres_address import postgres_address
from landseer.ensemble.store.exporting import export_store
from landseer.ensemble.store.folder import WORDS
from landseer.ensemble.store.importing import import_store
from landseer.ensemble.store.postgres.postgres_store import PostgresStore


@pytest.fixture
def filled(tmp_path):
    """A folder with some of everything, in which pictures were replaced and deleted."""
    store = open_full(tmp_path / "store")
    store.put_many([full_record(f"p{seed}", seed) for seed in range(1, 300)])
    store.delete("p7")
    store.put_many([full_record("p9", 400)])
    store.close()
    return tmp_path / "store"


@contextlib.contextmanager
def opened(url, folder):
    """Open the store in a database, for what the one in a folder was made by."""
    with contextlib.closing(open_full(folder)) as source:
        made_by = {name: getattr(source, name).made_by for name in ("locals", "keypoints", "patches")}
    store = PostgresStore.open(postgres_address(url), fingerprint=PROFILE.fingerprint, made_by=made_by)
    with contextlib.closing(store):
        yield store


def without_words(records):
    return [{name: value for name, value in one.items() if name != WORDS} for one in records]


def test_a_store_moves_to_a_database_and_back_byte_for_byte(filled, url, tmp_path, capsys):
    there, back = tmp_path / "there.parquet", tmp_path / "back.parquet"
    assert main(["export-store", str(filled), str(there)]) == 0
    assert main(["import-store", str(there), url]) == 0
    assert f"{postgres_address(url)}: 298 of 298 pictures written" in capsys.readouterr().out
    with opened(url, filled) as store:
        stats = store.stats()
        assert (stats.pictures, stats.sequence) == (298, 298)
        assert (stats.keypoints, stats.locals) == (298, 200)
        # While another server writes into it.
        store.put_many([dataclasses.replace(full_record("p2", 2), words=None)])
    assert main(["import-store", str(there), url]) == 0
    assert "0 of 298 pictures written, the others were there already" in capsys.readouterr().out
    assert main(["export-store", url, str(back)]) == 0
    assert "298 pictures after change 299" in capsys.readouterr().out
    assert import_store(back, tmp_path / "again").written == 298
    moved, kept_there = without_words(kept(tmp_path / "again")), without_words(kept(filled))
    assert sorted(map(str, moved)) == sorted(map(str, kept_there))


def test_an_import_goes_on_where_the_database_went_away(filled, server, url, tmp_path, capsys):
    file = tmp_path / "store.parquet"
    export_store(filled, file)

    def stops(done, total):
        if done == 128:
            server.stop()

    with pytest.raises(StoreUnavailable, match="does not answer"):
        import_store(file, postgres_address(url), progress=stops)
    assert main(["import-store", str(file), url]) == 1
    said = capsys.readouterr().err
    assert "does not answer" in said and said.endswith(
        "What was imported before stays; run the same command again to resume\n"
    )
    server.start()
    assert import_store(file, postgres_address(url)).written == 298 - 128


def test_what_cannot_be_moved_is_told_in_a_line(filled, url, tmp_path, capsys):
    file = tmp_path / "store.parquet"
    assert main(["export-store", url, str(file)]) == 1
    assert f"there is no store in {postgres_address(url)}" in capsys.readouterr().err
    export_store(filled, file)
    PostgresStore.open(postgres_address(url), fingerprint='{"descriptor": 7}', made_by={}).close()
    assert main(["export-store", url, str(tmp_path / "empty.parquet")]) == 1
    assert "has no pictures, so there is nothing to export" in capsys.readouterr().err
    assert not (tmp_path / "empty.parquet").exists()
    assert main(["import-store", str(file), url]) == 1
    assert "was filled by other models" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["import-store", str(file), "postgresql://landseer:secret@db.example/pictures"])
    assert "has a password" in capsys.readouterr().err
