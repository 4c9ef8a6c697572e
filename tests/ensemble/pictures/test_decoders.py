"""Decoding in processes of their own: the same pixels, and no harm by any picture."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import picture_faults
import pytest
from flat_jpeg import flat_jpeg
from grpc.aio import AioRpcError
from PIL import Image

from landseer.ensemble.config import Limits
from landseer.ensemble.errors import InvalidInput, LandseerError
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.pictures import decoders as module
from landseer.ensemble.pictures.decoders import Decoders, decode_here, memory_of
from landseer.ensemble.pictures.pictures import Prepared, Region, prepare, prepare_regions
from landseer.v1 import index_pb2, search_pb2

PROFILE = Profile(backbone="test", weights_sha256="0", sizes=Sizes(channels=8), long_side=256)
HOW: dict[str, Any] = {"profile": PROFILE, "limits": Limits()}
TESTS = Path(__file__).parents[2]


def photograph(width: int = 320, height: int = 240, format: str = "PNG") -> bytes:
    values = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, format)
    return file.getvalue()


def same(one: Prepared, other: Prepared) -> None:
    np.testing.assert_array_equal(one.pixels, other.pixels)
    left, right = ((each.width, each.height, each.region, each.thumbnail) for each in (one, other))
    assert left == right


@pytest.fixture(scope="module", autouse=True)
def importable() -> Iterator[None]:
    """Decoders find the faults, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PATIENCE", 60)  # What is measured here is not how busy the machine is.
        patch.setenv("PYTHONPATH", os.pathsep.join((str(TESTS), os.environ.get("PYTHONPATH", ""))))
        yield


@pytest.fixture(scope="module")
def decoders(importable: None) -> Iterator[Decoders]:
    made = Decoders(memory=300 << 20, seconds=1)
    made.start()
    yield made
    made.close()


def refused(decoders: Decoders, work: Any, data: bytes = b"x") -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        decoders.run(work, data, **HOW)
    assert caught.value.field == "image"
    same(decoders.run(prepare, photograph(), **HOW), prepare(photograph(), **HOW))
    return caught.value


def test_pictures_are_those_decoded_here(decoders: Decoders) -> None:
    for data in (photograph(), photograph(900, 700, "JPEG"), photograph(40, 90, "WEBP"), photograph(3000, 1000, "BMP")):
        for options in ({}, {"thumbnail": True}, {"region": Region(x=3, y=4, width=30, height=20)}):
            same(decoders.run(prepare, data, **HOW, **options), decode_here(prepare, data, **HOW, **options))
    regions = [Region(x=0, y=0, width=40, height=50), Region(x=9, y=9, width=99, height=9)]
    found = decoders.run(prepare_regions, photograph(), regions, **HOW)
    for one, other in zip(found, prepare_regions(photograph(), regions, **HOW), strict=True):
        same(one, other)
    assert decoders.run(prepare_regions, photograph(), [], **HOW) == []


def test_bad_pictures_get_the_same_errors(decoders: Decoders) -> None:
    for data, options in ((b"", {}), (b"junk", {}), (photograph(), {"region": Region(x=9999, y=0, width=9, height=9)})):
        with pytest.raises(InvalidInput) as here:
            prepare(data, **HOW, **options)
        with pytest.raises(InvalidInput) as there:
            decoders.run(prepare, data, **HOW, **options)
        assert [vars(here.value), str(here.value)] == [vars(there.value), str(there.value)]


@pytest.mark.parametrize(
    ("work", "kind", "message"),
    [
        (picture_faults.crash, "crash", "crashed (SIGSEGV); save it anew, as JPEG for example, and send that"),
        (picture_faults.leave, "crash", "crashed (status 0)"),
        (picture_faults.loop, "time", "took more than 1 s of processor time"),
        (picture_faults.bloat, "memory", "takes more than 300 MiB of memory"),
        (picture_faults.lie, "crash", "crashed"),
        (picture_faults.killed, "crash", "was killed twice"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_picture_that_its_decoder_does_not_survive_fails_alone(
    decoders: Decoders, work: Any, kind: str, message: str
) -> None:
    error = refused(decoders, work, photograph())
    assert error.kind == kind and message in str(error)


def test_a_decoder_that_waits_for_ever_is_killed(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    assert "did not end within 0.2 s" in str(refused(decoders, picture_faults.hang))


def test_a_decoder_that_was_killed_from_outside_blames_no_picture(decoders: Decoders, tmp_path: Path) -> None:
    with pytest.raises(LandseerError, match="decoding failed unexpectedly"):  # The second one lives.
        decoders.run(picture_faults.killed_once, str(tmp_path / "flag").encode(), **HOW)


def test_a_mistake_of_ours_blames_no_picture(decoders: Decoders, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(LandseerError, match="the server's log has the details"):
        decoders.run(picture_faults.fail, b"x", **HOW)
    assert "a mistake of ours" in caplog.text


def test_another_nursery_takes_the_place_of_one_that_was_killed(decoders: Decoders) -> None:
    decoders.run(prepare, photograph(), **HOW)
    decoders._nursery._process.kill()
    decoders._nursery._process.wait()
    assert refused(decoders, picture_faults.crash).kind == "crash"


def test_where_no_decoder_can_be_started_no_picture_is_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "executable", "/bin/false")
    made = Decoders(memory=300 << 20, seconds=1)
    with pytest.raises(LandseerError, match="no decoder could be started"):
        made.run(prepare, photograph(), **HOW)
    made.close()


def test_a_decoder_is_used_again_until_it_has_seen_many_pictures(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (decoders.run(picture_faults.process, photograph(), **HOW).width for _ in range(2))
    assert first == second != os.getpid()
    monkeypatch.setattr(module, "PICTURES", 1)
    decoders.run(prepare, photograph(), **HOW)
    assert decoders.run(picture_faults.process, photograph(), **HOW).width != first


def test_threads_decode_at_the_same_time(decoders: Decoders) -> None:
    with ThreadPoolExecutor(4) as pool:
        jobs = [(picture_faults.crash if number % 5 == 0 else prepare) for number in range(20)]
        futures = [pool.submit(decoders.run, work, photograph(), **HOW) for work in jobs]
        for work, future in zip(jobs, futures, strict=True):
            if work is prepare:
                same(future.result(), prepare(photograph(), **HOW))
            else:
                assert isinstance(future.exception(), InvalidInput)


def test_two_hundred_megapixels_fit_into_little_memory(decoders: Decoders) -> None:
    assert decoders._memory < memory_of(Limits())
    patient = Decoders(memory=decoders._memory, seconds=30)
    try:
        assert patient.run(prepare, flat_jpeg(16_320, 12_240), **HOW).width == 16_320
    finally:
        patient.close()


def until_gone(pid: int) -> None:
    end = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < end, f"process {pid} is still there"
        time.sleep(0.02)


def test_nothing_is_left_behind(importable: None) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    made = Decoders(memory=300 << 20, seconds=1)
    pid = made.run(picture_faults.process, photograph(), **HOW).width
    made.close()
    made.close()
    assert set(Path("/proc/self/fd").iterdir()) == before
    until_gone(pid)


KILLED = """
import os, signal, sys
import picture_faults
from landseer.ensemble.pictures.decoders import Decoders
made = Decoders(memory=300 << 20, seconds=1)
pid = made.run(picture_faults.process, b"")
print(pid.width, made._nursery._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_decoders_end_with_a_server_that_is_killed() -> None:
    ran = subprocess.run([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True, check=False)
    assert ran.returncode == -signal.SIGKILL
    for pid in map(int, ran.stdout.split()):
        until_gone(pid)


async def test_a_server_outlives_what_its_decoders_do_not(start, rich, picture, monkeypatch) -> None:
    monkeypatch.setattr("landseer.ensemble.search.describe.prepare", picture_faults.by_name)
    landseer = await start(decode_processes=True, decode_s=1.0, local_features="none")

    async def pictures():
        for id, image in {"a": picture(1), "bad": b"crash", "worse": b"loop", "b": picture(2)}.items():
            yield index_pb2.UpsertManyRequest(picture=index_pb2.Picture(id=id, image=image))

    answer = await landseer.index.UpsertMany(pictures())
    assert answer.indexed == 2
    told = {one.id: (one.code, one.message) for one in answer.failures}
    assert told["bad"][0] == told["worse"][0] == 3
    assert told["bad"][1].startswith("picture.image: got a picture whose decoding crashed (SIGSEGV)")
    assert "processor time" in told["worse"][1]
    with pytest.raises(AioRpcError) as caught:
        await landseer.search.Search(search_pb2.SearchRequest(image=b"crash"))
    assert rich(caught.value).fields == ["image"]
    assert landseer.metric("landseer_decode_failures_total", reason="crash") == 2
    assert landseer.metric("landseer_decode_failures_total", reason="time") == 1
    found = await landseer.search.Search(search_pb2.SearchRequest(image=picture(2)))
    assert found.hits[0].id == "b"
