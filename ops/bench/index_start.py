"""`python -m landseer.ops.bench.index_start FOLDER`: map a main index, search it once, and print what that took."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import faiss  # noqa: F401 -- loaded before the clock starts, as in a server
import numpy as np

from landseer.ensemble.index.faiss_index import FaissIndex
from landseer.ops.bench.page_cache import memory_bytes


def main(folder: Path) -> None:
    """Print JSON: `seconds` to the first answer, `own_bytes` of RssAnon that the index added."""
    before, began = memory_bytes(os.getpid(), "RssAnon"), time.perf_counter()
    index = FaissIndex.load(folder, threads=1)
    index.search(np.ones((1, index.dimension), np.float32), 10)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "own_bytes": memory_bytes(os.getpid(), "RssAnon") - before}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
