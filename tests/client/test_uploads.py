from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from landseer.client import SearchClient
from landseer.client.errors import LandseerClientError, Refused
from landseer.client.picture_files import PictureFile
from landseer.client.uploads import Upload, UploadPlan, UploadTally

QUICK = {"first_pause": 0.01, "patience": 10.0, "chunk": 4}


@pytest.fixture
def files(tmp_path: Path) -> list[PictureFile]:
    made = [PictureFile(id=f"p{number}", path=tmp_path / f"{number}.jpg") for number in range(10)]
    for picture in made:
        picture.path.write_bytes(picture.id.encode())
    return made


async def upload(fake, pictures: list[PictureFile], **plan) -> tuple[UploadTally, list[str], list[int]]:
    tally, troubles, progress = UploadTally(total=len(pictures)), [], []
    async with SearchClient(fake.address) as client:
        await Upload(
            client,
            UploadPlan(**(QUICK | plan)),
            tally,
            on_progress=lambda: progress.append(tally.done),
            on_trouble=troubles.append,
        ).run(pictures)
    return tally, troubles, progress


async def test_all_arrive_in_chunks_with_their_metadata(fake, files) -> None:
    tally, troubles, progress = await upload(fake, files, metadata={"shop": "north"}, concurrency=1)
    assert (tally.indexed, tally.done, troubles) == (10, 10, [])
    assert progress == [4, 8, 10]
    assert fake.pictures["p3"].image == b"p3"
    assert dict(fake.pictures["p3"].metadata) == {
        "path": str(files[3].path),
        "shop": "north",
        "file_version": f"2-{files[3].path.stat().st_mtime_ns}",
    }


async def test_a_changed_file_is_not_skipped(fake, files) -> None:
    await upload(fake, files)
    files[1].path.write_bytes(b"another size")
    os.utime(files[2].path, (1e9, 1e9))  # Older, as from a backup.
    files[3].path.unlink()
    tally, _, _ = await upload(fake, files, skip_indexed=True)
    assert (tally.skipped, tally.indexed, tally.replaced) == (7, 2, 2)
    assert [failure.picture.id for failure in tally.failures] == ["p3"]
    assert fake.pictures["p1"].image == b"another size"
    tally, _, _ = await upload(fake, files[:3], skip_indexed=True)
    assert tally.skipped == 3


async def test_without_a_version_a_file_newer_than_its_record_is_not_skipped(fake, files) -> None:
    await upload(fake, files)
    for picture in fake.pictures.values():
        del picture.metadata["file_version"]
    soon = fake.indexed_at.timestamp() + 60
    for picture in files:
        os.utime(picture.path, (1e9, 1e9))
    os.utime(files[4].path, (soon, soon))
    tally, _, _ = await upload(fake, files, skip_indexed=True)
    assert (tally.skipped, tally.indexed) == (9, 1)
    assert "file_version" in fake.pictures["p4"].metadata


async def test_a_bad_picture_stops_no_other(fake, files) -> None:
    fake.judge = lambda picture: (3, "not a picture") if picture.id in ("p1", "p9") else None
    files[5].path.unlink()
    files[6].path.write_bytes(bytes(2000))
    tally, _, _ = await upload(fake, files)
    failed = {failure.picture.id: failure for failure in tally.failures}
    assert tally.indexed == 6
    assert {id: failure.code for id, failure in failed.items()} == dict.fromkeys(
        ("p1", "p9", "p5", "p6"), "INVALID_ARGUMENT"
    )
    assert failed["p1"].message == "not a picture"
    assert "there is no file" in failed["p5"].message
    assert failed["p6"].message == "2,000 bytes, above the server's limit of 1,000"


async def test_a_message_too_large_takes_no_other_with_it(fake, files) -> None:
    fake.max_image_bytes = 0  # A server that does not tell its limit.
    files[2].path.write_bytes(bytes(9 << 20))
    tally, _, _ = await upload(fake, files)
    assert (tally.indexed, [failure.picture.id for failure in tally.failures]) == (9, ["p2"])


async def test_a_name_that_is_not_utf8_fails_alone(fake, files) -> None:
    files[0] = PictureFile(id="\udcff.jpg", path=files[0].path)
    tally, _, _ = await upload(fake, files, skip_indexed=True)
    assert tally.indexed == 9
    assert "not UTF-8" in tally.failures[0].message


async def test_pictures_refused_for_now_are_sent_again(fake, files) -> None:
    refused = {"p1", "p2"}

    def judge(picture):
        if picture.id in refused:
            refused.remove(picture.id)
            return 14, "Triton does not answer"
        return None

    fake.judge = judge
    tally, troubles, _ = await upload(fake, files)
    assert (tally.indexed, tally.failures) == (10, [])
    assert troubles == ["Triton does not answer"]


async def test_a_server_that_goes_away_loses_nothing(fake, files) -> None:
    seen = []

    def judge(picture):
        seen.append(picture.id)
        if len(seen) == 6:  # In the middle of a call.
            threading.Thread(target=lambda: (fake.stop(), fake.start())).start()
            threading.Event().wait(0.3)

    fake.judge = judge
    tally, troubles, _ = await upload(fake, files, concurrency=1)
    assert tally.indexed == 10
    assert troubles
    assert sorted(fake.pictures) == sorted(picture.id for picture in files)


async def test_patience_ends(fake, files) -> None:
    fake.judge = lambda picture: (14, "Triton does not answer")
    with pytest.raises(LandseerClientError, match=r"gave up after retrying for 0\.05 s: Triton does not answer"):
        await upload(fake, files, patience=0.05)


async def test_one_picture_that_stays_refused_is_a_failure(fake, files) -> None:
    fake.judge = lambda picture: (14, "not now") if picture.id == "p0" else None
    tally, _, _ = await upload(fake, files, patience=0.05)
    assert (tally.indexed, [failure.code for failure in tally.failures]) == (9, ["UNAVAILABLE"])


async def test_an_error_that_affects_every_picture_ends_the_run(fake, files) -> None:
    fake.fail("UpsertMany", "FAILED_PRECONDITION", "made by other models", reason="PROFILE_MISMATCH", times=9)
    with pytest.raises(Refused, match="made by other models"):
        await upload(fake, files)
    assert not fake.pictures


async def test_an_interrupted_run_resumes(fake, files) -> None:
    await upload(fake, files[:6])
    tally, _, _ = await upload(fake, files, skip_indexed=True)
    assert (tally.skipped, tally.indexed, tally.replaced) == (6, 4, 0)
