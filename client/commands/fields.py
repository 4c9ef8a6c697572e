"""The option --fields: which metadata are shown."""

from __future__ import annotations

import argparse

FIELDS_HELP = (
    "metadata to show, by commas: place,year shows these, -path all but that one, exif* all that begin so (default all)"
)


def names(text: str) -> list[str]:
    """Read names with commas between them."""
    found = [name.strip() for name in text.split(",")]
    if not all(name.strip("-") for name in found):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected names such as place,year or -path")
    return found
