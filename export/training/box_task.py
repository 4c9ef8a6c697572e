"""Train region proposals and landmark detectors, on annotated boxes or on things pasted into photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from landseer.export.build import fingerprint
from landseer.export.datasets.photograph import Photograph
from landseer.export.models.landmark_detectors import LANDMARK_DETECTORS, start_from
from landseer.export.models.rpn import ProposalDetector, RegionProposals
from landseer.export.models.trunk import Trunk
from landseer.export.training.detection import (
    DetectionLoss,
    LandmarkLoss,
    ProposalLoss,
    TrunkRun,
    annotated,
)
from landseer.export.training.errors import TrainingError
from landseer.export.training.flat_targets import flat_target
from landseer.export.training.pasted import Annotated, PasteRanges, pasted, scene
from landseer.export.training.recipes import Pasted, Stage
from landseer.export.training.shots import Shots
from landseer.export.training.task import Group
from landseer.export.training.weights import state_digest

FOUND = 0.5
"""Minimum IoU at which a box counts as found, as in Detect-to-Retrieve's AP@0.5."""
PLAN, PASTE = 200, 201
MOST_TARGETS = 3
"""Most flat targets in a scene."""
SMALL = PasteRanges(extent=(0.12, 0.6), rotation=15.0, shear=0.1, perspective=0.12, rounded=0.0)
"""How flat targets lie in a scene."""


class BoxTask:
    """The task of training a detector. Into pictures without boxes things are pasted, see `Stage.pasted`.

    Validation measures the share of boxes found among the best eight, on held-out classes.
    """

    measure = f"boxes found at IoU {FOUND} among the best 8, %"

    def __init__(
        self, loss: DetectionLoss, detector: nn.Module, *, training: Shots, held: Shots, stage: Stage, seed: int
    ) -> None:
        self.criterion, self.detector = loss, detector
        self.module = _Beside(detector) if isinstance(detector, ProposalDetector) else detector
        self.origin = state_digest(detector)
        # Hash before moving to a GPU, where weights may have another memory layout.
        trunk = detector.trunk if isinstance(detector, ProposalDetector) else None
        self.trunk = {} if trunk is None else {"trunk_sha256": fingerprint(trunk.features, trunk.variant)}
        self.training, self.held, self.stage, self.seed = training, held, stage, seed
        for shots, what in ((training, "training"), (held, "validation")):
            if len(shots) < 2:
                raise TrainingError(f"got {len(shots)} photographs for {what}; expected at least 2")

    def about(self) -> Mapping[str, str | int | float]:
        """Return the stage's options and the identity of the data."""
        return {f"method.{name}": str(value) for name, value in vars(self.stage).items()} | {
            "data.training": self.training.digest(),
            "data.validation": self.held.digest(),
            "data.long_side": self.training.profile.long_side,
            "first weights": self.origin,
            **self.trunk,
        }

    def groups(self) -> Sequence[Group]:
        """Return the loss's parameters as one group."""
        return [Group(parameters=list(self.criterion.parameters()))]

    def mine(self, epoch: int) -> Any:
        """Mine nothing."""
        return None

    def plan(self, epoch: int, mined: Any) -> Sequence[list[int]]:
        """Return batches of rows, each once."""
        order = np.random.default_rng((self.seed, PLAN, epoch)).permutation(len(self.training))
        size = self.stage.batch
        return [order[start : start + size].tolist() for start in range(0, len(order), size)]

    def load(self, item: Sequence[int], draw: np.random.Generator) -> list[Annotated]:
        """Return the pictures of a batch with their boxes."""
        return [boxed(self.training, row, draw, self.stage.pasted) for row in item]

    def loss(self, batch: Sequence[Annotated]) -> Tensor:
        """Return the detector's loss."""
        return self.criterion(batch)

    def describe(self, item: Sequence[int]) -> str:
        """Name the files of a batch."""
        return ", ".join(self.training.photographs[row].path.name for row in item)

    def validate(self) -> float:
        """Return the share of boxes found, in percent; pasted pictures are the same each time."""
        found = total = 0
        for row in range(len(self.held)):
            picture = boxed(self.held, row, np.random.default_rng((self.seed, PASTE, row)), self.stage.pasted)
            overlaps = self._overlaps(picture)
            found, total = found + int((overlaps >= FOUND).sum()), total + len(overlaps)
        return 100.0 * found / total if total else float("nan")

    def weights(self) -> Mapping[str, Tensor]:
        """Return the network's weights by torchvision's names, or those of the proposals as rpn.*."""
        return {name.removeprefix("network."): value for name, value in self.module.state_dict().items()}

    def _overlaps(self, picture: Annotated) -> Tensor:
        """Return the best IoU of the detector's boxes with each of a picture's boxes. → [n]."""
        device = next(self.module.parameters()).device
        detection = self.detector(torch.from_numpy(picture.pixels)[None].to(device))
        boxes = detection.boxes[0, : int(detection.box_count[0, 0])].float()
        wanted = torch.from_numpy(picture.boxes).to(device)
        return box_iou(wanted, boxes).amax(dim=1) if len(boxes) else torch.zeros(len(wanted), device=device)


def boxed(shots: Shots, row: int, draw: np.random.Generator, things: Pasted) -> Annotated:
    """Return a photograph with its boxes; if it has none, pasted into another one, or with flat targets in it."""
    photograph: Photograph = shots.photographs[row]
    if photograph.boxes:
        return annotated(photograph, shots.profile)
    if things == "targets":
        return with_targets(shots, row, draw)
    other = (row + 1 + int(draw.integers(len(shots) - 1))) % len(shots)
    background = shots.pixels(other)
    height, width = background.shape[:2]
    return pasted(shots.pixels(row), background, draw, height=height, width=width)


def with_targets(shots: Shots, row: int, draw: np.random.Generator) -> Annotated:
    """Return a photograph with one to `MOST_TARGETS` drawn flat targets in it; most show a part of a photograph."""
    targets = [
        flat_target(int(draw.integers(2**31)), shots.pixels(int(draw.integers(len(shots)))))
        for _ in range(int(draw.integers(1, MOST_TARGETS + 1)))
    ]
    background = shots.pixels(row)
    height, width = background.shape[:2]
    return scene(targets, background, draw, height=height, width=width, ranges=SMALL)


def box_task(
    trunk: Trunk | None,
    stage: Stage,
    training: Shots,
    held: Shots,
    *,
    seed: int,
    start: Path | None = None,
    run: TrunkRun | None = None,
) -> BoxTask:
    """Build the task of a detector. Region proposals need a trunk, which stays frozen.

    start: initial weights of a landmark detector, see `landmark_detectors.start_from`. run: runs the trunk while the
    proposals are trained.
    """
    given: dict[str, Any] = {"training": training, "held": held, "stage": stage, "seed": seed}
    sizes = training.profile.sizes
    if stage.head != "rpn":
        detector = LANDMARK_DETECTORS[stage.head](None, seed=seed, sizes=sizes)
        if start is not None:
            start_from(detector, start)
        return BoxTask(LandmarkLoss(detector), detector, **given)
    if trunk is None:
        raise TrainingError("region proposals need a trunk to train on; got none")
    rpn = RegionProposals.untrained(trunk.channels, seed=seed)
    return BoxTask(
        ProposalLoss(trunk=trunk, rpn=rpn, run=run), ProposalDetector(trunk=trunk, rpn=rpn, sizes=sizes), **given
    )


class _Beside(nn.Module):
    """Proposals with their trunk, which moves to the same device but is neither trained nor saved."""

    def __init__(self, detector: ProposalDetector) -> None:
        super().__init__()
        self.rpn = detector.rpn
        # In a tuple, so that torch does not register it.
        self._trunk = (detector.trunk.eval(),)

    def _apply(self, fn: Any, recurse: bool = True) -> _Beside:
        self._trunk[0]._apply(fn)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
