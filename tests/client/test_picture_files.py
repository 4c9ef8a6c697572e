from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landseer.client.errors import UnusableInput
from landseer.client.picture_files import find_pictures, picture_id


def ids(*paths: str, prefix: str = "") -> list[str]:
    return [picture.id for picture in find_pictures(map(Path, paths), prefix=prefix).pictures]


def test_folders_are_walked_in_order_without_hidden_files(photos: Path) -> None:
    assert ids("photos") == ["photos/a.jpg", "photos/b.PNG", "photos/deep/a.jpg"]
    assert find_pictures([Path("photos")]).ignored == 1


def test_an_id_is_the_path_as_given(photos: Path) -> None:
    assert ids("./photos/deep/../deep/") == ["photos/deep/a.jpg"]
    assert ids(str(photos / "a.jpg")) == [str(photos / "a.jpg")]
    assert ids("photos/a.jpg", prefix="shop:") == ["shop:photos/a.jpg"]


def test_every_id_once(photos: Path) -> None:
    assert ids("photos", "photos/a.jpg", "./photos") == ids("photos")


def test_links_to_folders_are_not_followed_and_links_to_files_are(photos: Path) -> None:
    (photos / "loop").symlink_to(photos)
    (photos / "link.jpg").symlink_to(photos / "a.jpg")
    assert ids("photos") == ["photos/a.jpg", "photos/b.PNG", "photos/deep/a.jpg", "photos/link.jpg"]


def test_nothing_to_index_is_said(photos: Path) -> None:
    with pytest.raises(UnusableInput, match=r"no pictures in photos/notes.txt: looked for names that end in \.jpg"):
        ids("photos/notes.txt")
    with pytest.raises(UnusableInput, match="no file or folder nowhere"):
        ids("photos", "nowhere")
    (photos / "empty").mkdir()
    with pytest.raises(UnusableInput, match="no pictures in photos/empty"):
        ids("photos/empty")


def test_metadata_path_is_absolute_and_tidy(photos: Path) -> None:
    [picture] = find_pictures([Path("photos/../photos/a.jpg")]).pictures
    assert picture.absolute == str(photos / "a.jpg")


@given(st.lists(st.sampled_from(["a", "b", "..", "."]), min_size=1, max_size=6))
def test_ids_do_not_change_when_normalised_again(parts: list[str]) -> None:
    once = picture_id(Path(*parts))
    assert picture_id(Path(once)) == once
