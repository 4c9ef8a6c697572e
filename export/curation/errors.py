"""Errors of the curation tools."""

from __future__ import annotations


class CurationError(RuntimeError):
    """A problem the user can fix; the message is one line and says how."""


class UnreadablePicture(CurationError):
    """A file that is not a picture or is broken; it is skipped."""
