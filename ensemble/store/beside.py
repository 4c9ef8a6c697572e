"""Reading the vectors of a store while another process serves it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from landseer.ensemble.errors import StoreUnusable
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.store.augmented import Augmented
from landseer.ensemble.store.folder import DATABASES
from landseer.ensemble.store.reading import reading
from landseer.ensemble.store.sums import Sums
from landseer.ensemble.store.vectors import Vectors


@contextmanager
def vectors_beside(folder: Path) -> Iterator[Vectors]:
    """Give read access to the vectors of a store that another process serves. StoreUnusable; errors of the reading."""
    # That process has checked where the folder is.
    with reading(folder, network=True) as environment:
        databases = {name: environment.open_db(name, create=False) for name in DATABASES}

        def refuse() -> AbstractContextManager[Any]:
            raise StoreUnusable(f"{folder} is only read here")

        sums, augmented = Sums(folder, databases), Augmented(environment, databases, refuse)
        yield Vectors(environment, databases, augmented, sums, clusters=(Sizes.clusters, Sizes.reduced))
