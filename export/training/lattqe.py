"""From descriptors to a trained LAttQE.

The classes are dealt into parts. Each validates one network of a form, which learns from the others. So all classes
have a say in which form is kept and in LAttDBA's temperature: few as they are, one part of them says little. What is
kept is the mean of the networks of the form that does best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.models.lattqe import ExpansionNetwork, LAttQE
from landseer.export.models.mean_lattqe import MeanLAttQE
from landseer.export.models.relational import RelationalLAttQE
from landseer.export.training.episodes import EpisodeRanges, Neighbourhoods
from landseer.export.training.errors import TrainingError
from landseer.export.training.expansion import VALIDATE, Expansion, ExpansionRecipe, expanded_map
from landseer.export.training.localisation import Rows
from landseer.export.training.loop import Outcome, Settings, train
from landseer.export.training.watcher import Watcher

PARTS = 3
"""That the classes are dealt into. Each validates one network, which learns from the others."""
LEAST = 2 * PARTS
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
    """What came of one training."""

    form: Form
    network: ExpansionNetwork
    """In evaluation mode, on the CPU."""
    outcome: Outcome
    held: Neighbourhoods
    """Of the classes that were not learned from."""

    def behind_lattdba(self, temperature: float) -> float:
        """Return the mAP in percent that LAttQE reaches behind LAttDBA of a T, on real neighbourhoods of those."""
        ranges, recipe = replace(self.held.ranges, simulated=0.0, augmented=1.0), self.form.recipe
        draws = (np.random.default_rng((VALIDATE, seed)) for seed in range(recipe.validated // 2))
        episodes = (self.held.within(ranges).draw(draw) for draw in draws)
        behind = (replace(one, neighbours=LATTDBA_NEIGHBOURS, temperature=temperature) for one in episodes)
        return float(np.mean([expanded_map(self.network, one, recipe.validated_at[-1]) for one in behind]))


class CrossValidated:
    """The trainings of a form, a network for each part of the classes, and their mean."""

    def __init__(self, parts: Sequence[Learned]) -> None:
        """parts: of one form, see `learn`. ValueError if not all of them are there."""
        if len(parts) != PARTS:
            raise ValueError(f"got {len(parts)} trainings; expected {PARTS}, one for each part of the classes")
        self.form, self.parts = parts[0].form, parts
        self.network = MeanLAttQE.of([one.network for one in parts if isinstance(one.network, RelationalLAttQE)])

    @property
    def start(self) -> float:
        """mAP in percent before the first step, each part by the network that did not learn from it."""
        return float(np.mean([one.outcome.start for one in self.parts]))

    @property
    def reached(self) -> float:
        """mAP in percent likewise, of the networks as they are kept."""
        return float(np.mean([one.outcome.best for one in self.parts]))

    def temperature(self) -> float:
        """Return T of LAttDBA that does best, likewise. It takes a minute or two.

        The second step of the paper's curriculum: T alone, all else as it is. There by gradient; for one number whose
        validation is to be the best, looking is as good.
        """
        return max(TEMPERATURES, key=lambda one: np.mean([part.behind_lattdba(one) for part in self.parts]))


def candidates() -> list[Form]:
    """Return the forms that a training chooses from, by what each reaches on classes that it did not learn from.

    The second weighs neighbours by their places alone: what carries where classes are few (docs/research/expansion.md).
    """
    return [Form(), WITHOUT_COSINES]


def best_of(forms: Sequence[CrossValidated]) -> CrossValidated:
    """Return the form with the best validation, which is the same for all; of equal ones the first."""
    return max(forms, key=lambda one: one.reached)


def learn(
    vectors: NDArray[np.float32],
    labels: NDArray[np.int64],
    folder: Path,
    *,
    form: Form | None = None,
    part: int = 0,
    epochs: int = 7,
    seed: int = 0,
    watcher: Watcher | None = None,
) -> Learned:
    """Train on descriptors [N, D], unit, of labelled photographs [N]; one that was stopped goes on in its folder.

    part: of the classes, that validates. TrainingError if there are too few classes.
    """
    form = form or Form()
    fit, held = classes(labels.tolist(), part=part, seed=seed)
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
    return Learned(form=form, network=best, outcome=outcome, held=validating)


def classes(labels: Sequence[object], *, part: int, seed: int) -> tuple[Rows, Rows]:
    """Return the rows to learn from and those of the part of the classes that only validates, two classes at least.

    TrainingError if there are too few classes.
    """
    known = sorted({str(label) for label in labels})
    if len(known) < LEAST:
        raise TrainingError(f"cannot learn to expand from {len(known)} classes; expected {LEAST} at least")
    dealt = set(np.random.default_rng(seed).permutation(known)[part::PARTS].tolist())
    held = np.array([str(label) in dealt for label in labels])
    return np.flatnonzero(~held), np.flatnonzero(held)


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
