from __future__ import annotations

import dataclasses
import json
import sys

import pytest

from landseer.client.cli import main
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.store.store import Store

PROFILE = Profile(backbone="tiny", weights_sha256="ab" * 32, sizes=Sizes(channels=64))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A picture, and models of which only the manifest is there."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"a picture")
    (tmp_path / "model_repository").mkdir()
    manifest = {"profile": dataclasses.asdict(PROFILE)}
    (tmp_path / "model_repository" / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_ray_the_extra_is_named(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["bulk", "photos", "store"]) == 1
    said = capsys.readouterr().err
    assert "this command needs ray, which is not installed; pip install 'landseer[cpu,triton,bulk]'" in said
    assert not (folder / "store").exists()


def test_a_store_in_use_is_left_alone(folder, capsys):
    pytest.importorskip("ray")
    server = Store.open(folder / "store", fingerprint=PROFILE.fingerprint)
    try:
        assert main(["bulk", "photos", "store"]) == 1
    finally:
        server.close()
    said = capsys.readouterr().err
    assert "landseer bulk: store is in use by process" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["empty", "store"], 1, "no pictures in empty: "),
        (["photos", "store", "--repository", "elsewhere"], 1, "elsewhere/manifest.json cannot be read"),
        (["photos", "store", "--store-limit", "much"], 2, "got size 'much'"),
        (["photos", "store", "--metadata-file", "gone.csv"], 1, "cannot read gone.csv"),
        (["@gone.txt", "store"], 1, "cannot read the list gone.txt"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_before_anything_is_started(folder, words, status, said, capsys):
    pytest.importorskip("ray")
    (folder / "empty").mkdir()
    assert main(["bulk", *words]) == status
    err = capsys.readouterr().err
    assert said in err and err.startswith("landseer bulk: ") and err.count("\n") == 1
    assert not (folder / "store").exists()
