"""The generated pictures of the backup benchmark take what real ones take, and its table says what writes cost."""

from __future__ import annotations

import numpy as np

from landseer.ensemble.store.store import Store
from landseer.ops.bench.backup import MIB, PICTURE_BYTES, PROFILE, Beside, Ran, _beside_row, record


def test_a_generated_picture_takes_what_the_default_takes(tmp_path):
    store = Store.open(tmp_path / "s", fingerprint=PROFILE.fingerprint, codebook="k", patches_sha256="p")
    draws = np.random.default_rng(0)
    store.put_many([record(number, draws) for number in range(64)])
    stats = store.stats()
    store.close()
    assert stats.keypoints == 64
    assert 0.97 < stats.used_bytes / 64 / PICTURE_BYTES < 1.03
    assert 60.1 * 1024 < stats.used_bytes / 64 < 1.03 * 60.1 * 1024, "docs/indexing.md says 60.1 KiB a picture"


def test_writes_beside_a_command_are_compared_with_writes_alone():
    one = Beside(
        what="backup", ran=Ran(seconds=2.0, processor=1.0, memory=0), writes=[0.003, 0.004, 0.005], grown=3 * MIB
    )
    assert _beside_row(one, [0.002, 0.002, 0.004]) == ("backup", "2.0", "3", "4.0", "2.00", "5.0", "3.0")
