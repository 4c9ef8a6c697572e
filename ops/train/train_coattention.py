"""`landseer train coattention`: from photographs to co-attention's reduction (`export/training/coattending.py`)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console
from safetensors.torch import load_file

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.build import WITHOUT_PARTS, Wanted, find_parts, trunk_sha256
from landseer.export.models.pooling import Projection
from landseer.export.models.trunk import Loaded
from landseer.export.models.trunks import BACKBONES
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

NAME, REDUCTION = "parts.safetensors", "reduction"
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
    there = find_parts(loaded, Wanted(backbone=options.backbone, weights=options.weights))
    task = _task(pairs, loaded, there, options, console)
    with Bars(console, task.measure) as watcher:
        outcome = train(task, _settings(options), options.out, resume=options.resume, watcher=watcher)
    parts = _with_reduction(there, outcome, loaded, options, told)
    write_parts(parts, options.out / NAME)
    write_whole(options.out / "README.md", lambda path: path.write_text(card_text(parts), encoding="utf-8"))
    weights = f"--weights {options.weights} " if options.weights else ""
    console.print(
        f"best {outcome.best:.2f} after {outcome.epoch} epochs (before: {outcome.start:.2f}); export with: "
        f"python export/all.py --backbone {options.backbone} {weights}--parts {options.out / NAME}",
        soft_wrap=True,
    )


def _task(
    pairs: PairedViews, loaded: Loaded, there: Parts | None, options: TrainingOptions, console: Console
) -> Coattending:
    about = {"fingerprint": trunk_sha256(loaded), "precision": precision_of(options.backbone)}
    with bars(console) as progress:
        task = progress.add_task("things", total=len(pairs) // EACH)
        pools: Pooled = pair_pools(
            pairs, loaded.trunk, folder=POOLS, progress=lambda done: progress.advance(task, done), **about
        )
    recipe, sizes = CoattendingRecipe(seed=options.seed), Sizes(channels=loaded.trunk.channels)
    held = there.section(REDUCTION) if there else {}
    start = Projection(held["mean"], held["matrix"]) if held else None
    return Coattending(pools, pools_key(pairs, **about), recipe, sizes=sizes, start=start)


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


def _with_reduction(
    there: Parts | None, outcome: Outcome, loaded: Loaded, options: TrainingOptions, told: str
) -> Parts:
    """Return the parts that ship for the trunk with the reduction that was learned, or it alone."""
    parts = there or Parts(
        backbone=options.backbone,
        trunk_sha256=trunk_sha256(loaded),
        descriptor=WITHOUT_PARTS,
        learned=(),
        tensors={},
    )
    figures = f"mAP of held-out things {outcome.start:.2f} before, {outcome.best:.2f} after {outcome.epoch} epochs"
    about = f"InfoNCE over co-attention's score, {told}, seed {options.seed}, {figures}, {options.data}"
    return replace(
        parts,
        learned=tuple(dict.fromkeys((*parts.learned, REDUCTION))),
        tensors={**parts.tensors, **load_file(outcome.weights)},
        card={**parts.card, REDUCTION: f"{about}, by {options.command.replace(' --resume', '')}"},
    )
