"""`landseer train lattqe`: from photographs to a network that expands queries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from landseer.ensemble.expansion.methods import LATTQE
from landseer.export.datasets.readers import read
from landseer.export.lattqe_file import NAME, write_lattqe
from landseer.export.training.errors import TrainingError
from landseer.export.training.expansion import Expansion
from landseer.export.training.files import write_whole
from landseer.export.training.lattqe import (
    LATTDBA_NEIGHBOURS,
    Form,
    Learned,
    best_of,
    candidates,
    classes,
    learn,
)
from landseer.ops.results.described import Described, described
from landseer.ops.train.run import Options
from landseer.ops.train.showing import Bars

VECTORS = Path("var/train/vectors")
EPOCHS = 7


def run(options: Options, console: Console) -> None:
    """Describe the photographs, train, write the network and its card. TrainingError, DatasetError or WeightsError."""
    folders = {form.name: options.out / form.name.lower().replace(" ", "-") for form in candidates()}
    # Its own folder is where a state lay before there were several forms: such a training is not written over, either.
    if any((folder / "state.pt").exists() for folder in (options.out, *folders.values())) and not options.resume:
        raise TrainingError(f"{options.out} holds a training; go on with it by --resume, or name another folder")
    classes([one.label for one in read(options.data).photographs], seed=options.seed)
    if options.dry_run:
        console.print(f"it would describe {options.data} by {options.backbone}, and write {NAME} into {options.out}")
        return
    found = described(
        options.data, options.backbone, weights=options.weights, parts=None, folder=VECTORS, console=console
    )
    console.print(f"{len(found.vectors):,} photographs of {found.labels.max() + 1} classes, {found.how}")
    learned = [_trained(form, found, folders[form.name], options, console) for form in candidates()]
    best = best_of(learned)
    card = _card(learned, found.how, options)
    write_lattqe(best.network, options.out / NAME, card)
    text = "# LAttQE\n\nWritten by `landseer train lattqe`.\n\n```json\n" + json.dumps(card, indent=2) + "\n```\n"
    write_whole(options.out / "README.md", lambda path: path.write_text(text, encoding="utf-8"))
    reached = f"{best.outcome.best:.2f} on classes that it did not learn from"
    console.print(f"best: {best.form.name}, {reached} (AQE: {best.outcome.start:.2f}); see {options.out}")
    recipe = f"{LATTQE}:{LATTDBA_NEIGHBOURS}:{best.temperature:g}"
    console.print(f"databases are best augmented by it with: landseer augment STORE --method {recipe}", soft_wrap=True)


def _trained(form: Form, found: Described, folder: Path, options: Options, console: Console) -> Learned:
    console.print(f"training {form.name}")
    epochs = options.epochs or EPOCHS
    with Bars(console, Expansion.measure) as watcher:
        return learn(found.vectors, found.labels, folder, form=form, epochs=epochs, seed=options.seed, watcher=watcher)


def _card(learned: Sequence[Learned], descriptors: str, options: Options) -> dict[str, object]:
    best = best_of(learned)
    return {
        "command": options.command,
        "data": options.data,
        "descriptors": descriptors,
        "seed": options.seed,
        "epochs": options.epochs or EPOCHS,
        "validation before": round(best.outcome.start, 2),
        "validation": {one.form.name: round(one.outcome.best, 2) for one in learned},
        "network": best.form.name,
        "best after epochs": best.outcome.epoch,
        "temperature of LAttDBA": best.temperature,
    }
