"""What is wrong with a data set."""

from __future__ import annotations


class DatasetError(RuntimeError):
    """A data set that cannot be read; the message names the file and line, what was got, expected, how to mend it."""
