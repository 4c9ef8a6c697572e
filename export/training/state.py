"""Where a training stands: all that is needed to go on as if it had never been stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from landseer.export.training.curves import CurveRow, plain
from landseer.export.training.errors import TrainingError
from landseer.export.training.files import write_whole

FORMAT = "landseer training 1"
WITHOUT_EFFECT = ("settings.checkpoint_every",)
"""What may differ between a run and its continuation."""


@dataclass(kw_only=True)
class Progress:
    """The place in the run. It changes with every step."""

    epoch: int = 0
    """That is under way; the number of epochs once all are done."""
    step: int = 0
    """Steps of it that are done."""
    total: int = 0
    """Steps done in all."""
    mined: Any = None
    """What the task found at the beginning of the epoch; plain data and tensors."""
    begun: bool = False
    """Whether `mined` is of this epoch."""
    best: float | None = None
    best_epoch: int = 0
    """After how many epochs the best validation was."""
    rows: list[CurveRow] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    """Of the steps since the last row."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What a file holds."""

    about: Mapping[str, Any]
    """What the run is of, flat; a run goes on only if it is the same."""
    progress: Progress
    module: Mapping[str, Any]
    optimiser: Mapping[str, Any]


def write_state(checkpoint: RunState, path: Path) -> None:
    """Write atomically; the one before stays until this one is on the disk."""
    progress = asdict(checkpoint.progress) | {"rows": plain(checkpoint.progress.rows)}
    contents = {
        "format": FORMAT,
        "about": dict(checkpoint.about),
        "progress": progress,
        "module": dict(checkpoint.module),
        "optimiser": dict(checkpoint.optimiser),
    }
    write_whole(path, lambda staged: torch.save(contents, staged))


def read_state(path: Path) -> RunState:
    """Read without running anything that the file asks for. TrainingError says what is wrong with it."""
    if not path.is_file():
        raise TrainingError(f"there is no {path} to go on from; start without --resume")
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrainingError(f"{path} is not a state of a training: {reason}") from error
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        found = contents.get("format") if isinstance(contents, dict) else type(contents).__name__
        raise TrainingError(f"{path} is of format {found!r}; expected {FORMAT!r}")
    fields = contents["progress"]
    progress = Progress(**(fields | {"rows": [CurveRow(**row) for row in fields["rows"]]}))
    return RunState(
        about=contents["about"], progress=progress, module=contents["module"], optimiser=contents["optimiser"]
    )


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """TrainingError with everything that differs between the run in a file and the one that was asked for."""
    names = [name for name in {**before, **now} if name not in WITHOUT_EFFECT]
    missing = "nothing"
    other = [
        f"{name} was {before.get(name, missing)}, is {now.get(name, missing)}"
        for name in names
        if before.get(name, missing) != now.get(name, missing)
    ]
    if other:
        raise TrainingError(
            f"{path} is of another run ({'; '.join(other)}); go on with what was, or start anew elsewhere"
        )
