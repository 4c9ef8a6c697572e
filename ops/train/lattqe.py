"""`landseer train lattqe`: from photographs to a network that expands queries."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from landseer.ensemble.expansion.methods import LATTQE
from landseer.export.datasets.readers import read
from landseer.export.lattqe_file import NAME, write_lattqe
from landseer.export.training.errors import TrainingError
from landseer.export.training.expansion import Expansion
from landseer.export.training.files import write_whole
from landseer.export.training.lattqe import LATTDBA_NEIGHBOURS, classes, learn
from landseer.ops.results.described import described
from landseer.ops.train.run import Options
from landseer.ops.train.showing import Bars

VECTORS = Path("var/train/vectors")
EPOCHS = 7


def run(options: Options, console: Console) -> None:
    """Describe the photographs, train, write the network and its card. TrainingError, DatasetError or WeightsError."""
    if (options.out / "state.pt").exists() and not options.resume:
        raise TrainingError(f"{options.out} holds a training; go on with it by --resume, or name another folder")
    classes([one.label for one in read(options.data).photographs], seed=options.seed)
    if options.dry_run:
        console.print(f"it would describe {options.data} by {options.backbone}, and write {NAME} into {options.out}")
        return
    found = described(
        options.data, options.backbone, weights=options.weights, parts=None, folder=VECTORS, console=console
    )
    console.print(f"{len(found.vectors):,} photographs of {found.labels.max() + 1} classes, {found.how}")
    epochs = options.epochs or EPOCHS
    with Bars(console, Expansion.measure) as watcher:
        learned = learn(found.vectors, found.labels, options.out, epochs=epochs, seed=options.seed, watcher=watcher)
    outcome = learned.outcome
    card = {
        "command": options.command,
        "data": options.data,
        "descriptors": found.how,
        "seed": options.seed,
        "epochs": epochs,
        "validation before": round(outcome.start, 2),
        "validation": round(outcome.best, 2),
        "best after epochs": outcome.epoch,
        "temperature of LAttDBA": learned.temperature,
    }
    write_lattqe(learned.network, options.out / NAME, card)
    text = "# LAttQE\n\nWritten by `landseer train lattqe`.\n\n```json\n" + json.dumps(card, indent=2) + "\n```\n"
    write_whole(options.out / "README.md", lambda path: path.write_text(text, encoding="utf-8"))
    console.print(f"best {outcome.best:.2f} (AQE, where it began: {outcome.start:.2f}); see {options.out}")
    recipe = f"{LATTQE}:{LATTDBA_NEIGHBOURS}:{learned.temperature:g}"
    console.print(f"databases are best augmented by it with: landseer augment STORE --method {recipe}", soft_wrap=True)
