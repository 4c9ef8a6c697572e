"""From descriptors to a trained LAttQE.

Cross-validation: the things of each kind of data are split into three parts, and each part validates one network, which
learns from the other two. So all things help to choose LAttDBA's temperature and to calibrate relevance; one part alone
has too few. The result is the mean of the three networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.models.lattqe import ExpansionNetwork
from landseer.export.models.mean_lattqe import MeanLAttQE
from landseer.export.models.relational import RelationalLAttQE
from landseer.export.training.episodes import EpisodeRanges, Kind, Mixture, Neighbourhoods
from landseer.export.training.errors import TrainingError
from landseer.export.training.expansion import (
    VALIDATE,
    ExpansionRecipe,
    ExpansionTask,
    batch_of,
    expanded_map,
    together,
)
from landseer.export.training.localisation import Rows
from landseer.export.training.loop import Outcome, Settings, train
from landseer.export.training.watcher import Watcher

PARTS = 3
"""Parts of the classes. Each validates one network, which learns from the others."""
LEAST = 2 * PARTS
"""Fewest classes: two are left to validate."""
REAL: Mapping[str, Any] = {"simulated": 0.0, "offset": (0.0, 0.0), "noise": (0.0, 0.0)}
"""Validation is by what things look like. Simulated neighbourhoods of a few held-out things mislead."""
LATTDBA_NEIGHBOURS = 4
"""Of 4, 16 and the paper's 48 held-out things chose 4 (docs/reports/expansion-sweep.md)."""
TEMPERATURES = (0.1, 0.3, 1.0, 3.0)
"""Candidates for LAttDBA's temperature."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """A network and its training."""

    make: Callable[[Sizes], ExpansionNetwork] = lambda sizes: RelationalLAttQE(sizes=sizes)
    """Makes the network, from seeded weights."""
    paper: bool = False
    """Whether it is trained as the paper's network is."""
    learning_rate: float = 3e-3
    recipe: ExpansionRecipe = field(default_factory=lambda: ExpansionRecipe(steps=100, validated=12))
    ranges: EpisodeRanges = field(default_factory=lambda: EpisodeRanges(simulated=0.0, augmented=0.0))


@dataclass(frozen=True, kw_only=True, eq=False)
class Learned:
    """The result of one training."""

    form: Form
    network: ExpansionNetwork
    """In evaluation mode, on the CPU."""
    outcome: Outcome
    held: Mixture
    """Of the things that validate."""

    @torch.no_grad()
    def judged(self) -> tuple[Tensor, Tensor]:
        """Return the logits of relevance of all neighbours of `held`, and whether they are relevant, [n] each."""
        logits, relevant = [], []
        for seed in range(self.form.recipe.validated):
            episode = self.held.draw(np.random.default_rng((VALIDATE, seed)))
            for count in self.form.recipe.validated_at:
                batch = batch_of(episode, count)
                near = batch.nearest(batch.vectors)
                tokens = together(batch.queries, batch.vectors, near)
                found = self.network.weights(tokens, torch.ones_like(near, dtype=torch.bool))[1]
                logits.append(found[:, 1:].flatten())
                relevant.append(batch.relevant.gather(1, near).flatten())
        return torch.cat(logits), torch.cat(relevant)

    def behind_lattdba(self, temperature: float) -> float:
        """Return LAttQE's mAP in percent after LAttDBA with this temperature, on real neighbourhoods of `held`."""
        return behind_lattdba(self.network, self.held, temperature, recipe=self.form.recipe)


class CrossValidated:
    """The trainings of a form, one for each part of the classes, and their mean."""

    def __init__(self, parts: Sequence[Learned]) -> None:
        """parts: trainings of one form, see `learn`. ValueError if one is missing."""
        if len(parts) != PARTS:
            raise ValueError(f"got {len(parts)} trainings; expected {PARTS}, one for each part of the classes")
        self.form, self.parts = parts[0].form, parts
        self.network = MeanLAttQE.of([one.network for one in parts if isinstance(one.network, RelationalLAttQE)])
        logits, relevant = (torch.cat(some) for some in zip(*(one.judged() for one in parts), strict=True))
        self.network.calibration.copy_(platt(logits, relevant))

    @property
    def start(self) -> float:
        """mAP in percent before the first step; each part is judged by the network that did not learn from it."""
        return float(np.mean([one.outcome.start for one in self.parts]))

    @property
    def reached(self) -> float:
        """mAP in percent of the kept networks, judged likewise."""
        return float(np.mean([one.outcome.best for one in self.parts]))

    def temperature(self) -> float:
        """Return the best temperature of LAttDBA, judged likewise. Takes a minute or two.

        The paper learns T by gradient, with all else frozen, in the second step of its curriculum. For one number a
        search over candidates does as well.
        """
        return max(TEMPERATURES, key=lambda one: np.mean([part.behind_lattdba(one) for part in self.parts]))


def behind_lattdba(
    network: ExpansionNetwork,
    held: Mixture,
    temperature: float,
    *,
    recipe: ExpansionRecipe,
    neighbours: int = LATTDBA_NEIGHBOURS,
) -> float:
    """Return LAttQE's mAP in percent after LAttDBA, on real neighbourhoods of what is held out.

    neighbours: of LAttDBA. LAttQE takes as many as the validation takes at most.
    """
    ranges = replace(held.ranges, simulated=0.0, augmented=1.0)
    draws = (np.random.default_rng((VALIDATE, seed)) for seed in range(math.ceil(recipe.validated / 4)))
    episodes = (held.within(ranges).draw(draw) for draw in draws)
    behind = (replace(one, neighbours=neighbours, temperature=temperature) for one in episodes)
    return float(np.mean([expanded_map(network, one, recipe.validated_at[-1]) for one in behind]))


def platt(logits: Tensor, relevant: Tensor) -> Tensor:
    """Return the scale and the shift of logits [n] that make their sigmoids probabilities (Platt 1999), [2]."""
    found = torch.tensor([1.0, 0.0], requires_grad=True)
    optimiser = torch.optim.LBFGS([found], max_iter=50, line_search_fn="strong_wolfe")

    def step() -> Tensor:
        optimiser.zero_grad()
        loss = F.binary_cross_entropy_with_logits(found[0] * logits + found[1], relevant.float())
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimiser.step(step)  # type: ignore[no-untyped-call]
    return found.detach()


def learn(
    worlds: Sequence[Sequence[Kind]],
    folder: Path,
    *,
    new: Sequence[tuple[int, int]] | None = None,
    form: Form | None = None,
    part: int = 0,
    epochs: int = 7,
    seed: int = 0,
    watcher: Watcher | None = None,
) -> Learned:
    """Train on kinds of data, the same in every world (`Mixture`); an interrupted training resumes from its folder.

    new: numbers of worlds and of kinds in them that are as new things will be, to validate by; None: all. part: number
    of the part of the things that validates. TrainingError if a kind has too few things.
    """
    form = form or Form()
    learning, validating = mixtures(worlds, new=new, form=form, part=part, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = form.make(Sizes(channels=worlds[0][0].vectors.shape[1]))
    task = ExpansionTask(network, learning, validating, replace(form.recipe, seed=seed))
    resume = (folder / "state.pt").exists()
    outcome = train(task, _settings(form, epochs, seed), folder, resume=resume, watcher=watcher)
    best = network.cpu().copy()
    best.load_state_dict(load_file(outcome.weights))
    best.eval()
    return Learned(form=form, network=best, outcome=outcome, held=validating)


def mixtures(
    worlds: Sequence[Sequence[Kind]],
    *,
    new: Sequence[tuple[int, int]] | None = None,
    form: Form | None = None,
    part: int = 0,
    seed: int = 0,
) -> tuple[Mixture, Mixture]:
    """Return what is learned from, and what validates, in real neighbourhoods. For the arguments see `learn`."""
    form = form or Form()
    halves = [classes(kind.labels.tolist(), part=part, seed=seed) for kind in worlds[0]]
    learning, validating = (
        Mixture(
            [[_side(kind, half[side], form) for kind, half in zip(kinds, halves, strict=True)] for kinds in worlds],
            new if side else None,
        )
        for side in (0, 1)
    )
    return learning, validating.within(replace(form.ranges, **REAL))


def classes(labels: Sequence[object], *, part: int, seed: int) -> tuple[Rows, Rows]:
    """Return the rows to learn from, and those of the classes of `part`, which only validate (two or more).

    TrainingError if there are too few classes.
    """
    known = sorted({str(label) for label in labels})
    if len(known) < LEAST:
        raise TrainingError(f"cannot learn to expand from {len(known)} classes; expected {LEAST} or more")
    dealt = set(np.random.default_rng(seed).permutation(known)[part::PARTS].tolist())
    held = np.array([str(label) in dealt for label in labels])
    return np.flatnonzero(~held), np.flatnonzero(held)


def _side(kind: Kind, rows: Rows, form: Form) -> Neighbourhoods:
    some = kind.rows(rows)
    return Neighbourhoods(some.vectors[:, None], some.labels, form.ranges)


def _settings(form: Form, epochs: int, seed: int) -> Settings:
    """On the CPU: the network is small, and episodes are drawn there."""
    ours = Settings(
        epochs=epochs,
        learning_rate=form.learning_rate,
        optimiser="adamw",
        weight_decay=1e-3,
        clip=2.0,
        warm_up=min(1, epochs // 2),
        seed=seed,
        device="cpu",
        checkpoint_every=50,
    )
    return replace(ours, weight_decay=1e-6, clip=None, warm_up=0, schedule="exponential") if form.paper else ours
