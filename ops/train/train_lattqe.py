"""`landseer train lattqe`: from photographs to a network that expands queries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from landseer.ensemble.search.expansion.methods import LATTQE
from landseer.export.datasets.readers import read
from landseer.export.lattqe_file import NAME, write_lattqe
from landseer.export.training.errors import TrainingError
from landseer.export.training.expansion import Expansion
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
from landseer.ops.research.described import Described, described
from landseer.ops.train.progress_bars import Bars
from landseer.ops.train.training import TrainingOptions as Options

VECTORS = Path("var/train/vectors")
EPOCHS = 7


def run(options: Options, console: Console) -> None:
    """Describe the photographs, train, write the network and its card. TrainingError, DatasetError or WeightsError."""
    _check_free(options)
    classes([one.label for one in read(options.data).photographs], part=0, seed=options.seed)
    if options.dry_run:
        console.print(f"it would describe {options.data} by {options.backbone}, and write {NAME} into {options.out}")
        return
    found = described(
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
    reached = f"its networks {best.reached:.2f} on classes that they did not learn from"
    console.print(f"best: {best.form.name}, {reached} (AQE: {best.start:.2f}); see {options.out}", soft_wrap=True)
    recipe = f"{LATTQE}:{LATTDBA_NEIGHBOURS}:{temperature:g}"
    console.print(f"databases are best augmented by it with: landseer augment STORE --method {recipe}", soft_wrap=True)


def _check_free(options: Options) -> None:
    """TrainingError if there is a training that the command does not go on with."""
    ours = [_folder(options, form, part) for form in candidates() for part in range(PARTS)]
    before = {options.out, *(one.parent for one in ours)}  # where state lay before there were parts, and forms
    if any((folder / "state.pt").exists() for folder in before):
        raise TrainingError(
            f"{options.out} holds a training of an earlier version, which cannot be gone on with; name another folder"
        )
    if any((folder / "state.pt").exists() for folder in ours) and not options.resume:
        raise TrainingError(f"{options.out} holds a training; go on with it by --resume, or name another folder")


def _folder(options: Options, form: Form, part: int) -> Path:
    return options.out / form.name.lower().replace(" ", "-") / f"part-{part + 1}"


def _trained(form: Form, found: Described, options: Options, console: Console) -> CrossValidated:
    parts, epochs = [], options.epochs or EPOCHS
    for part in range(PARTS):
        console.print(f"training {form.name}, validated by part {part + 1} of {PARTS} of the classes")
        with Bars(console, Expansion.measure) as watcher:
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


def _card(forms: Sequence[CrossValidated], temperature: float, descriptors: str, options: Options) -> dict[str, object]:
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
