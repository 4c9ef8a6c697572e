"""The error for unreadable data sets."""

from __future__ import annotations


class DatasetError(RuntimeError):
    """An unreadable data set; the message names file and line, what was found and expected, and how to fix it."""
