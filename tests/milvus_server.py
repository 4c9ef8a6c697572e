"""A real Milvus for a module's tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from landseer.ops.errors import OpsError
from landseer.ops.run.milvus import HOME, MilvusServer, installed

ROOT = Path(__file__).parents[1]


@contextmanager
def running(data: Path, settings: Mapping[str, str] | None = None, **more: Any) -> Iterator[MilvusServer]:
    """Run one on an empty folder, which is removed. Skips where it can have no network of its own."""
    server = MilvusServer(installed(ROOT / HOME), data, settings, **more)
    try:
        server.start()
    except OpsError as error:
        server.stop()
        if "no network" in str(error):
            pytest.skip(str(error))
        raise
    yield server
    server.stop()
    shutil.rmtree(data)
