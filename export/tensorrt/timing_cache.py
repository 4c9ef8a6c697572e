"""TensorRT's file of kernel timings, which spares the next build from measuring again."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from landseer.export.tensorrt.errors import BuildError

if TYPE_CHECKING:
    import tensorrt as trt


def use(config: trt.IBuilderConfig, path: Path | None) -> None:
    """Load the file's cache into the builder, or an empty one. BuildError if it is from another machine."""
    if path is None:
        return
    try:
        known = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise BuildError(f"cannot read the timing cache {path}: {error.strerror or error}") from error
    cache = config.create_timing_cache(known)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise BuildError(f"{path} is not a timing cache of this GPU and TensorRT: delete it, or name another file")


def keep(config: trt.IBuilderConfig, path: Path | None) -> None:
    """Write the builder's cache to the file atomically. BuildError if it cannot be written."""
    if path is not None:
        replace_file(path, bytes(cast(Any, config.get_timing_cache().serialize())))


def replace_file(path: Path, content: bytes) -> None:
    """Write a file atomically. BuildError if it cannot be written."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.write_bytes(content)
        staged.replace(path)
    except OSError as error:
        raise BuildError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            staged.unlink(missing_ok=True)
