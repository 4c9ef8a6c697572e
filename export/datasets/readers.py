"""Read data sets by spec. To add a format, add a file here and a line to `READERS` and to `specs.SPECS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from landseer.export.datasets.errors import DatasetError
from landseer.export.datasets.folders import read_folders
from landseer.export.datasets.grocery import read_grocery
from landseer.export.datasets.landmark_boxes import read_boxes
from landseer.export.datasets.landmarks import read_landmarks
from landseer.export.datasets.listing import read_list
from landseer.export.datasets.photograph import Photographs
from landseer.export.datasets.revisited import read_revisited
from landseer.export.datasets.sfm import read_sfm
from landseer.export.datasets.specs import SPECS


def read(spec: str) -> Photographs:
    """Read the data set of a spec KIND:REST. DatasetError says what is wrong and how to fix it.

    Lists made by hand (csv, grocery) must be complete; for lists collected from the web (sfm, gld, boxes) missing files
    are listed in `skipped`. Nothing is decoded: see `readable`.
    """
    kind, separator, rest = spec.partition(":")
    if not separator or kind not in READERS or not rest:
        raise DatasetError(f"cannot read {spec!r} as a data set; expected one of\n{SPECS}")
    return READERS[kind](rest)


READERS: Mapping[str, Callable[[str], Photographs]] = {
    "folder": read_folders,
    "csv": read_list,
    "grocery": read_grocery,
    "sfm": read_sfm,
    "gld": read_landmarks,
    "boxes": read_boxes,
    "revisitop": read_revisited,
}
