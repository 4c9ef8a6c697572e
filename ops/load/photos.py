"""The photographs that a load test sends: those of the demo and transformed views of them, as JPEG files."""

from __future__ import annotations

from pathlib import Path

from landseer.ops.demo_photos import INDEXED, indexed, save, views

DONE = "complete"
"""File that marks a completely filled folder."""


def make_photos(folder: Path) -> Path:
    """Fill a folder with about a hundred photographs, unless it is already complete, and return it."""
    if not (folder / DONE).exists():
        for name, pixels in indexed():
            if name in INDEXED:
                save(pixels, folder / f"{Path(name).stem}.jpg")
        for view in views():
            save(view.pixels, folder / view.file_name)
        (folder / DONE).touch()
    return folder
