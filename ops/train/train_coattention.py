"""`landseer train coattention`: from photographs to co-attention's reduction (`export/training/coattending.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from safetensors.torch import load_file

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.build import WITHOUT_PARTS, Wanted, find_parts, trunk_sha256
from landseer.export.models.trunks import BACKBONES, Loaded
from landseer.export.parts import Parts, write_parts
from landseer.export.training.attending import Pooled
from landseer.export.training.coattending import Coattending, CoattendingRecipe
from landseer.export.training.command import card_text, precision_of
from landseer.export.training.errors import TrainingError
from landseer.export.training.files import write_whole
from landseer.export.training.loop import Outcome, Settings, train
from landseer.export.training.pair_pools import pair_pools, pools_key
from landseer.export.training.paired_views import EACH, PairedViews, paired_views
from landseer.ops.progress import bars
from landseer.ops.train.progress_bars import Bars
from landseer.ops.train.split import read_all
from landseer.ops.train.training import TrainingOptions

NAME = "parts.safetensors"
POOLS = Path("var/train/pools")
MOST = 1000
"""Most photographs that are seen twice, and drawn flat targets."""
EPOCHS, RATE = 40, 2e-4


def run(options: TrainingOptions, console: Console) -> None:
    """Pool pairs of pictures, train, write the parts and their card. TrainingError, DatasetError, WeightsError."""
    loaded = BACKBONES[options.backbone].load(options.weights, "auto")
    if loaded.checkpoint is not None:
        raise TrainingError(f"{options.weights} has its own descriptor and takes no trained parts, and so no reduction")
    photographs = read_all(options.data, console, decode=not options.dry_run).photographs
    most = options.pool or MOST
    told = f"{min(most, len(photographs)):,} photographs and {most:,} drawn targets, two pictures of each"
    if options.dry_run:
        console.print(f"would learn co-attention's reduction from {told}, and write {NAME} into {options.out}")
        return
    pairs = paired_views(photographs, seed=options.seed, most=most, targets=most)
    console.print(f"learning from {told}")
    task = _task(pairs, loaded, options, console)
    with Bars(console, task.measure) as watcher:
        outcome = train(task, _settings(options), options.out, resume=options.resume, watcher=watcher)
    parts = _parts(outcome, loaded, options, told)
    write_parts(parts, options.out / NAME)
    write_whole(options.out / "README.md", lambda path: path.write_text(card_text(parts), encoding="utf-8"))
    file = options.out / NAME
    console.print(
        f"best {outcome.best:.2f} after {outcome.epoch} epochs (learned whitening: {outcome.start:.2f}); export with: "
        f"python export/all.py --backbone {options.backbone} --parts {file}",
        soft_wrap=True,
    )


def _task(pairs: PairedViews, loaded: Loaded, options: TrainingOptions, console: Console) -> Coattending:
    about = {"fingerprint": trunk_sha256(loaded), "precision": precision_of(options.backbone)}
    with bars(console) as progress:
        task = progress.add_task("things", total=len(pairs) // EACH)
        pools: Pooled = pair_pools(
            pairs, loaded.trunk, folder=POOLS, progress=lambda done: progress.advance(task, done), **about
        )
    recipe, sizes = CoattendingRecipe(seed=options.seed), Sizes(channels=loaded.trunk.channels)
    return Coattending(pools, pools_key(pairs, **about), recipe, sizes=sizes)


def _settings(options: TrainingOptions) -> Settings:
    return Settings(
        epochs=options.epochs or EPOCHS,
        learning_rate=options.rate or RATE,
        optimiser="adamw",
        warm_up=min(1, (options.epochs or EPOCHS) // 2),
        device=options.device,
        seed=options.seed,
        log_every=options.log_every,
    )


def _parts(outcome: Outcome, loaded: Loaded, options: TrainingOptions, told: str) -> Parts:
    """Return the parts that ship for the trunk with the reduction that was learned, or it alone."""
    learned = load_file(outcome.weights)
    wanted = Wanted(backbone=options.backbone, weights=options.weights)
    there = find_parts(loaded, wanted) or Parts(
        backbone=options.backbone,
        trunk_sha256=trunk_sha256(loaded),
        descriptor=WITHOUT_PARTS,
        learned=(),
        tensors={},
    )
    figures = f"mAP of held-out things {outcome.start:.2f} before, {outcome.best:.2f} after {outcome.epoch} epochs"
    about = f"InfoNCE over co-attention's score, {told}, seed {options.seed}, {figures}, {options.data}"
    card: Mapping[str, Any] = {**there.card, "reduction": f"{about}, by {options.command}"}
    tensors = {**there.tensors, **learned}
    return replace(there, learned=tuple(dict.fromkeys((*there.learned, "reduction"))), tensors=tensors, card=card)
