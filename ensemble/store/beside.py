"""Reading the vectors of a store while another process serves it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from landseer.ensemble.errors import StoreUnusable
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.store.augmented import Augmented
from landseer.ensemble.store.folder import DATABASES, open_environment
from landseer.ensemble.store.sums import Sums
from landseer.ensemble.store.vectors import Vectors


@contextmanager
def vectors_beside(folder: Path, *, limit_bytes: int) -> Iterator[Vectors]:
    """Give read access to the vectors of a store that another process has opened; LMDB keeps the two apart.

    limit_bytes: that process's limit of the store. StoreUnusable; errors of the reading.
    """
    environment = open_environment(folder, limit_bytes=limit_bytes // 4096 * 4096, readonly=True, create=False)
    try:
        databases = {name: environment.open_db(name, create=False) for name in DATABASES}

        def refuse() -> AbstractContextManager[Any]:
            raise StoreUnusable(f"{folder} is only read here")

        sums, augmented = Sums(folder, databases), Augmented(environment, databases, refuse)
        yield Vectors(environment, databases, augmented, sums, clusters=(Sizes.clusters, Sizes.reduced))
    finally:
        environment.close()
