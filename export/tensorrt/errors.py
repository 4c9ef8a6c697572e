"""The error for engines that cannot be built."""

from __future__ import annotations


class BuildError(RuntimeError):
    """TensorRT cannot build or run an engine. The message is one readable line."""
