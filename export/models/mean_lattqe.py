"""The mean of several LAttQE networks: the result of a cross-validated training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.models.lattqe import ExpansionNetwork
from landseer.export.models.relational import RelationalLAttQE

SUBTRACTED = 0.75
"""What weights below 0 count. Networks are too sure of what does not belong: on held-out produce all of it costs up to
0.9 mAP, and with any factor up to 0.8 nothing is lost (docs/research/expansion.md)."""


class MeanLAttQE(ExpansionNetwork):
    """Weigh the neighbours of a query by the mean weights of several networks of one form.

    Bagging (Breiman, Machine Learning 24, 1996). The mean is of the weights, not of the expanded queries, so the result
    is still one weighted sum. Of means below 0 only a part counts. The paper has one network.
    """

    def __init__(self, *, sizes: Sizes, count: int, **form: Any) -> None:
        """count: of networks. form: the arguments of each, see `RelationalLAttQE`."""
        super().__init__()
        self.shape = {"sizes": sizes, "count": count, **form}
        self.networks = nn.ModuleList(RelationalLAttQE(sizes=sizes, **form) for _ in range(count))
        self.calibration: Tensor
        """Scale and shift of the logits of relevance that make them probabilities."""
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))

    @classmethod
    def of(cls, networks: Sequence[RelationalLAttQE]) -> Self:
        """Return the mean of copies of the networks. ValueError if there are none or their forms differ."""
        forms = {str(network.shape) for network in networks}
        if len(forms) != 1:
            raise ValueError(f"got {len(networks)} networks of {len(forms)} forms; expected some of one form")
        with torch.random.fork_rng(devices=[]):
            made = cls(count=len(networks), **networks[0].shape)
        for mine, network in zip(made.networks, networks, strict=True):
            mine.load_state_dict(network.state_dict())
        return made.eval()

    def weights(self, tokens: Tensor, neighbour_mask: Tensor) -> tuple[Tensor, Tensor]:
        """See `ExpansionNetwork`."""
        each = [network.weights(tokens, neighbour_mask) for network in self._networks()]
        weights, logits = (torch.stack(some).mean(dim=0) for some in zip(*each, strict=True))
        return cautious(weights), self.calibration[0] * logits + self.calibration[1]

    def among(self, vectors: Tensor, rows: Tensor) -> Tensor:
        """See `ExpansionNetwork`."""
        return cautious(torch.stack([network.among(vectors, rows) for network in self._networks()]).mean(dim=0))

    def _networks(self) -> list[RelationalLAttQE]:
        return [one for one in self.networks if isinstance(one, RelationalLAttQE)]


def cautious(weights: Tensor) -> Tensor:
    """Return the weights, those below 0 times `SUBTRACTED`."""
    return weights - (1.0 - SUBTRACTED) * weights.clamp(max=0.0)
