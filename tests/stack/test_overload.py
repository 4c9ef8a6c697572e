"""More callers than a real Triton can answer: what it can do is done in time, the rest is refused at once."""

from __future__ import annotations

import asyncio

import pytest
from stack.photos import WHEEL, wheel

from landseer.ops.load.callers import Callers
from landseer.v1 import search_pb2

pytestmark = pytest.mark.stack

CALLERS = 24
DEADLINE_S = 3.0


async def searched(address, requests, *, callers, seconds, deadline_s):
    made = Callers(address, requests, deadline_s=deadline_s)
    try:
        return await made.waiting(callers, seconds)
    finally:
        await made.close()


def test_goodput_does_not_collapse(another, tmp_path):
    """24 callers with a deadline of 3 s: 1 of 96 was answered, as all waited in line until they had gone."""
    _, landseer = another(tmp_path / "store")
    photos = [wheel(name) for name in WHEEL]
    landseer.put({path.name: path for path in photos})
    requests = [search_pb2.SearchRequest(image=path.read_bytes()).SerializeToString() for path in photos]
    asyncio.run(searched(landseer.address, requests, callers=2, seconds=4, deadline_s=60.0))
    best = asyncio.run(searched(landseer.address, requests, callers=2, seconds=8, deadline_s=60.0))
    # On a slow machine a deadline that about as many searches can meet.
    deadline_s = max(DEADLINE_S, 6 / best.goodput)
    found = asyncio.run(searched(landseer.address, requests, callers=CALLERS, seconds=15, deadline_s=deadline_s))
    # The report asks for 0.9; both are measured over seconds here, beside other programs.
    assert found.goodput >= 0.7 * best.goodput
    assert found.shed and all(call.retry_s is not None for call in found.shed)
    assert found.count("OK") > 5 * found.count("DEADLINE_EXCEEDED")
    assert landseer.metric("landseer_bytes_in_flight") == 0
