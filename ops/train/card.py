"""The card of a training: how to repeat it, and what to expect from the weights."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from landseer.export.training.loop import Outcome
from landseer.ops.machine import processor

VERSIONS = ("landseer", "torch", "torchvision", "pytorch-metric-learning", "numpy")


@dataclass(frozen=True, kw_only=True)
class FinishedStage:
    """The result of one stage."""

    name: str
    measure: str
    outcome: Outcome
    about: Mapping[str, object]
    """The settings, the method's choices and a fingerprint of the data."""


def card(
    *, method: str, command: str, facts: Mapping[str, str], stages: Sequence[FinishedStage], skipped: Sequence[str]
) -> str:
    """Return the card as Markdown. facts: about data, backbone and machine."""
    lines = [f"# {method}", "", "Written by `landseer train`. To repeat it:", "", "```sh", command, "```", ""]
    lines += _table(("", ""), facts.items())
    lines += ["", "## Validation", "", "On classes that were not trained on.", ""]
    header = ("stage", "measure", "before", "best", "best epoch")
    lines += _table(header, ([one.name, one.measure, *_figures(one.outcome)] for one in stages))
    for one in stages:
        lines += ["", f"## Stage {one.name}", "", *_table(("", ""), sorted(one.about.items()))]
    if skipped:
        lines += ["", f"## {len(skipped)} skipped items", "", *(f"- {line}" for line in skipped[:20])]
    return "\n".join([*lines, "", *_ending()])


def machine(device: str) -> str:
    """Return the name of the machine's GPU or CPU."""
    import torch

    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, {platform.system()} {platform.release()}"
    return f"{torch.get_num_threads()} threads of {processor()}"


def _figures(outcome: Outcome) -> list[str]:
    return [f"{outcome.start:.2f}", f"{outcome.best:.2f}", str(outcome.epoch)]


def _ending() -> list[str]:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in VERSIONS)
    return [f"Made with {versions}, Python {platform.python_version()}.", ""]


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
