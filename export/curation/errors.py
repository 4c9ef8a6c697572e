"""What goes wrong with the data, or with what the tools keep of it."""

from __future__ import annotations


class CurationError(RuntimeError):
    """Something the person who curates can mend; the message is one line and says how."""


class UnreadablePicture(CurationError):
    """A file that is no picture, or a broken one; the rest of the data goes on without it."""
