from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landseer.client.errors import UnusableInput
from landseer.client.picture_files import PassedOver, check_found, find_pictures, picture_id

PNG, TEXT = b"\x89PNG\r\n\x1a\n....", b"BMW drives by"


def ids(*paths: str, prefix: str = "") -> list[str]:
    return [picture.id for picture in find_pictures(map(Path, paths), prefix=prefix).pictures]


def reasons(passed: tuple[PassedOver, ...]) -> dict[str, str]:
    return {str(over.path): over.reason for over in passed}


def test_folders_are_walked_in_order_without_hidden_files(photos: Path) -> None:
    assert ids("photos") == ["photos/a.jpg", "photos/b.PNG", "photos/deep/a.jpg"]
    assert reasons(find_pictures([Path("photos")]).ignored) == {
        "photos/notes.txt": "no picture, by its name and its first bytes"
    }


def test_an_id_is_the_path_from_the_working_folder_however_it_is_named(photos: Path) -> None:
    for name in ("photos", "./photos", "photos/", "photos/deep/..", f"../{photos.parent.name}/photos", str(photos)):
        assert ids(name) == ["photos/a.jpg", "photos/b.PNG", "photos/deep/a.jpg"]
    assert ids("photos/a.jpg", prefix="shop:") == ["shop:photos/a.jpg"]


def test_an_id_is_absolute_outside_the_working_folder(photos: Path, monkeypatch) -> None:
    (photos.parent / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert ids("../photos/a.jpg") == ids(str(photos / "a.jpg")) == [str(photos / "a.jpg")]
    monkeypatch.chdir("/")
    assert ids(str(photos / "a.jpg")) == ids(str(photos / "a.jpg")[1:]) == [str(photos / "a.jpg")]


def test_an_id_knows_the_working_folder_as_the_shell_names_it(photos: Path, monkeypatch) -> None:
    alias = photos.parent / "alias"
    alias.symlink_to(photos)
    monkeypatch.chdir(alias)
    monkeypatch.setenv("PWD", str(alias))
    assert ids(str(alias / "a.jpg")) == ids(str(photos / "a.jpg")) == ids("a.jpg") == ["a.jpg"]
    monkeypatch.setenv("PWD", str(photos.parent))  # Left over from another folder.
    assert ids(str(photos / "a.jpg")) == ["a.jpg"]


def test_composed_and_decomposed_names_are_the_same_id(photos: Path) -> None:
    one, two = (unicodedata.normalize(form, "Café") for form in ("NFC", "NFD"))
    (photos / f"{two}.jpg").write_bytes(b"x")
    assert ids(f"photos/{two}.jpg", prefix=f"{two}/") == [f"{one}/photos/{one}.jpg"]
    (photos / f"{one}.jpg").write_bytes(b"y")  # Some file systems keep both.
    found = find_pictures([Path("photos")])
    assert sum(picture.id.endswith(f"{one}.jpg") for picture in found.pictures) == 1
    [reason] = reasons(found.unreadable).values()
    assert reason.startswith(f"it has the same id as photos/{two}.jpg") and reason.endswith("rename one of them")


def test_every_id_once(photos: Path) -> None:
    (photos / "gone.jpg").symlink_to("nowhere")
    assert ids("photos", "photos/a.jpg", "./photos", str(photos)) == ids("photos")
    assert len(find_pictures([Path("photos"), photos]).ignored) == 2


def test_a_link_to_a_folder_is_followed_once(photos: Path) -> None:
    outside = photos.parent / "outside"
    outside.mkdir()
    (outside / "c.jpg").write_bytes(b"x")
    (outside / "back").symlink_to(photos)
    for name, target in {"1": outside, "2": outside, "3": photos, "4": photos / "deep", "link.jpg": "a.jpg"}.items():
        (photos / name).symlink_to(target)
    found = find_pictures([Path("photos")])
    names = ["a.jpg", "b.PNG", "deep/a.jpg", "link.jpg", "1/c.jpg"]
    assert [picture.id for picture in found.pictures] == [f"photos/{name}" for name in names]
    assert found.linked == 1
    told = {path for path, reason in reasons(found.ignored).items() if "was searched already" in reason}
    assert told == {"photos/2", "photos/3", "photos/4", "photos/1/back"}
    assert {"photos/1/c.jpg", "outside/c.jpg"} < set(ids("photos/1", "outside"))  # Named, so both are wanted.


def test_links_that_lead_nowhere_stop_nothing(photos: Path) -> None:
    (photos / "gone.jpg").symlink_to("nowhere")
    (photos / "self.jpg").symlink_to("self.jpg")
    found = find_pictures([Path("photos")])
    assert len(found.pictures) == 3
    assert reasons(found.ignored)["photos/gone.jpg"] == "a link to nothing"
    assert "photos/self.jpg" in reasons(found.ignored) | reasons(found.unreadable)


def test_what_cannot_be_read_stops_nothing_else(photos: Path, monkeypatch) -> None:
    (photos / "secret").write_bytes(PNG)
    scan, open_ = os.scandir, Path.open

    def scandir(folder):
        if Path(folder).name == "deep":
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    def opened(path, *args, **kwargs):
        if path.name == "secret":
            raise PermissionError(13, "Permission denied")
        return open_(path, *args, **kwargs)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(Path, "open", opened)
    found = find_pictures([Path("photos"), Path("photos/deep"), Path("nowhere")])
    assert [picture.id for picture in found.pictures] == ["photos/a.jpg", "photos/b.PNG"]
    assert reasons(found.unreadable) == {
        "photos/deep": "cannot read the folder: Permission denied",
        "photos/secret": "cannot read it: Permission denied",
        "nowhere": "there is no such file or folder; check the path",
    }


def test_a_name_that_is_not_utf8_stops_nothing_else(photos: Path) -> None:
    (photos / os.fsdecode(b"\xe9t\xe9.jpg")).write_bytes(b"x")
    (photos / os.fsdecode(b"\xe9t\xe9")).mkdir()
    (photos / os.fsdecode(b"\xe9t\xe9") / "a.jpg").write_bytes(b"x")
    found = find_pictures([Path("photos"), Path(os.fsdecode(b"\xff.jpg"))])
    assert len(found.pictures) == 3
    told = [over.reason for over in found.unreadable]
    assert sum(reason.startswith("the name is not UTF-8: b'photos/\\xe9t\\xe9") for reason in told) == 2
    assert sum(reason.startswith("there is no such file") for reason in told) == 1


def test_pictures_are_known_by_their_first_bytes(photos: Path) -> None:
    files = {
        "plain": PNG,
        "photo.dat": b"\xff\xd8\xff\xe0",
        "raw.nef": b"II*\0....",
        "scan": b"II*\0....",
        "story": TEXT,
    }
    files |= {"1.JFIF": b"", "2.avif": b"", "3.heic": b"", "film.mp4": b"\0\0\0\x18ftypisom\0\0\0\0avif", "empty": b""}
    for name, data in files.items():
        (photos / "deep" / name).write_bytes(data)
    found = find_pictures([Path("photos/deep")])
    assert {picture.path.name for picture in found.pictures} == {
        *("a.jpg", "plain", "photo.dat", "scan", "1.JFIF", "2.avif", "3.heic")
    }
    told = reasons(found.ignored)
    assert set(told) == {f"photos/deep/{name}" for name in ("raw.nef", "story", "film.mp4", "empty")}
    assert told["photos/deep/raw.nef"].startswith("TIFF under another name")


def test_nothing_to_index_is_said(photos: Path) -> None:
    def why(*paths: str) -> str:
        with pytest.raises(UnusableInput) as caught:
            check_found(find_pictures(map(Path, paths)), map(Path, paths))
        return str(caught.value)

    assert why("photos/notes.txt").startswith(
        "no pictures in photos/notes.txt: found 1 file, but none with a known suffix (.jpg "
    )
    assert why("photos/notes.txt").endswith(".heif) or the first bytes of a picture")
    assert why("nowhere", "gone") == (
        "no pictures: nowhere: there is no such file or folder; check the path (and 1 more path cannot be used)"
    )
    (photos / "empty").mkdir()
    assert why("photos/empty") == "no pictures in photos/empty: found no files; hidden ones are skipped"


def test_metadata_path_is_absolute_and_tidy(photos: Path) -> None:
    [picture] = find_pictures([Path("photos/../photos/a.jpg")]).pictures
    assert picture.absolute == str(photos / "a.jpg")


@given(st.lists(st.sampled_from(["a", "b", "..", "."]), min_size=1, max_size=6))
def test_ids_do_not_change_when_normalised_again(parts: list[str]) -> None:
    once = picture_id(Path(*parts))
    assert picture_id(Path(once)) == once
