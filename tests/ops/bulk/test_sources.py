from __future__ import annotations

import fsspec
import pytest

from landseer.client.picture_files import find_pictures
from landseer.ops.bulk.sources import find_sources, read_list
from landseer.ops.errors import OpsError


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder in the working folder: two pictures, what is none, what is hidden."""
    inner = tmp_path / "photos" / "inner"
    inner.mkdir(parents=True)
    for name in ("b.jpg", "inner/a.PNG", "notes.txt", ".hidden.jpg"):
        (tmp_path / "photos" / name).write_bytes(b"content")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def test_files_have_the_ids_that_landseer_index_gives_them(photos):
    found = find_sources(["photos", str(photos / "b.jpg"), "gone"], prefix="x/")
    theirs = find_pictures([photos], prefix="x/").pictures
    assert [(one.id, one.absolute, one.version) for one in found.pictures] == [
        (one.id, one.absolute, one.version()) for one in theirs
    ]
    assert [one.id for one in found.pictures] == ["x/photos/b.jpg", "x/photos/inner/a.PNG"]
    assert found.ignored == 1
    [gone] = found.unreadable
    assert gone.id == "x/gone" and "there is no such file or folder" in gone.why


def test_a_url_leads_to_pictures_with_urls_as_ids(photos):
    root = f"file://{photos}"
    found = find_sources([root, f"{root}/inner", "memory://not-there"])
    assert [one.id for one in found.pictures] == [f"{root}/b.jpg", f"{root}/inner/a.PNG"]
    assert [one.absolute for one in found.pictures] == [one.id for one in found.pictures]
    assert (found.ignored, [one.id for one in found.unreadable]) == (1, ["memory://not-there"])
    before = found.pictures[0].version
    (photos / "b.jpg").write_bytes(b"other content")
    assert find_sources([root]).pictures[0].version not in ("", before)


def test_a_picture_of_a_list_is_not_looked_up(photos):
    (photos / "list.txt").write_text("photos/b.jpg\n\n  s3://bucket/Ä/a.jpg  \n", encoding="utf-8")
    found = find_sources(read_list(photos / "list.txt"), prefix="x/")
    assert [(one.id, one.absolute) for one in found.pictures] == [
        ("x/photos/b.jpg", str(photos / "b.jpg")),
        ("x/s3://bucket/Ä/a.jpg", "s3://bucket/Ä/a.jpg"),
    ]
    assert found.pictures[1].version == ""


def test_the_second_of_two_names_that_differ_only_in_how_they_are_composed_is_named():
    composed, apart = "s3://bucket/\u00e9.jpg", "s3://bucket/e\u0301.jpg"
    found = find_sources([composed, apart, composed])
    assert [one.absolute for one in found.pictures] == [composed]
    assert [(one.id, one.why) for one in found.unreadable] == [(apart, f"it has the same id as {composed}")]


def test_a_url_that_nothing_can_read_is_an_error_and_one_that_fails_is_reported(photos, monkeypatch):
    with pytest.raises(OpsError, match=r"carrier-pigeon://coop cannot be read: Protocol not known"):
        find_sources(["carrier-pigeon://coop"])
    with pytest.raises(OpsError, match="expected UTF-8 text"):
        read_list(photos / "gone.txt")

    def fails(*words, **options):
        raise TimeoutError("nobody answered")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "find", fails)
    [failed] = find_sources(["memory://album"]).unreadable
    assert (failed.id, failed.why) == ("memory://album", "cannot list it: nobody answered")
