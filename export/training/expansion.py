"""Training of query expansion: from episodes to a network that weighs neighbours.

Each step draws an episode (`Neighbourhoods`), expands its queries by their nearest neighbours and ranks the episode's
database. The loss is that of the ranking: contrastive, each relevant picture against all others, plus smooth average
precision (Brown et al., ECCV 2020), plus the auxiliary classifier of relevance. The paper's contrastive loss sees one
relevant picture and five mined ones from one index; here each step sees all pictures of a new, small index.

Every second index is first augmented by LAttDBA with the network being trained, and gradients flow through both. The
paper trains only LAttDBA's temperature, after the network has seen raw indexes alone. With such a network, neighbours
that are nearly alike and weights that cancel left noise (docs/research/expansion.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landseer.ensemble.evaluation import Truth, evaluate
from landseer.export.models.lattqe import ExpansionNetwork
from landseer.export.models.pooling import l2n
from landseer.export.training.episodes import Episode, Neighbourhoods, Vectors
from landseer.export.training.lattdba import augmented, neighbourhoods
from landseer.export.training.task import Group

VALIDATE = 7
"""Seed of the validation's episodes."""


@dataclass(frozen=True, kw_only=True)
class ExpansionRecipe:
    """The settings of the training beside the loop's."""

    steps: int = 200
    """Steps of an epoch."""
    temperature: float = 0.05
    """Of the contrastive loss."""
    smoothness: float = 0.01
    """Of the smooth average precision, in cosines."""
    relevance: float = 0.1
    """Weight of the auxiliary loss."""
    average: float = 0.02
    """Rate of the moving average of the weights, which is what is kept."""
    validated: int = 24
    """Number of validation episodes."""
    validated_at: tuple[int, ...] = (1, 4, 16, 64)
    """Numbers of neighbours."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """An episode as tensors."""

    vectors: Tensor
    """[N, D], raw."""
    queries: Tensor
    """[Q, D]."""
    relevant: Tensor
    """bool [Q, N]: the right answers of each query."""
    neighbourhoods: Tensor | None
    """[N, 1 + m], rows that LAttDBA weighs; None for a raw database."""
    temperature: float
    """Of LAttDBA."""
    neighbours: int
    """k, for the queries."""

    def database(self, network: ExpansionNetwork) -> Tensor:
        """Return the searched database, [N, D]."""
        if self.neighbourhoods is None:
            return self.vectors
        return augmented(network, self.vectors, self.neighbourhoods, self.temperature)

    def nearest(self, database: Tensor) -> Tensor:
        """Return the rows of each query's nearest neighbours, best first, [Q, k]."""
        return (self.queries @ database.T).topk(min(self.neighbours, len(database)), dim=1).indices


class ExpansionTask:
    """One training of one network: a `Task`."""

    measure = "mAP of simulated neighbourhoods, held-out classes"

    def __init__(
        self,
        network: ExpansionNetwork,
        training: Neighbourhoods,
        held: Neighbourhoods,
        recipe: ExpansionRecipe | None = None,
    ) -> None:
        self.recipe, self.training = recipe or ExpansionRecipe(), training
        averaged = network.copy().requires_grad_(False)
        self.module = nn.ModuleDict({"network": network, "averaged": averaged})
        seeds = range(self.recipe.validated)
        self.validating = [held.draw(np.random.default_rng((VALIDATE, seed))) for seed in seeds]

    def about(self) -> Mapping[str, str | int | float]:
        """Return what must stay the same for a run to resume."""
        recipe = {f"recipe.{name}": str(value) for name, value in asdict(self.recipe).items()}
        ranges = {f"ranges.{name}": str(value) for name, value in asdict(self.training.ranges).items()}
        digest = hashlib.sha256(self.training.centres.tobytes()).hexdigest()[:16]
        return {"method": "expansion", "data": digest, **recipe, **ranges}

    def groups(self) -> Sequence[Group]:
        """Return the network's parameters."""
        return [Group(parameters=[one for one in self._network.parameters() if one.requires_grad])]

    def mine(self, epoch: int) -> None:
        """Do nothing: there is nothing to mine."""

    def plan(self, epoch: int, mined: None) -> Sequence[int]:
        """Return the numbers of the episodes."""
        return range(self.recipe.steps)

    def load(self, item: int, draw: np.random.Generator) -> Batch:
        """Draw an episode and its number of neighbours, 2^u, u triangular with its peak at the limit."""
        episode = self.training.draw(draw)
        most = min(self._network.shape["sizes"].neighbours, len(episode.vectors))
        count = min(most, round(2 ** draw.triangular(0.0, np.log2(most), np.log2(most))))
        return batch_of(episode, count)

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of an episode's rankings."""
        self._follow()
        database = batch.database(self._network)
        near = batch.nearest(database.detach())
        tokens = together(batch.queries, database, near)
        weights, relevance = self._network.weights(tokens, torch.ones_like(near, dtype=torch.bool))
        scores = l2n(torch.einsum("qt,qtd->qd", weights, tokens)) @ database.T
        told = F.binary_cross_entropy_with_logits(relevance[:, 1:], batch.relevant.gather(1, near).float())
        ranking = (
            contrastive(scores, batch, self.recipe.temperature) + 1.0 - smooth_ap(scores, batch, self.recipe.smoothness)
        )
        return ranking + self.recipe.relevance * told

    def describe(self, item: int) -> str:
        """Name an episode."""
        return f"episode {item}"

    def validate(self) -> float:
        """Return the mAP in percent over the validation's episodes and numbers of neighbours."""
        counts = self.recipe.validated_at
        return float(np.mean([expanded_map(self._averaged, one, k) for one in self.validating for k in counts]))

    def weights(self) -> Mapping[str, Tensor]:
        """Return the averaged network's."""
        return self._averaged.state_dict()

    @torch.no_grad()
    def _follow(self) -> None:
        """Let the averaged weights follow, by one step."""
        for slow, fast in zip(self._averaged.parameters(), self._network.parameters(), strict=True):
            slow.lerp_(fast, self.recipe.average)

    @property
    def _network(self) -> ExpansionNetwork:
        return self._named("network")

    @property
    def _averaged(self) -> ExpansionNetwork:
        return self._named("averaged")

    def _named(self, name: str) -> ExpansionNetwork:
        module = self.module[name]
        if not isinstance(module, ExpansionNetwork):
            raise TypeError(f"got a {type(module).__name__}; expected ExpansionNetwork")
        return module


def batch_of(episode: Episode, neighbours: int) -> Batch:
    """Return an episode as tensors; neighbours: k, for its queries."""
    rows = neighbourhoods(episode.vectors, episode.neighbours) if episode.neighbours else None
    labels, wanted = torch.from_numpy(episode.labels), torch.from_numpy(episode.wanted)[:, None]
    return Batch(
        vectors=torch.from_numpy(episode.vectors),
        queries=torch.from_numpy(episode.queries),
        relevant=labels[None] == wanted,
        neighbourhoods=None if rows is None else torch.from_numpy(rows),
        temperature=episode.temperature,
        neighbours=neighbours,
    )


def together(queries: Tensor, database: Tensor, rows: Tensor) -> Tensor:
    """Return queries [Q, D] and rows [Q, k] of the database [N, D] as tokens, [Q, 1 + k, D]."""
    # index_select: the gradient of indexing by [Q, k] is summed in no fixed order.
    taken = database.index_select(0, rows.flatten()).reshape(*rows.shape, -1)
    return torch.cat([queries[:, None], taken], dim=1)


def contrastive(scores: Tensor, batch: Batch, temperature: float) -> Tensor:
    """Return the mean over queries of -log softmax of each relevant score against all irrelevant. scores: [Q, N]."""
    logits = scores / temperature
    wrong = logits.masked_fill(batch.relevant, -torch.inf).logsumexp(dim=1, keepdim=True)
    return ((F.softplus(wrong - logits) * batch.relevant).sum(dim=1) / batch.relevant.sum(dim=1)).mean()


def smooth_ap(scores: Tensor, batch: Batch, smoothness: float) -> Tensor:
    """Return the mean smooth average precision of the queries' scores [Q, N] (Brown et al. 2020, eq. 7)."""
    precisions = []
    for row, relevant in zip(scores, batch.relevant, strict=True):
        right, wrong = row[relevant], row[~relevant]
        above = torch.sigmoid((right[None] - right[:, None]) / smoothness)
        rank = 0.5 + above.sum(dim=1)  # the score itself is counted by a half
        wrong_above = torch.sigmoid((wrong[None] - right[:, None]) / smoothness).sum(dim=1)
        precisions.append((rank / (rank + wrong_above)).mean())
    return torch.stack(precisions).mean()


@torch.no_grad()
def expand_all(network: ExpansionNetwork, queries: Vectors, neighbours: Vectors) -> Vectors:
    """Return the expanded queries [Q, D], of unit norm. queries: [Q, D], neighbours: [Q, k, D], k within the limit."""
    present = torch.ones(neighbours.shape[:2], dtype=torch.bool)
    expanded = network.eval()(torch.from_numpy(queries), torch.from_numpy(neighbours), present).expanded
    return np.asarray(expanded.numpy(), np.float32)


@torch.no_grad()
def expanded_map(network: ExpansionNetwork, episode: Episode, count: int) -> float:
    """Return the mAP in percent of an episode's queries, expanded by `count` neighbours."""
    batch = batch_of(episode, count)
    database = batch.database(network.eval())
    tokens = together(batch.queries, database, batch.nearest(database))
    expanded = expand_all(network, episode.queries, tokens[:, 1:].numpy())
    orders = np.argsort(-(expanded @ database.numpy().T), axis=1, kind="stable")
    truths = [Truth(easy=np.flatnonzero(episode.labels == label)) for label in episode.wanted]
    return 100.0 * evaluate(list(orders), truths).map
