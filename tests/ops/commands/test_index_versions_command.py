"""`landseer index-versions`, on a store that no server uses."""

from __future__ import annotations

import pytest
from records import plain_record, unit_halves

from landseer.client.cli import main
from landseer.ensemble.index.versions import Versions
from landseer.ensemble.store.store import Store

VECTORS = unit_halves(60, 16, seed=1)


def opened(folder):
    return Store.open(folder, fingerprint="{}", clusters_shape=(10, 8), limit_bytes=2**26)


@pytest.fixture
def folder(tmp_path):
    store = opened(tmp_path / "store")
    store.put_many([plain_record(f"p{row}", reduced=8, descriptor=VECTORS[row]) for row in range(60)])
    store.close()
    return tmp_path / "store"


def test_versions_are_built_listed_checked_and_chosen(folder, capsys):
    def call(*arguments):
        status = main(["index-versions", arguments[0], str(folder), *arguments[1:]])
        return status, *capsys.readouterr()

    assert "no index versions" in call("list")[1]
    none = "landseer index-versions: there is no version before the active one; there: none\n"
    assert call("rollback") == (1, "", none)
    for index in ("Flat", "HNSW4,SQ8:16:4", "SQfp16"):
        status, said, _ = call("build", "--index", index)
        assert status == 0 and "serves from the next start on" in said
    assert Versions(folder).numbers == [1, 2, 3] and Versions(folder).active == 3
    Versions(folder).discard(1)  # As a server does.
    lines = call("list")[1].splitlines()
    assert [line[0] for line in lines[1:]] == [" ", "*"] and [line[1:].split()[:2] for line in lines[1:]] == [
        ["2", "60"],
        ["3", "60"],
    ]
    assert "HNSW4,SQ8" in lines[1] and "SQfp16" in lines[2]
    # A server without --index searches so few exactly, and would not use it.
    status, _, error = call("rollback")
    assert status == 1 and "give both this command and `landseer serve` --index HNSW4,SQ8:16:4" in error
    assert Versions(folder).active == 3
    assert call("rollback", "--index", "HNSW4,SQ8:16:4")[0] == 0 and Versions(folder).active == 2
    assert call("activate", "3")[0] == 0 and Versions(folder).active == 3
    status, said, _ = call("verify")
    assert status == 0 and said.count("as they were written") == 2
    assert call("activate", "7") == (2, "", "landseer index-versions: there is no version 7; there: 2, 3\n")
    assert call("activate")[0] == 2
    file = folder / "index" / "versions" / "2" / "index.faiss"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    status, said, _ = call("verify")
    assert status == 1 and "version 2 is damaged" in said and "version 3: 3 files are as they were written" in said
    assert call("list", "--words")[1].count("no index versions") == 1 and call("build", "--words")[0] == 2
    status, _, error = call("rollback")
    assert status == 1 and "index.faiss is not as it was written" in error and Versions(folder).active == 3


def test_what_cannot_be_done_says_why(folder, capsys, tmp_path):
    assert main(["index-versions", "build", str(folder), "--index", "Nonsense7"]) == 2
    assert "FAISS cannot make the index 'Nonsense7'" in capsys.readouterr().err
    assert main(["index-versions", "build", str(folder), "--vectors", "augmented"]) == 1
    assert "no augmented vectors" in capsys.readouterr().err
    assert main(["index-versions", "list", str(tmp_path / "none")]) == 1
    assert "there is no store in" in capsys.readouterr().err
    assert main(["index-versions", "build", str(folder)]) == 0
    store = opened(folder)
    try:
        # A server has it.
        assert main(["index-versions", "activate", str(folder), "1"]) == 1
        assert "is in use by process" in capsys.readouterr().err
        assert main(["index-versions", "verify", str(folder)]) == 0
    finally:
        store.close()
    # Another store in the same folder, with the same number of changes.
    other = opened(tmp_path / "other")
    other.put_many([plain_record(f"q{row}", reduced=8, descriptor=VECTORS[-row]) for row in range(60)])
    other.close()
    (tmp_path / "other" / "data.mdb").replace(folder / "data.mdb")
    assert main(["index-versions", "activate", str(folder), "1"]) == 1
    assert "built from another store" in capsys.readouterr().err
