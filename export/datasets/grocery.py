"""Read the Grocery Store dataset: 81 classes of fruit, vegetables and packages, photographed in shops.

Klasson, Zhang and Kjellström 2019, "A Hierarchical Grocery Store Image Dataset with Visual and Semantic Labels".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from landseer.export.datasets.errors import DatasetError
from landseer.export.datasets.gathering import Named, all_there
from landseer.export.datasets.lines import bad_line, text_lines
from landseer.export.datasets.photograph import Photographs

SPLITS = ("train", "val", "test")


def read_grocery(rest: str) -> Photographs:
    """Read ROOT[,PART...] with all splits pooled; parts are the folders below a split, such as Fruit,Vegetables.

    The splits are for classifiers and share their classes; for retrieval, whole parts are held out instead. A class is
    the folder of its photographs: the finest level, below the coarse number in the lists.
    """
    root, *parts = rest.split(",")
    named = [one for split in SPLITS for one in _named(Path(root), split)]
    known = {_part(one, Path(root)): None for one in named}
    strange = [part for part in parts if part not in known]
    if strange:
        raise DatasetError(f"{root} has no part {', '.join(strange)}; it has {', '.join(known)}")
    wanted = [one for one in named if not parts or _part(one, Path(root)) in parts]
    return all_there(f"grocery:{rest}", wanted, hint="paths in the lists are relative to ROOT")


def _named(root: Path, split: str) -> Iterator[Named]:
    file = root / f"{split}.txt"
    for number, line in text_lines(file):
        path, *numbers = (field.strip() for field in line.split(","))
        if len(numbers) != 2 or not all(map(str.isdigit, numbers)) or len(Path(path).parts) < 4:
            raise bad_line(file, number, line, "SPLIT/PART/.../CLASS/NAME.jpg, class number, coarse number")
        yield Named(path=root / path, name=path, label=Path(path).parent.name, where=f"{file}, line {number}")


def _part(one: Named, root: Path) -> str:
    return one.path.relative_to(root).parts[1]
