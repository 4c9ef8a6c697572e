"""Training methods by name: what to train, with which loss and settings.

From the papers come CiDeR's margin, optimiser, learning rate, weight decay, warm-up and schedule, DIR's margin, and
contrastive learning's five negatives from a pool of 20,000. Everything else is our choice, above all epochs and
batches. To add a method, add a line to `METHODS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from landseer.export.training.settings import Optimiser, Schedule

Kind = Literal["labels", "tuples", "boxes"]
Pasted = Literal["photographs", "targets"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One run of the training loop."""

    name: str
    """Name of its folder, if a method has several stages."""
    kind: Kind
    """Kind of batches: labelled photographs, tuples with mined negatives, or pictures with boxes."""
    head: str
    """A key of `HEADS`; for boxes a detector: rpn, ssdlite or faster_rcnn."""
    batch: int
    """Photographs, tuples or pictures in a batch."""
    epochs: int
    learning_rate: float
    weight_decay: float
    loss: str = ""
    """A key of `LOSSES`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the loss."""
    frozen: bool = False
    """Whether the trunk is frozen."""
    views: bool = True
    """Whether photographs are augmented as random views."""
    optimiser: Optimiser = "sgd"
    schedule: Schedule = "cosine"
    decay: float = 0.99
    warm_up: int = 0
    accumulate: int = 1
    each: int | None = None
    """Photographs of each class in a batch (P x K); None for batches of one shape with any classes."""
    negatives: int = 1
    tuples: int = 2000
    """Tuples mined for each epoch."""
    pool: int = 5000
    """Photographs described for mining."""
    pasted: Pasted = "photographs"
    """What a detector learns to find where a data set has no boxes: photographs pasted into each other, or drawn flat
    targets pasted into photographs."""


_CIDER = Stage(
    name="cider",
    kind="labels",
    head="cider",
    loss="arcface",
    options={"margin": 0.3},
    batch=16,
    epochs=30,
    learning_rate=1e-3,
    weight_decay=1e-5,
    warm_up=3,
)
_BOXES = Stage(
    name="boxes",
    kind="boxes",
    head="rpn",
    batch=8,
    epochs=20,
    optimiser="adamw",
    learning_rate=1e-3,
    weight_decay=1e-4,
    warm_up=1,
)


METHODS: Mapping[str, tuple[Stage, ...]] = {
    "cider": (_CIDER,),
    # First the trunk by classification, then the head on the trained trunk.
    "cider-ft": (replace(_CIDER, name="trunk", head="gem"), replace(_CIDER, name="head", frozen=True)),
    "triplet": (
        Stage(
            name="triplet",
            kind="tuples",
            head="rmac",
            loss="triplet",
            options={"margin": 0.1},
            batch=4,
            accumulate=16,
            epochs=30,
            learning_rate=1e-3,
            weight_decay=5e-5,
            schedule="constant",
        ),
    ),
    "contrastive": (
        Stage(
            name="contrastive",
            kind="tuples",
            head="gem",
            loss="contrastive",
            options={"margin": 0.7},
            views=False,
            negatives=5,
            pool=20_000,
            batch=1,
            accumulate=5,
            epochs=30,
            optimiser="adamw",
            learning_rate=1e-6,
            weight_decay=1e-4,
            schedule="exponential",
        ),
    ),
    # Ours: views of one class against those of others, in P x K batches.
    "supcon": (
        Stage(
            name="supcon",
            kind="labels",
            head="gem",
            loss="supervised-contrastive",
            options={"temperature": 0.07},
            each=4,
            batch=32,
            epochs=30,
            learning_rate=1e-3,
            weight_decay=1e-5,
            warm_up=1,
        ),
    ),
    "rpn": (_BOXES,),
    "ssdlite": (replace(_BOXES, head="ssdlite", learning_rate=5e-4),),
    "faster_rcnn": (replace(_BOXES, head="faster_rcnn", batch=4, learning_rate=1e-4),),
}
