"""The benchmark of searches during a merge, on a store of a few pictures."""

from __future__ import annotations

import dataclasses

from fake_triton import PROFILE
from records import plain_record, unit_halves

from landseer.ensemble.config import NONE, ServerConfig
from landseer.ensemble.index.collection import Collection
from landseer.ensemble.telemetry.metrics import Metrics
from landseer.ops.bench.index_merging import measure

SMALL = dataclasses.replace(PROFILE, sizes=dataclasses.replace(PROFILE.sizes, channels=16))


async def test_it_searches_through_a_merge_and_starts_with_the_version(tmp_path):
    config = ServerConfig(
        store=tmp_path / "store",
        store_limit_bytes=2**26,
        local_features=NONE,
        threads=1,
        versions_from=40,
        merge_share=1e-9,
        index="Flat",
    )
    collection = await Collection.open(config, SMALL, Metrics())
    vectors = unit_halves(60, 16, seed=1)
    reduced = SMALL.sizes.reduced
    collection.store.put_many([plain_record(f"p{row}", reduced=reduced, descriptor=vectors[row]) for row in range(60)])
    collection.close()
    lines = await measure(config, SMALL, seconds=0.2)
    assert lines[0].startswith("Start without a version: ") and "60 pictures" in lines[0]
    assert [line.split(" |")[0] for line in lines[4:7]] == [
        "| quiet",
        "| while a version is built",
        "| after it took over",
    ]
    assert "0 searches failed" in lines[8] and float(lines[8].split(": ")[1].split()[0]) > 0
    assert lines[9].startswith("Start with version ") and "(Flat)" in lines[9]
