"""`export/all.py --train DATA`: train parts on photographs and write them with their card."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from landseer.ensemble.errors import InvalidInput
from landseer.export.build import DEFAULT, PATCHES, Wanted, find_parts, trunk_sha256
from landseer.export.datasets.errors import DatasetError
from landseer.export.datasets.photograph import Photographs
from landseer.export.datasets.readable import readable
from landseer.export.datasets.readers import read
from landseer.export.engines import cpu_has_bf16
from landseer.export.models.torch_file import WeightsError
from landseer.export.models.trunks import BACKBONES, Loaded
from landseer.export.parts import Parts, write_parts
from landseer.export.training.errors import TrainingError
from landseer.export.training.localisation import LocalisationRecipe
from landseer.export.training.paired_views import paired_views
from landseer.export.training.part_trainers import TRAINERS, Training, train, with_projection
from landseer.export.training.patch_projection import PHOTOGRAPHS, learned_patches
from landseer.export.training.trunk_views import TrunkViews, ViewSpec, trunk_views


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of a training of parts."""

    wanted: Wanted
    data: str
    """A data set spec, see `datasets.specs`."""
    out: Path
    """File of parts to write, with the card beside it."""
    section: str | None = None
    """A key of `PROJECTIONS`: learn only this and add it to the existing file; None learns everything."""
    folder: Path = Path("var/train")
    """Folder of intermediate results, from which an interrupted run resumes."""
    seed: int = 0
    command: str = ""
    """The command as typed, for the card."""


def train_parts(options: TrainOptions, console: Console) -> Path:
    """Train and write parts; return the file. TrainingError, in one line, if it fails."""
    descriptor = options.wanted.descriptor or DEFAULT
    if descriptor not in TRAINERS:
        raise TrainingError(f"{descriptor} has nothing to train; expected one of {', '.join(TRAINERS)}")
    began = time.monotonic()
    try:
        loaded = BACKBONES[options.wanted.backbone].load(options.wanted.weights, options.wanted.stride)
        there = find_parts(loaded, replace(options.wanted, parts=options.out)) if options.section else None
        photographs = _readable(options, console)
        if there and options.section == PATCHES:
            parts = _with_patches(options, loaded, photographs, there, console)
            return _written(options, parts, console, began)
        views, precision = _views(options, loaded, photographs, console), precision_of(options.wanted.backbone)
        with _bar(console) as bar:
            training = Training(
                loaded=loaded,
                backbone=options.wanted.backbone,
                views=views,
                recipe=LocalisationRecipe(seed=options.seed),
                pairs=paired_views(photographs.photographs, seed=options.seed),
                precision=precision,
                folder=options.folder / f"{options.wanted.backbone}-{descriptor}-{options.seed}-{views.key[:8]}",
                watcher=TrainingBar(bar, descriptor),
                card=_card(options),
            )
            parts = _section(options, there, training) if there else train(descriptor, training)
        if not there:
            parts = _with_patches(options, loaded, photographs, parts, console)
        return _written(options, parts, console, began)
    except (DatasetError, WeightsError, InvalidInput, ValueError, OSError) as error:
        raise TrainingError(str(error)) from error


def _written(options: TrainOptions, parts: Parts, console: Console, began: float) -> Path:
    write_parts(parts, options.out)
    options.out.with_suffix(".md").write_text(card_text(parts))
    seconds = time.monotonic() - began
    console.print(f"Trained {options.section or parts.descriptor} in {seconds:.0f} s: {options.out}")
    return options.out


def _with_patches(
    options: TrainOptions, loaded: Loaded, photographs: Photographs, there: Parts, console: Console
) -> Parts:
    """Learn the projection of patches, which needs photographs and no views, and add it to the parts."""
    files = [photograph.path for photograph in photographs.photographs]
    with _bar(console) as bar:
        task = bar.add_task("patches", total=min(PHOTOGRAPHS, len(files)))
        found, told = learned_patches(
            loaded.trunk, files, seed=options.seed, report=lambda done: bar.update(task, completed=done)
        )
    if options.section:
        told = f"{told}, {options.data}, by {options.command}"
    tensors = {f"{PATCHES}.{name}": value for name, value in found.state_dict().items()}
    return replace(
        there,
        learned=tuple(dict.fromkeys((*there.learned, PATCHES))),
        tensors={**there.tensors, **tensors},
        card={**there.card, PATCHES: told},
    )


def _section(options: TrainOptions, there: Parts, training: Training) -> Parts:
    """Learn one section of existing parts, and add its data to the card."""
    name = str(options.section)
    parts = with_projection(name, there, training)
    return replace(parts, card={**parts.card, name: f"{parts.card[name]}, {options.data}, by {options.command}"})


def card_text(parts: Parts) -> str:
    """Return the card of trained parts as Markdown."""
    about = {"trunk": f"{parts.backbone}, SHA-256 of its weights {parts.trunk_sha256}", **parts.card}
    figures = about.pop("figures", {})
    rows = [f"| {name} | {value} |" for name, value in about.items()]
    rows += [f"| {name} (mAP, %) | {value:.2f} |" for name, value in figures.items()]
    size = sum(x.numel() for x in parts.tensors.values())
    return "\n".join(
        [
            f"# {parts.backbone}, {parts.descriptor}",
            "",
            f"Trained parts of Landseer: {', '.join(parts.learned)}; {size / 1e6:.1f} million numbers of 16 bits.",
            "Trained without labels, from pairs of pictures of one thing, on a frozen trunk (see",
            "`export/training/part_trainers.py`). Results on unseen products: `docs/reports/results.md`.",
            "",
            "| | |",
            "|---|---|",
            *rows,
            "",
        ]
    )


def _readable(options: TrainOptions, console: Console) -> Photographs:
    photographs = read(options.data)
    with _bar(console) as bar:
        task = bar.add_task("reading", total=len(photographs.photographs))
        photographs = readable(photographs, lambda: bar.advance(task))
    for line in photographs.skipped[:5]:
        console.print(f"skipped {line}", style="yellow", markup=False)
    return photographs


def _views(options: TrainOptions, loaded: Loaded, photographs: Photographs, console: Console) -> TrunkViews:
    with _bar(console) as bar:
        task = bar.add_task("views", total=len(photographs.photographs))
        return trunk_views(
            photographs.photographs,
            loaded.trunk,
            fingerprint=trunk_sha256(loaded),
            spec=ViewSpec(),
            folder=options.folder / "views",
            precision=precision_of(options.wanted.backbone),
            progress=lambda done: bar.advance(task, done),
        )


def precision_of(backbone: str) -> str:
    """Return the precision of a frozen trunk on CPUs. bf16 harms depthwise filters (docs/research/precision.md)."""
    return "bf16" if backbone.startswith("resnet") and cpu_has_bf16() else "f32"


def _card(options: TrainOptions) -> dict[str, str]:
    device = "a GPU" if torch.cuda.is_available() else "CPU"
    return {
        "data": options.data,
        "command": options.command,
        "machine": f"{device}, {platform.machine()}, torch {torch.__version__}",
    }


class TrainingBar:
    """A watcher that shows a progress bar."""

    def __init__(self, bar: Progress, name: str) -> None:
        self._bar, self._name = bar, name
        self._task = bar.add_task(name, total=None)

    def resumed(self, epoch: int, epochs: int, best: float) -> None:
        """Show the epochs that were done before."""
        self._bar.update(self._task, description=f"{self._name} {epoch}/{epochs}", total=epochs, completed=epoch)

    def epoch(self, epoch: int, epochs: int, step: int, steps: int) -> None:
        """Show the position in the epoch."""
        self._bar.update(self._task, description=f"{self._name} {epoch + 1}/{epochs}", total=steps, completed=step)

    def doing(self, what: str) -> None:
        """Show an activity other than steps."""
        if what:
            self._bar.update(self._task, description=f"{self._name}: {what}")

    def step(self, loss: float) -> None:
        """Show a step."""
        self._bar.update(self._task, description=f"{self._name}: loss {loss:.2f}", advance=1)

    def validated(self, value: float, best: bool) -> None:
        """Print the validation result."""
        self._bar.console.print(f"validation {value:.2f}{', best so far' if best else ''}")


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console)
