"""Trained parts: a head, its whitening and two projections in one small safetensors file.

A file belongs to the trunk that it was trained on. Its metadata holds the hash of the trunk's weights, and the file is
rejected for any other trunk. Weights are stored in half precision.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from landseer.export.models.torch_file import WeightsError

SHIPPED = Path(__file__).parent / "trained"
"""Shipped parts, each with a card beside it."""
SECTIONS = ("head", "whitening", "reduction", "locals", "patches")
FORMAT = "landseer parts 1"


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Trained tensors by section."""

    backbone: str
    trunk_sha256: str
    descriptor: str
    """Kind of head, a key of `HEADS`."""
    learned: tuple[str, ...]
    """Trained parts: attention, whitening, reduction, …"""
    tensors: Mapping[str, Tensor]
    """SECTION.NAME → tensor, float32."""
    card: Mapping[str, Any] = field(default_factory=dict)
    """Data, seed, command and results of the training."""

    def section(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of a section by the module's parameter names."""
        return {key.removeprefix(f"{name}."): x for key, x in self.tensors.items() if key.startswith(f"{name}.")}

    def only(self, *names: str) -> Parts:
        """Return only the named sections."""
        tensors = {key: x for key, x in self.tensors.items() if key.partition(".")[0] in names}
        return replace(self, learned=tuple(part for part in self.learned if part in names), tensors=tensors)

    def beside(self, others: Parts) -> Parts:
        """Return these parts, with the sections of others of the same trunk that they lack."""
        missing = tuple(part for part in others.learned if part not in self.learned and others.section(part))
        return replace(
            self,
            learned=(*self.learned, *missing),
            tensors={**others.only(*missing).tensors, **self.tensors},
            card={**{part: others.card[part] for part in missing if part in others.card}, **self.card},
        )

    def fill(self, name: str, module: nn.Module) -> None:
        """Load a section into its module, if the section exists. WeightsError if it does not fit."""
        found = self.section(name)
        if not found:
            return
        try:
            module.load_state_dict(found)
        except RuntimeError as error:
            why = str(error).splitlines()[1].strip()
            raise WeightsError(f"the trained {name} does not fit a {self.descriptor} head: {why}") from error


def write_parts(parts: Parts, path: Path) -> None:
    """Write atomically, with floats in half precision."""
    unknown = {key.partition(".")[0] for key in parts.tensors} - set(SECTIONS)
    if unknown:
        raise ValueError(f"got sections {sorted(unknown)}; expected {', '.join(SECTIONS)}")
    about = {"format": FORMAT, "backbone": parts.backbone, "trunk_sha256": parts.trunk_sha256}
    about |= {
        "descriptor": parts.descriptor,
        "learned": json.dumps(parts.learned),
        "card": json.dumps(dict(parts.card)),
    }
    staged = path.with_name(f".{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: _halved(x) for key, x in parts.tensors.items()}, staged, metadata=about)
    staged.chmod(0o644)  # safetensors makes it readable by the owner only
    staged.replace(path)


def read_parts(path: Path) -> Parts:
    """Read parts. WeightsError if the file holds anything else."""
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT:
                raise WeightsError(f"{path} is of format {about.get('format')!r}; expected {FORMAT!r}")
            return Parts(
                backbone=about["backbone"],
                trunk_sha256=about["trunk_sha256"],
                descriptor=about["descriptor"],
                learned=tuple(json.loads(about["learned"])),
                tensors={key: _widened(file.get_tensor(key)) for key in file.keys()},  # noqa: SIM118
                card=json.loads(about["card"]),
            )
    except FileNotFoundError as error:
        raise WeightsError(f"no trained parts at {path}") from error
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise WeightsError(f"{path} is not a file of trained parts: {error}") from error


def shipped(trunk_sha256: str, folder: Path = SHIPPED) -> dict[str, Path]:
    """Return the shipped files for a trunk, by descriptor."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        parts = read_parts(path)
        if parts.trunk_sha256 == trunk_sha256:
            found[parts.descriptor] = path
    return found


def _halved(x: Tensor) -> Tensor:
    return (x.half() if x.is_floating_point() else x).contiguous()


def _widened(x: Tensor) -> Tensor:
    return x.to(torch.float32) if x.is_floating_point() else x
