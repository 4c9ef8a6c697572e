"""The state of a training: everything needed to resume it exactly."""

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
"""Settings that may change when a run resumes."""


@dataclass(kw_only=True)
class Progress:
    """The position in a run; changes with every step."""

    epoch: int = 0
    """Current epoch; the number of epochs once all are done."""
    step: int = 0
    """Steps done in this epoch."""
    total: int = 0
    """Steps done in all."""
    mined: Any = None
    """What the task mined at the start of the epoch; plain data and tensors."""
    begun: bool = False
    """Whether `mined` belongs to this epoch."""
    best: float | None = None
    best_epoch: int = 0
    """Epochs done at the best validation."""
    rows: list[CurveRow] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    """Losses since the last row."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """The contents of a state file."""

    about: Mapping[str, Any]
    """Identity of the run, flat; it must be equal to resume."""
    progress: Progress
    module: Mapping[str, Any]
    optimiser: Mapping[str, Any]


def write_state(checkpoint: RunState, path: Path) -> None:
    """Write atomically; the old state stays until the new one is on disk."""
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
    """Read without running code from the file. TrainingError says what is wrong."""
    if not path.is_file():
        raise TrainingError(f"no {path} to resume from; start without --resume")
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrainingError(f"{path} is not a training state: {reason}") from error
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        found = contents.get("format") if isinstance(contents, dict) else type(contents).__name__
        raise TrainingError(f"{path} is of format {found!r}; expected {FORMAT!r}")
    fields = contents["progress"]
    progress = Progress(**(fields | {"rows": [CurveRow(**row) for row in fields["rows"]]}))
    return RunState(
        about=contents["about"], progress=progress, module=contents["module"], optimiser=contents["optimiser"]
    )


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Raise TrainingError, listing all differences, if the saved run is not the requested one."""
    names = [name for name in {**before, **now} if name not in WITHOUT_EFFECT]
    missing = "nothing"
    other = [
        f"{name} was {before.get(name, missing)}, is {now.get(name, missing)}"
        for name in names
        if before.get(name, missing) != now.get(name, missing)
    ]
    if other:
        raise TrainingError(
            f"{path} is of another run ({'; '.join(other)}); resume with the same options, or start in another folder"
        )
