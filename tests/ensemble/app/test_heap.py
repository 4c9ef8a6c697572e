from __future__ import annotations

import asyncio

from landseer.ensemble.app import heap


async def test_heaps_are_trimmed_after_many_bytes_and_only_then(monkeypatch):
    trims, released = [], 0
    monkeypatch.setattr(heap, "TRIM_S", 0.001)
    monkeypatch.setattr(heap, "_trim", lambda: trims.append(released))
    task = asyncio.create_task(heap.keep_trimmed(lambda: released))
    await asyncio.sleep(0.05)
    assert trims == []
    released = heap.TRIM_BYTES
    while not trims:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    task.cancel()
    assert trims == [heap.TRIM_BYTES]


def test_the_c_library_can_be_told():
    heap.give_back_large_blocks()
    heap._trim()
