"""Training of query expansion: from episodes to a network that weighs neighbours.

Each step draws an episode (`Neighbourhoods`), drops neighbours of its queries as the paper does (each with
a probability that is drawn from 0 to 0.6), expands the queries by the others and ranks the episode's database. The loss
is that of the ranking: contrastive, each relevant picture against all others, plus smooth average precision (Brown et
al., ECCV 2020), plus the classifier of relevance. What a query loses of its precision by being expanded counts again
(`protection`), so that the network does nothing where it is not sure. The paper's contrastive loss (`margin_loss`) sees
no ranking: it pulls the query to relevant pictures and pushes it from five mined ones that are closer than 0.1.
`ExpansionRecipe.paper` takes it, and mines in the episode's database, anew in each step.

Some databases are first augmented by LAttDBA with the network being trained, and gradients flow through both. The
paper trains only LAttDBA's temperature, after the network has seen raw databases alone. With such a network, neighbours
that are nearly alike and weights that cancel left noise (docs/research/expansion.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landseer.ensemble.evaluation import Truth, evaluate
from landseer.export.models.lattqe import ExpansionNetwork
from landseer.export.models.pooling import l2n
from landseer.export.training.episodes import Episode, Mixture, Vectors
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
    contrast: float = 0.02
    """Weight of the contrastive loss; its gradient would drown the others."""
    smoothness: float = 0.01
    """Of the smooth average precision, in cosines."""
    relevance: float = 3.0
    """Weight of the loss of relevance."""
    protection: float = 0.3
    """Weight of the precision that queries lose by being expanded."""
    dropout: float = 0.6
    """Highest probability of a neighbour to be dropped."""
    least: int = 1
    """Fewest neighbours that are drawn."""
    paper: bool = False
    """Whether the loss of the ranking is the paper's."""
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
    kept: Tensor | None = None
    """bool [Q, k]: the neighbours that are not dropped; None for all."""

    def database(self, network: ExpansionNetwork) -> Tensor:
        """Return the searched database, [N, D]."""
        if self.neighbourhoods is None:
            return self.vectors
        return augmented(network, self.vectors, self.neighbourhoods, self.temperature)

    def nearest(self, database: Tensor) -> Tensor:
        """Return the rows of each query's nearest neighbours, best first, [Q, k]."""
        return (self.queries @ database.T).topk(min(self.neighbours, len(database)), dim=1).indices

    def seen(self, database: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest, [Q, k], those that are dropped at the end, and which are not dropped."""
        near = self.nearest(database)
        kept = torch.ones_like(near, dtype=torch.bool) if self.kept is None else self.kept[:, : near.shape[1]]
        order = torch.argsort((~kept).to(torch.int8), dim=1, stable=True)
        return near.gather(1, order), kept.gather(1, order)


class ExpansionTask:
    """One training of one network: a `Task`."""

    measure = "mAP of simulated neighbourhoods, held-out classes"

    def __init__(
        self,
        network: ExpansionNetwork,
        training: Mixture,
        held: Mixture,
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
        return {"method": "expansion", "data": self.training.digest, **recipe, **ranges}

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
        low, high = np.log2(min(self.recipe.least, most / 2)), np.log2(most)
        count = min(most, round(2 ** draw.triangular(low, high, high)))
        batch = batch_of(episode, count)
        shape = (len(episode.queries), batch.neighbours)
        return replace(batch, kept=torch.from_numpy(draw.random(shape) >= draw.uniform(0.0, self.recipe.dropout)))

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of an episode's rankings."""
        self._follow()
        database = batch.database(self._network)
        near, present = batch.seen(database.detach())
        tokens = together(batch.queries, database, near)
        weights, logits = self._network.weights(tokens, present)
        scores = l2n(torch.einsum("qt,qtd->qd", weights, tokens)) @ database.T
        told = F.binary_cross_entropy_with_logits(
            logits[:, 1:], batch.relevant.gather(1, near).float(), weight=present.float()
        )
        return self._ranking(scores, batch, database) + self.recipe.relevance * told

    def _ranking(self, scores: Tensor, batch: Batch, database: Tensor) -> Tensor:
        if self.recipe.paper:
            return margin_loss(scores, batch)
        smooth = self.recipe.smoothness
        with torch.no_grad():
            before = smooth_ap(batch.queries @ database.T, batch, smooth)
        precisions = smooth_ap(scores, batch, smooth)
        lost = F.relu(before - precisions)
        ranking = self.recipe.contrast * contrastive(scores, batch, self.recipe.temperature) + 1.0 - precisions.mean()
        return ranking + self.recipe.protection * lost.mean()

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


def margin_loss(scores: Tensor, batch: Batch, *, margin: float = 0.1, mined: int = 5) -> Tensor:
    """Return the paper's contrastive loss, of distances z = |q - d|, for scores [Q, N], cosines.

    The mean over queries of z^2 over the relevant pictures, plus the sum of max(0, margin - z)^2 over the `mined`
    nearest of the others.
    """
    squared = (2.0 - 2.0 * scores).clamp(min=1e-9)
    near = (squared * batch.relevant).sum(dim=1) / batch.relevant.sum(dim=1)
    others = squared.masked_fill(batch.relevant, torch.inf)
    hardest = others.topk(min(mined, others.shape[1]), dim=1, largest=False).values.sqrt()
    return (near + F.relu(margin - hardest).square().sum(dim=1)).mean()


def smooth_ap(scores: Tensor, batch: Batch, smoothness: float) -> Tensor:
    """Return the smooth average precision of each query's scores [Q, N] (Brown et al. 2020, eq. 7). → [Q]."""
    precisions = []
    for row, relevant in zip(scores, batch.relevant, strict=True):
        right, wrong = row[relevant], row[~relevant]
        above = torch.sigmoid((right[None] - right[:, None]) / smoothness)
        rank = 0.5 + above.sum(dim=1)  # the score itself is counted by a half
        wrong_above = torch.sigmoid((wrong[None] - right[:, None]) / smoothness).sum(dim=1)
        precisions.append((rank / (rank + wrong_above)).mean())
    return torch.stack(precisions)


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
