"""Why there is no engine."""

from __future__ import annotations


class BuildError(RuntimeError):
    """TensorRT did not build an engine, or cannot run it. One readable line."""
