"""The outbox: whatever part of it was sent and confirmed, the index ends with what the store has."""

from __future__ import annotations

import numpy as np
import pytest
from store_records import open_store, record


@pytest.mark.parametrize("seed", range(3))
def test_an_index_that_follows_in_parts_ends_with_what_the_store_has(tmp_path, seed):
    draws, index, seen = np.random.default_rng(seed), {}, 0
    store = open_store(tmp_path / "store")
    for step in range(60):
        if step == 10:
            # Until then nobody listens, and nothing is noted.
            store.outbox.begin("token")
        ids = [f"r{number}" for number in draws.integers(0, 30, 4)]
        store.put_many([record(id, seed=step) for id in ids])
        if step % 3:
            store.delete(ids[0])
        if step < 10 or step % 4 == 0:
            continue
        part = store.outbox.unseen(seen, augmented=False, most=int(draws.integers(1, 9)))
        index |= dict(zip(part.keys.tolist(), part.vectors, strict=True))
        for key in part.removed.tolist():
            index.pop(key, None)
        seen = part.upto
        if step % 5 == 0:
            store.outbox.confirm("token", seen)
            store.outbox.confirm("another", seen + 1000)
            assert store.outbox.pair().sequence == seen
        if step % 7 == 0:
            # It was killed: what was not confirmed is sent again.
            seen = store.outbox.pair().sequence
    while (part := store.outbox.unseen(seen, augmented=False, most=5)).upto != seen:
        index |= dict(zip(part.keys.tolist(), part.vectors, strict=True))
        for key in part.removed.tolist():
            index.pop(key, None)
        seen = part.upto
    keys, rows = next(store.vectors.scan())
    assert sorted(index) == keys.tolist() and seen == part.sequence == store.outbox.sequence()
    assert part.pictures == len(keys)
    np.testing.assert_array_equal([index[key] for key in keys.tolist()], rows)
    store.outbox.confirm("token", seen)
    assert not len(store.outbox.unseen(0, augmented=False, most=5).removed)
    store.close()
