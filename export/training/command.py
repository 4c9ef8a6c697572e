"""`export/all.py --train DATA`: train parts on photographs and write them with their card."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from landseer.ensemble.errors import InvalidInput
from landseer.export.build import DEFAULT, HEAD, OF_ANY_HEAD, PATCHES, Wanted, own_parts, trunk_sha256
from landseer.export.datasets.errors import DatasetError
from landseer.export.datasets.photograph import Photographs
from landseer.export.datasets.readable import readable
from landseer.export.datasets.readers import read
from landseer.export.engines import cpu_has_bf16
from landseer.export.models.torch_file import WeightsError
from landseer.export.models.trunk import Loaded
from landseer.export.models.trunks import BACKBONES
from landseer.export.parts import Parts, write_parts
from landseer.export.training.errors import TrainingError
from landseer.export.training.localisation import LocalisationRecipe
from landseer.export.training.part_trainers import TRAINERS, Training, train_head, with_projection, with_projections
from landseer.export.training.patch_projection import PHOTOGRAPHS, learned_patches
from landseer.export.training.trunk_views import TrunkViews, ViewSpec, trunk_views
from landseer.export.training.two_maps import TWO_MAP, two_map_parts


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of a training of parts."""

    wanted: Wanted
    data: str
    """A data set spec, see `datasets.specs`."""
    out: Path
    """File of parts to write, with the card beside it."""
    section: str | None = None
    """A key of `PROJECTIONS`, patches or head: learn only this and add it to the file; None learns everything."""
    folder: Path = Path("var/train")
    """Folder of intermediate results, from which an interrupted run resumes."""
    seed: int = 0
    command: str = ""
    """The command as typed, for the card."""


def train_parts(options: TrainOptions, console: Console) -> Path:
    """Train and write parts; return the file. TrainingError, in one line, if it fails."""
    began = time.monotonic()
    try:
        loaded = BACKBONES[options.wanted.backbone].load(options.wanted.weights, options.wanted.stride)
        there = _there(options, loaded)
        descriptor = options.wanted.descriptor or (there.descriptor if there else DEFAULT)
        if descriptor not in (*TRAINERS, TWO_MAP):
            raise TrainingError(f"{descriptor} has nothing to train; expected one of {', '.join((*TRAINERS, TWO_MAP))}")
        if loaded.trained and options.section == HEAD:
            raise TrainingError(f"{loaded.trained.path} has its own head: train reduction, locals or patches for it")
        run = _Run(options, descriptor, loaded, _readable(options, console), console)
        parts = run.section(there) if there else run.everything()
    except (DatasetError, WeightsError, InvalidInput, ValueError, OSError) as error:
        raise TrainingError(str(error)) from error
    return _written(options, parts, console, began)


def _there(options: TrainOptions, loaded: Loaded) -> Parts | None:
    """Return the parts that a section is added to; None to learn everything, or the head alone into a new file."""
    if options.section is None or (options.section == HEAD and not options.out.exists()):
        return None
    return own_parts(options.out, loaded, options.wanted.descriptor)


class _Run(NamedTuple):
    """A training of parts."""

    options: TrainOptions
    descriptor: str
    loaded: Loaded
    photographs: Photographs
    console: Console

    def everything(self) -> Parts:
        """Learn all parts, or the head alone if only that is asked for."""
        parts = self._none() if self.loaded.trained else self._head()
        if self.options.section == HEAD:
            return parts
        with self._training() as training:
            parts = with_projections(parts, training)
        return self._with_patches(parts)

    def section(self, there: Parts) -> Parts:
        """Learn one section of existing parts, and add its data to the card."""
        name = str(self.options.section)
        if name == PATCHES:
            return self._with_patches(there)
        if name == HEAD:
            return self._head().beside(there.only(*OF_ANY_HEAD, PATCHES))
        with self._training() as training:
            parts = with_projection(name, there, training)
        told = f"{parts.card[name]}, {self.options.data}, by {self.options.command}"
        return replace(parts, card={**parts.card, name: told})

    def _none(self) -> Parts:
        """Return empty parts, for a trunk that has its own head."""
        return Parts(
            backbone=self.options.wanted.backbone,
            trunk_sha256=trunk_sha256(self.loaded),
            descriptor=self.descriptor,
            learned=(),
            tensors={},
            card={**_card(self.options), "seed": self.options.seed},
        )

    def _head(self) -> Parts:
        if self.descriptor == TWO_MAP:
            return self._two_map()
        with self._training() as training:
            return train_head(self.descriptor, training)

    def _two_map(self) -> Parts:
        """Train the head of two maps, which needs photographs and no views of one map."""
        options = self.options
        with _bar(self.console) as bar:
            task = bar.add_task(TWO_MAP, total=None)
            return two_map_parts(
                self.loaded,
                options.wanted.backbone,
                self.photographs.photographs,
                seed=options.seed,
                precision=precision_of(options.wanted.backbone),
                card=_card(options),
                report=lambda done, of: bar.update(task, completed=done, total=of),
            )

    @contextmanager
    def _training(self) -> Iterator[Training]:
        """Describe views of the photographs, unless they are on disk; show the progress of what learns from them."""
        options, views = self.options, self._views()
        with _bar(self.console) as bar:
            yield Training(
                loaded=self.loaded,
                backbone=options.wanted.backbone,
                views=views,
                recipe=LocalisationRecipe(seed=options.seed),
                folder=options.folder / f"{options.wanted.backbone}-{self.descriptor}-{options.seed}-{views.key[:8]}",
                watcher=TrainingBar(bar, self.descriptor),
                card=_card(options),
            )

    def _views(self) -> TrunkViews:
        with _bar(self.console) as bar:
            task = bar.add_task("views", total=len(self.photographs.photographs))
            return trunk_views(
                self.photographs.photographs,
                self.loaded.trunk,
                fingerprint=trunk_sha256(self.loaded),
                spec=ViewSpec(),
                folder=self.options.folder / "views",
                precision=precision_of(self.options.wanted.backbone),
                progress=lambda done: bar.advance(task, done),
            )

    def _with_patches(self, there: Parts) -> Parts:
        """Learn the projection of patches, which needs photographs and no views, and add it to the parts."""
        files = [photograph.path for photograph in self.photographs.photographs]
        with _bar(self.console) as bar:
            task = bar.add_task("patches", total=min(PHOTOGRAPHS, len(files)))
            found, told = learned_patches(
                self.loaded.trunk,
                files,
                seed=self.options.seed,
                report=lambda done: bar.update(task, completed=done),
            )
        if self.options.section:
            told = f"{told}, {self.options.data}, by {self.options.command}"
        tensors = {f"{PATCHES}.{name}": value for name, value in found.state_dict().items()}
        return replace(
            there,
            learned=tuple(dict.fromkeys((*there.learned, PATCHES))),
            tensors={**there.tensors, **tensors},
            card={**there.card, PATCHES: told},
        )


def _written(options: TrainOptions, parts: Parts, console: Console, began: float) -> Path:
    write_parts(parts, options.out)
    options.out.with_suffix(".md").write_text(card_text(parts))
    seconds = time.monotonic() - began
    console.print(f"Trained {options.section or parts.descriptor} in {seconds:.0f} s: {options.out}")
    return options.out


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
            "`export/training/`). Results on things it did not see: `docs/reports/results.md`.",
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
