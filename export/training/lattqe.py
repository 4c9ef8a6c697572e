"""From descriptors to a trained LAttQE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from landseer.ensemble.contracts import Sizes
from landseer.export.models.lattqe import ExpansionNetwork, LAttQE
from landseer.export.models.relational import RelationalLAttQE
from landseer.export.training.episodes import EpisodeRanges, Neighbourhoods
from landseer.export.training.errors import TrainingError
from landseer.export.training.expansion import VALIDATE, Expansion, ExpansionRecipe, expanded_map
from landseer.export.training.localisation import Rows, split
from landseer.export.training.loop import Outcome, Settings, train
from landseer.export.training.watcher import Watcher

HELD_OUT = 0.3
"""Share of the classes that only validate."""
LEAST = 5
"""Classes: so many that two are left to validate."""
LATTDBA_NEIGHBOURS = 48
"""As the paper has it."""
TEMPERATURES = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
"""Of LAttDBA, to choose from."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """A network and how it is trained: the full one, or one with something left out."""

    name: str = "LAttQE"
    paper: bool = False
    """Whether the network is as the paper has it, on the descriptors themselves; then as deep and wide as there."""
    layers: int = 2
    positions: bool = True
    cosines: bool = True
    learning_rate: float = 2e-3
    recipe: ExpansionRecipe = field(default_factory=lambda: ExpansionRecipe(steps=100))
    ranges: EpisodeRanges = field(default_factory=lambda: EpisodeRanges(simulated=0.5))


WITHOUT_COSINES = Form(name="LAttQE without cosines", cosines=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Learned:
    """What came of a training."""

    form: Form
    network: ExpansionNetwork
    """In evaluation mode, on the CPU."""
    outcome: Outcome
    temperature: float | None
    """T of LAttDBA, learned last, with all else as it is; None if no database was augmented in the training."""


def candidates() -> list[Form]:
    """Return the forms that a training chooses from, by what each reaches on classes that it did not learn from.

    The second weighs neighbours by their places alone: what carries where classes are few (docs/expansion.md).
    """
    return [Form(), WITHOUT_COSINES]


def best_of(learned: Sequence[Learned]) -> Learned:
    """Return the training with the best validation, which is the same for all; of equal ones the first."""
    return max(learned, key=lambda one: one.outcome.best)


def learn(
    vectors: NDArray[np.float32],
    labels: NDArray[np.int64],
    folder: Path,
    *,
    form: Form | None = None,
    epochs: int = 7,
    seed: int = 0,
    watcher: Watcher | None = None,
) -> Learned:
    """Train on descriptors [N, D], unit, of labelled photographs [N]; one that was stopped goes on in its folder.

    TrainingError if there are too few classes.
    """
    form = form or Form()
    fit, held = classes(labels.tolist(), seed=seed)
    learning, validating = (Neighbourhoods(vectors[rows][:, None], labels[rows], form.ranges) for rows in (fit, held))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(form, Sizes(channels=vectors.shape[1]))
    task = Expansion(network, learning, validating, replace(form.recipe, seed=seed))
    resume = (folder / "state.pt").exists()
    outcome = train(task, _settings(form, epochs, seed), folder, resume=resume, watcher=watcher)
    best = network.cpu().copy()
    best.load_state_dict(load_file(outcome.weights))
    best.eval()
    temperature = _best_temperature(best, validating, form.recipe) if form.ranges.augmented else None
    return Learned(form=form, network=best, outcome=outcome, temperature=temperature)


def classes(labels: Sequence[object], *, seed: int) -> tuple[Rows, Rows]:
    """Return the rows to learn from and those of the classes that only validate, two at least of each.

    TrainingError if there are too few classes.
    """
    count = len(set(labels))
    if count < LEAST:
        raise TrainingError(f"cannot learn to expand from {count} classes; expected {LEAST} at least")
    return split([str(label) for label in labels], held_out=HELD_OUT, seed=seed)


def _best_temperature(network: ExpansionNetwork, held: Neighbourhoods, recipe: ExpansionRecipe) -> float:
    """Return the T of LAttDBA that LAttQE does best behind, on real neighbourhoods of held-out classes.

    The second step of the paper's curriculum: T alone, all else as it is. There by gradient; for one number whose
    validation is to be the best, looking is as good.
    """
    ranges = replace(held.ranges, simulated=0.0, augmented=1.0)
    draws = (np.random.default_rng((VALIDATE, seed)) for seed in range(recipe.validated // 2))
    episodes = [held.within(ranges).draw(draw) for draw in draws]

    def reached(temperature: float) -> float:
        behind = (replace(one, neighbours=LATTDBA_NEIGHBOURS, temperature=temperature) for one in episodes)
        return float(np.mean([expanded_map(network, one, recipe.validated_at[-1]) for one in behind]))

    return max(TEMPERATURES, key=reached)


def _network(form: Form, sizes: Sizes) -> ExpansionNetwork:
    if form.paper:
        return LAttQE(sizes=sizes)
    return RelationalLAttQE(sizes=sizes, layers=form.layers, positions=form.positions, cosines=form.cosines)


def _settings(form: Form, epochs: int, seed: int) -> Settings:
    """The CPU is as fast: the network is small, and an episode is drawn there."""
    return Settings(
        epochs=epochs,
        learning_rate=form.learning_rate,
        optimiser="adamw",
        weight_decay=1e-3,
        clip=0.5,
        warm_up=min(1, epochs // 2),
        seed=seed,
        device="cpu",
        checkpoint_every=50,
    )
