"""The locustfile against the real stack: every kind of call is made, and what it counts is what the server counted."""

from __future__ import annotations

import importlib.util

import pytest
from stack.photos import WHEEL, wheel

from landseer.ops.load import locust_run
from landseer.ops.load.locust_run import LoadConfig
from landseer.ops.run.orchestrator import PATIENT

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(importlib.util.find_spec("locust") is None, reason="locust is not installed"),
]


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in WHEEL:
        (folder / name).symlink_to(wheel(name))
    return folder


def test_locust_and_the_server_count_the_same(another, photos, tmp_path):
    # An index of its own: other tests expect their pictures to be the only ones that look so.
    _, landseer = another(tmp_path / "store", *PATIENT)
    config = LoadConfig(
        host=landseer.address, photos=photos, shape="ramp", peak=4, length_s=8, out=tmp_path / "out" / "ramp"
    )
    child = locust_run.start(config)
    try:
        status = child.wait(120)
    finally:
        child.stop()
    assert status == 0, list(child.lines)[-10:]
    figures = locust_run.read(config)
    assert not figures.failures
    # At the end locust does not wait for the call that each user has under way.
    assert 0 <= landseer.searches() - figures.searches <= config.peak
    assert figures.searches > 10
    assert {tick.users for tick in figures.ticks} == {1, 2, 3, 4}
    assert "search id" in figures.tasks and "search picture" in figures.tasks
    # An id needs no picture to be described; with gevent's own number of threads it would wait for those that do.
    assert figures.tasks["search id"].p50_ms < figures.tasks["search picture"].p50_ms / 2
    assert (tmp_path / "out" / "ramp.html").stat().st_size > 10_000


def test_without_photographs_one_line_says_so(landseer, tmp_path):
    (tmp_path / "none").mkdir()
    config = LoadConfig(
        host=landseer.address, photos=tmp_path / "none", shape="steady", peak=1, length_s=1, out=tmp_path / "steady"
    )
    child = locust_run.start(config)
    assert child.wait(60) != 0
    assert any("no photographs" in line and "--photos FOLDER" in line for line in child.lines)
