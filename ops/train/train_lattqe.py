"""`landseer train lattqe`: from photographs to a query expansion.

It trains the relational variant, with and without cosines, and keeps the better form. Without cosines the result is a
curve over the ranks, the same for every query. The paper's network is trained by `make results-expansion ARGS=--paper`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from landseer.ensemble.search.expansion.methods import LATTQE
from landseer.export.datasets.readers import read
from landseer.export.lattqe_file import NAME, write_lattqe
from landseer.export.training.errors import TrainingError
from landseer.export.training.expansion import ExpansionTask
from landseer.export.training.files import write_whole
from landseer.export.training.lattqe import (
    LATTDBA_NEIGHBOURS,
    PARTS,
    CrossValidated,
    Form,
    best_of,
    candidates,
    classes,
    learn,
)
from landseer.ops.evaluate.labelled_vectors import LabelledVectors, describe_labelled
from landseer.ops.train.progress_bars import Bars
from landseer.ops.train.training import TrainingOptions

VECTORS = Path("var/train/vectors")
EPOCHS = 7


def run(options: TrainingOptions, console: Console) -> None:
    """Describe the photographs, train, write the network and its card. TrainingError, DatasetError, WeightsError."""
    _check_free(options)
    classes([one.label for one in read(options.data).photographs], part=0, seed=options.seed)
    if options.dry_run:
        console.print(f"would describe {options.data} by {options.backbone} and write {NAME} into {options.out}")
        return
    found = describe_labelled(
        options.data, options.backbone, weights=options.weights, parts=None, folder=VECTORS, console=console
    )
    console.print(f"{len(found.vectors):,} photographs of {found.labels.max() + 1} classes, {found.how}")
    forms = [_trained(form, found, options, console) for form in candidates()]
    best = best_of(forms)
    temperature = best.temperature()
    card = _card(forms, temperature, found.how, options)
    write_lattqe(best.network, options.out / NAME, card)
    text = "# LAttQE\n\nWritten by `landseer train lattqe`.\n\n```json\n" + json.dumps(card, indent=2) + "\n```\n"
    write_whole(options.out / "README.md", lambda path: path.write_text(text, encoding="utf-8"))
    reached = f"validation mAP {best.reached:.2f}, AQE {best.start:.2f}"
    console.print(f"best: {best.form.name}, {reached}; see {options.out}", soft_wrap=True)
    recipe = f"{LATTQE}:{LATTDBA_NEIGHBOURS}:{temperature:g}"
    console.print(f"best database-side augmentation by it: landseer augment STORE --method {recipe}", soft_wrap=True)


def _check_free(options: TrainingOptions) -> None:
    """TrainingError if the folder holds a training that the command does not resume."""
    ours = [_folder(options, form, part) for form in candidates() for part in range(PARTS)]
    before = {options.out, *(one.parent for one in ours)}  # the layouts of earlier versions
    if any((folder / "state.pt").exists() for folder in before):
        raise TrainingError(
            f"{options.out} holds a training of an earlier version, which cannot be resumed; name another folder"
        )
    if any((folder / "state.pt").exists() for folder in ours) and not options.resume:
        raise TrainingError(f"{options.out} holds a training; resume it with --resume, or name another folder")


def _folder(options: TrainingOptions, form: Form, part: int) -> Path:
    return options.out / form.name.lower().replace(" ", "-") / f"part-{part + 1}"


def _trained(form: Form, found: LabelledVectors, options: TrainingOptions, console: Console) -> CrossValidated:
    parts, epochs = [], options.epochs or EPOCHS
    for part in range(PARTS):
        console.print(f"training {form.name}, validated by part {part + 1} of {PARTS} of the classes")
        with Bars(console, ExpansionTask.measure) as watcher:
            one = learn(
                found.vectors,
                found.labels,
                _folder(options, form, part),
                form=form,
                part=part,
                epochs=epochs,
                seed=options.seed,
                watcher=watcher,
            )
        parts.append(one)
    return CrossValidated(parts)


def _card(
    forms: Sequence[CrossValidated], temperature: float, descriptors: str, options: TrainingOptions
) -> dict[str, object]:
    best = best_of(forms)
    return {
        "command": options.command,
        "data": options.data,
        "descriptors": descriptors,
        "seed": options.seed,
        "epochs": options.epochs or EPOCHS,
        "validation before": round(best.start, 2),
        "validation": {one.form.name: round(one.reached, 2) for one in forms},
        "of which by part": {one.form.name: [round(part.outcome.best, 2) for part in one.parts] for one in forms},
        "network": f"{best.form.name}, the mean of {PARTS}",
        "best after epochs": [part.outcome.epoch for part in best.parts],
        "temperature of LAttDBA": temperature,
    }
