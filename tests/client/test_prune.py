"""`landseer prune` and `landseer list`: what is deleted, and above all what is not."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path

import pytest

from landseer.client.blocking import BlockingSearchClient
from landseer.client.client import SearchClient
from landseer.client.folder_tree import FolderTree
from landseer.v1.index_pb2 import Picture


def refuse(folder: Path) -> None:
    raise PermissionError(13, "Permission denied")


ALL = ["photos/a.jpg", "photos/b.PNG", "photos/deep/a.jpg"]


def test_list_prints_ids_of_all_pages(run, fake, photos: Path) -> None:
    run("index", "photos")
    assert run("list") == (0, "".join(f"{id}\n" for id in ALL), "")
    assert run("list", "photos/deep/")[1] == "photos/deep/a.jpg\n"
    told = json.loads(run("list", "photos/a", "--json")[1])["pictures"]
    assert [(one["id"], one["metadata"]["path"]) for one in told] == [("photos/a.jpg", str(photos / "a.jpg"))]
    assert len(fake.requests["List"]) == 2 + 1 + 1


async def test_clients_list_all_pages(fake) -> None:
    async with SearchClient(fake.address) as client:
        await client.upsert_many([Picture(id=f"{number}", image=b"1") for number in range(5)])
        assert [picture.id async for picture in client.list()] == ["0", "1", "2", "3", "4"]
        assert (await client.list_page(page_token="2", page_size=1)).next_page_token == "3"


def test_the_blocking_client_lists_all_pages(fake) -> None:
    with BlockingSearchClient(fake.address) as client:
        client.upsert_many([Picture(id=f"{number}", image=b"1") for number in range(5)])
        assert [picture.id for picture in client.list("")] == ["0", "1", "2", "3", "4"]


def test_pictures_without_a_file_are_listed_and_deleted_with_yes(run, fake, photos: Path) -> None:
    run("index", "photos")
    fake.pictures["photographs/x.jpg"] = Picture(metadata={"path": str(photos.parent / "photographs/x.jpg")})
    (photos / "a.jpg").unlink()
    shutil.rmtree(photos / "deep")
    status, out, err = run("prune", "photos")
    gone = "gone: photos/a.jpg\ngone: photos/deep/a.jpg\n"
    assert (status, out, err) == (
        0,
        f"{gone}3 pictures of photos in the index, 2 without a file; --yes deletes them\n",
        "",
    )
    assert len(fake.pictures) == 4
    assert "2 without a file, deleted" in run("prune", str(photos), "--yes")[1]
    # A folder whose name begins alike is another one.
    assert sorted(fake.pictures) == ["photographs/x.jpg", "photos/b.PNG"]
    assert json.loads(run("prune", "photos", "--json")[1]) == {
        "checked": 1,
        "gone": [],
        "deleted": 0,
        "doubtful": [],
        "foreign": [],
    }


def test_prefixes_and_the_working_folder(run, fake, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    run("index", ".", "--prefix", "shop/")
    run("index", ".")
    (photos / "a.jpg").unlink()
    assert run("prune", ".", "--yes")[0] == 0
    assert "a.jpg" not in fake.pictures and "shop/a.jpg" in fake.pictures
    run("prune", ".", "--prefix", "shop/", "--yes")
    assert sorted(fake.pictures) == ["b.PNG", "deep/a.jpg", "shop/b.PNG", "shop/deep/a.jpg"]


@pytest.mark.parametrize("harm", ["missing", "empty", "hidden", "unreadable"])
def test_a_disk_that_is_not_mounted_deletes_nothing(run, fake, photos: Path, monkeypatch, harm: str) -> None:
    run("index", "photos")
    shutil.rmtree(photos)
    if harm != "missing":
        photos.mkdir()
    if harm == "hidden":
        (photos / ".DS_Store").touch()
    if harm == "unreadable":
        monkeypatch.setattr(
            Path, "iterdir", lambda self: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
        )
    status, out, err = run("prune", "photos", "--yes")
    assert (status, out, sorted(fake.pictures)) == (1, "", ALL)
    assert "so nothing was pruned; mount the disk, or add --force" in err and err.count("\n") == 1
    run("prune", "photos", "--yes", "--force")
    assert not fake.pictures


def test_a_disk_below_the_folder_that_is_not_mounted_keeps_its_pictures(run, fake, photos: Path) -> None:
    other = photos.parent / "disk"
    other.mkdir()
    (photos / "deep").rename(other / "deep")
    (photos / "linked").symlink_to(other / "deep")
    shutil.copytree(other / "deep", photos / "mounted")
    run("index", "photos")
    (other / "deep").rename(photos.parent / "away")
    (photos / "mounted" / "a.jpg").unlink()
    (photos / "a.jpg").unlink()
    status, out, _ = run("prune", "photos", "--yes")
    assert status == 1
    assert "kept: photos/mounted/a.jpg: photos/mounted is empty; its disk may not be mounted" in out
    assert "kept: photos/linked/a.jpg: photos/linked is a link to nothing" in out
    assert sorted(fake.pictures) == ["photos/b.PNG", "photos/linked/a.jpg", "photos/mounted/a.jpg"]


def test_pictures_of_another_place_with_the_same_ids_are_kept(run, fake, photos: Path, monkeypatch) -> None:
    run("index", "photos")
    fake.pictures["photos/sent.jpg"] = Picture(id="photos/sent.jpg")
    elsewhere = photos.parent / "elsewhere"
    (elsewhere / "photos").mkdir(parents=True)
    (elsewhere / "photos" / "other.jpg").touch()
    monkeypatch.chdir(elsewhere)
    status, out, _ = run("prune", "photos", "--yes", "--force")
    assert (status, len(fake.pictures)) == (0, 4)
    assert f"kept: photos/a.jpg: it was indexed from {photos / 'a.jpg'}" in out
    assert "kept: photos/sent.jpg: its metadata has no `path`" in out


def test_names_that_a_disk_spells_otherwise_are_found(photos: Path) -> None:
    name = unicodedata.normalize("NFD", "Café")
    (photos / name).mkdir()
    (photos / name / "é.jpg").touch()
    tree = FolderTree(root=photos)
    assert tree.find(["Café", "é.jpg"]).there
    assert not tree.find(["Café", "e.jpg"]).there


def test_a_disk_that_was_unmounted_with_its_mount_point_is_doubted(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("landseer.client.folder_tree._HOLDERS", (tmp_path,))
    (tmp_path / "other").mkdir()
    lookup = FolderTree(root=tmp_path).find(["usb", "a.jpg"])
    assert not lookup.there and "a mount point in" in lookup.doubt


def test_a_file_is_not_a_folder(run, photos: Path) -> None:
    assert run("prune", "photos/a.jpg")[2].startswith("landseer prune: photos/a.jpg is a file; give the folder")
