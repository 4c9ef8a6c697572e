"""`landseer bulk` on a real Ray cluster, killed again and again, beside what the server writes."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from stack.photos import encoded, pixels_of, strips, wheel

from landseer.ensemble.errors import StoreUnusable
from landseer.ensemble.store.reading import reading, snapshot
from landseer.ensemble.store.whole import WholeStore

pytestmark = pytest.mark.stack

PICTURES = 40
PATIENCE_S = 600.0
"""A machine that is busy takes minutes to load the models."""


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Pictures of several formats and shapes, among them a turned one; one that is none."""
    folder = tmp_path / "album"
    folder.mkdir()
    for number, image in enumerate(strips(PICTURES - 2)):
        (folder / f"{number:02d}.png").write_bytes(image)
    photograph = pixels_of(wheel("coffee.png"))
    (folder / "coffee.jpg").write_bytes(encoded(photograph, "JPEG", quality=90))
    (folder / "small.webp").write_bytes(encoded(photograph[::4, ::4], "WEBP"))
    (folder / "05-broken.jpg").write_bytes(b"\xff\xd8\xff not much of a picture")
    return folder


def landseer(*words: object, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "landseer.client.cli", *map(str, words)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, text=True, start_new_session=True, **streams)


def ended(process: subprocess.Popen[str], *, status: int) -> str:
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == status, out + err
    assert "Traceback" not in err
    return out


def count(store: Path) -> int:
    """Pictures in a store, 0 where there is none yet."""
    try:
        with reading(store) as environment, snapshot(store, environment) as transaction:
            return WholeStore(store, environment, transaction).pictures
    except StoreUnusable:
        return 0


def records(store: Path) -> dict[str, dict[str, object]]:
    """What a store keeps of each picture, by id, but for the time of writing."""
    with reading(store) as environment, snapshot(store, environment) as transaction:
        found = list(WholeStore(store, environment, transaction).records())
    assert len({one.record.id for one in found}) == len(found)
    return {one.record.id: dataclasses.asdict(one.record) | one.features | {"indexed_at": 0} for one in found}


def workers(driver: subprocess.Popen[str]) -> Iterator[psutil.Process]:
    """The processes that describe."""
    for process in psutil.Process(driver.pid).children(recursive=True):
        try:
            if "MapWorker" in " ".join(process.cmdline()):
                yield process
        except psutil.NoSuchProcess:
            continue


def wait_for(store: Path, pictures: int, driver: subprocess.Popen[str]) -> None:
    until = time.monotonic() + PATIENCE_S
    while count(store) < pictures:
        assert driver.poll() is None and time.monotonic() < until, f"{count(store)} pictures are there"
        time.sleep(0.1)


def test_killed_workers_and_runs_change_nothing(album, repository, another, tmp_path):
    store, words = tmp_path / "store", ["bulk", "album", "store", "--repository", repository, "--metadata", "shelf=7"]
    first = landseer(*words, "--workers", "2", folder=tmp_path)
    wait_for(store, 5, first)
    describing = list(workers(first))
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    there = count(store)
    assert 5 <= there < PICTURES
    assert psutil.wait_procs(describing, timeout=PATIENCE_S)[1] == [], "workers outlived their run"

    second = landseer(*words, "--workers", "2", folder=tmp_path)
    wait_for(store, there + 1, second)
    # It has pictures to describe, or is about to get some; stopped, it cannot finish them before it is killed.
    victim = next(workers(second))
    victim.suspend()
    assert count(store) < PICTURES
    victim.kill()
    said = ended(second, status=1)
    assert f"indexed {PICTURES - there} of {PICTURES + 1} pictures" in said
    assert f"{there} already indexed, 1 failed" in said
    assert "not indexed: album/05-broken.jpg: image: got bytes that are not a picture" in said

    (album / "05-broken.jpg").unlink()
    again = ended(landseer(*words, folder=tmp_path), status=0)
    assert f"indexed 0 of {PICTURES} pictures" in again and f"{PICTURES} already indexed" in again

    server, _ = another(tmp_path / "served")
    index = ["index", "album", "--server", server.config.listen, "--metadata", "shelf=7"]
    assert f"indexed {PICTURES} of" in ended(landseer(*index, folder=tmp_path), status=0)
    ours, theirs = records(store), records(tmp_path / "served")
    assert list(ours) == sorted(theirs), "in the order in which they were found"
    for id, record in theirs.items():
        for name, value in record.items():
            assert np.array_equal(ours[id][name], value), f"{name} of {id}"
