"""`landseer train lattqe`: from photographs to a query expansion (`instances.py`, `export/training/lattqe.py`).

The paper's network is trained by `make expansion-sweep ARGS="--paper-epochs N"`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from landseer.ensemble.search.expansion.methods import LATTQE
from landseer.export.build import Wanted
from landseer.export.datasets.readers import read
from landseer.export.lattqe_file import NAME, write_lattqe
from landseer.export.training.episodes import Kind
from landseer.export.training.errors import TrainingError
from landseer.export.training.expansion import ExpansionTask
from landseer.export.training.files import write_whole
from landseer.export.training.lattqe import (
    LATTDBA_NEIGHBOURS,
    PARTS,
    CrossValidated,
    classes,
    learn,
)
from landseer.ops.evaluate.head_describer import Describer
from landseer.ops.train.instances import NEW, in_two_worlds, instances
from landseer.ops.train.progress_bars import Bars
from landseer.ops.train.training import TrainingOptions

VECTORS = Path("var/train/vectors")
EPOCHS = 6
EXPORTED = ("backbone", "weights", "stride", "descriptor", "parts", "whitening")
"""The options that a descriptor depends on, of this command and of `export/all.py` alike."""


def run(options: TrainingOptions, console: Console) -> None:
    """Describe the photographs, train, write the network and its card. TrainingError, DatasetError, WeightsError."""
    _check_free(options)
    classes([one.label for one in read(options.data).photographs], part=0, seed=options.seed)
    describe = Describer.of(_wanted(options))
    if options.dry_run:
        told = f"would describe {options.data} by {describe.how}, and write {NAME} into {options.out}"
        console.print(told, soft_wrap=True)
        return
    pooled = instances(options.data, describe, VECTORS, seed=options.seed, console=console)
    counts = ", ".join(
        f"{len(kind.vectors):,} of {len(set(kind.labels.tolist())):,} things ({name})" for name, kind in pooled.items()
    )
    console.print(f"pictures: {counts}; {describe.how}", soft_wrap=True)
    learned = _trained(in_two_worlds(pooled, describe, seed=options.seed), options, console)
    temperature = learned.temperature()
    card = _card(learned, temperature, f"{describe.how}; pictures: {counts}", options)
    write_lattqe(learned.network, options.out / NAME, card, descriptor=describe.sha256)
    text = "# LAttQE\n\nWritten by `landseer train lattqe`.\n\n```json\n" + json.dumps(card, indent=2) + "\n```\n"
    write_whole(options.out / "README.md", lambda path: path.write_text(text, encoding="utf-8"))
    reached = f"validation mAP {learned.reached:.2f}, no expansion {learned.start:.2f}"
    console.print(f"{reached}; see {options.out}", soft_wrap=True)
    recipe = f"{LATTQE}:{LATTDBA_NEIGHBOURS}:{temperature:g}"
    console.print(f"best database-side augmentation by it: landseer augment STORE --method {recipe}", soft_wrap=True)
    console.print(f"export with: {_export(options)}", soft_wrap=True)


def _wanted(options: TrainingOptions) -> Wanted:
    """Return the export that the network is for, as far as descriptors depend on it."""
    return Wanted(**{name: getattr(options, name) for name in EXPORTED})


def _export(options: TrainingOptions) -> str:
    """Return the command that exports the network, with the descriptor that it learned on."""
    given = {name: getattr(options, name) for name in EXPORTED} | {"lattqe": options.out / NAME}
    words = [word for name, value in given.items() if value not in (None, "auto") for word in (f"--{name}", str(value))]
    return shlex.join(["python", "export/all.py", *words])


def _check_free(options: TrainingOptions) -> None:
    """TrainingError if the folder holds a training that the command does not resume."""
    ours = [_folder(options, part) for part in range(PARTS)]
    older = [options.out / "lattqe" / "part-1", options.out / "lattqe", options.out]  # the layouts of earlier versions
    if any((folder / "state.pt").exists() for folder in older):
        raise TrainingError(
            f"{options.out} holds a training of an earlier version, which cannot be resumed; name another folder"
        )
    if any((folder / "state.pt").exists() for folder in ours) and not options.resume:
        raise TrainingError(f"{options.out} holds a training; resume it with --resume, or name another folder")


def _folder(options: TrainingOptions, part: int) -> Path:
    return options.out / f"part-{part + 1}"


def _trained(worlds: Sequence[Sequence[Kind]], options: TrainingOptions, console: Console) -> CrossValidated:
    parts, epochs = [], options.epochs or EPOCHS
    for part in range(PARTS):
        console.print(f"training, validated by part {part + 1} of {PARTS} of the things")
        with Bars(console, ExpansionTask.measure) as watcher:
            folder = _folder(options, part)
            parts.append(learn(worlds, folder, new=NEW, part=part, epochs=epochs, seed=options.seed, watcher=watcher))
    return CrossValidated(parts)


def _card(learned: CrossValidated, temperature: float, descriptors: str, options: TrainingOptions) -> dict[str, object]:
    return {
        "command": options.command,
        "data": options.data,
        "descriptors": descriptors,
        "seed": options.seed,
        "epochs": options.epochs or EPOCHS,
        "validation before": round(learned.start, 2),
        "validation": round(learned.reached, 2),
        "of which by part": [round(part.outcome.best, 2) for part in learned.parts],
        "network": f"the mean of {PARTS}",
        "best after epochs": [part.outcome.epoch for part in learned.parts],
        "scale and shift of the logits of relevance": [round(one, 3) for one in learned.network.calibration.tolist()],
        "temperature of LAttDBA": temperature,
    }
