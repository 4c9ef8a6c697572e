from __future__ import annotations

import json
import subprocess
import sys

import pytest

THREADS = """
import json, sys
import faiss, numpy
from threadpoolctl import threadpool_info
from landseer.ensemble.app.blas import multiply_alone
def threads():
    pools = [one for one in threadpool_info() if one["internal_api"] == "openblas"]
    return {one["threading_layer"]: one["num_threads"] for one in pools}
before = threads()
multiply_alone()
print(json.dumps([before, threads()]))
"""


def test_numpy_multiplies_on_one_thread_and_faiss_as_before():
    # A process of its own, as the setting lasts as long as the process.
    ended = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=True, timeout=60)
    before, after = json.loads(ended.stdout)
    if "pthreads" not in before:
        pytest.skip("this numpy multiplies by another library than OpenBLAS with threads of its own")
    assert after.pop("pthreads") == 1
    assert after == {layer: count for layer, count in before.items() if layer != "pthreads"}
