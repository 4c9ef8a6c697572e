"""Files that are written completely or not at all."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from landseer.export.datasets.photograph import Photograph
from landseer.ops.errors import OpsError


def check_writable(path: Path | None, option: str) -> None:
    """Raise OpsError now if a file cannot be written, rather than after hours of work."""
    if path is None:
        return
    folder = path.absolute().parent
    if not folder.is_dir():
        raise OpsError(f"cannot write {option} {path}: there is no folder {folder}; make it first")
    if path.is_dir() or not os.access(folder, os.W_OK):
        what = f"{path} is a folder" if path.is_dir() else f"the folder {folder} may not be written"
        raise OpsError(f"cannot write {option} {path}: {what}; name another file")


def write_text(path: Path, text: str) -> None:
    """Write a temporary file in the same folder, then rename it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def write_rows(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def named_from(file: Path, photograph: Photograph) -> str:
    """Return the path of a picture for a list in `file`: relative if it is below the file's folder, else absolute."""
    path, folder = photograph.path.absolute(), file.absolute().parent
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.as_posix()
