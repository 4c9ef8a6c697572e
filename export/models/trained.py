"""Read best.safetensors of `landseer train`: a trunk with its head, or region proposals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from landseer.export.models.torch_file import WeightsError

SUFFIX = ".safetensors"
EXPECTED = "expected best.safetensors of landseer train with trunk.* and head.*, from a method such as cider or triplet"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trunk and the head that was trained with it."""

    path: Path
    about: Mapping[str, Any]
    """The file's training metadata; empty in files of early versions."""
    trunk: Mapping[str, Tensor]
    """By the names of `Trunk`, float32."""
    head: Mapping[str, Tensor]
    """By the names of the head's module, float32."""

    @property
    def headless(self) -> bool:
        """Whether it is a trunk alone: weights like any other."""
        return not self.head and not self.about.get("method.head")

    @property
    def source(self) -> str:
        """Name the file and its training, for people."""
        side, sha256 = self.about.get("data.long_side"), hashlib.sha256(self.path.read_bytes()).hexdigest()
        told = f", epoch {self.about['epoch']}" if "epoch" in self.about else ""
        told += f", long side {side} px" if side else ""
        return f"{self.path.absolute().parent.name}/{self.path.name} of landseer train{told}, sha256 {sha256[:16]}"

    def descriptor(self, asked: str | None) -> str:
        """Return the kind of head, a key of `HEADS`. WeightsError if another was requested, or if it is unknown."""
        found = self.about.get("method.head") or asked
        if found is None:
            raise WeightsError(f"{self.path} does not say which head it holds: name it with --descriptor")
        if asked not in (None, found):
            raise WeightsError(f"{self.path} holds a {found} head; got --descriptor {asked}")
        return str(found)

    def variant(self, backbone: str, asked: str, variants: tuple[str, ...]) -> str:
        """Return the trunk's variant of a backbone. WeightsError if it is of another backbone, or if it is unknown.

        asked: one of `variants`; any other value requests none.
        """
        name, _, known = str(self.about.get("trunk", "")).partition(" ")
        if name and name != backbone:
            raise WeightsError(f"{self.path} holds a {name}; got --backbone {backbone}")
        wanted = asked if asked in variants else None
        found = known or wanted or (variants[0] if len(variants) == 1 else None)
        if found is None:
            options = " or ".join(f"--stride {one}" for one in variants)
            raise WeightsError(f"{self.path} does not say which {backbone} it holds: pass {options}")
        if wanted not in (None, found):
            raise WeightsError(f"{self.path} holds a {backbone} {found}; got --stride {wanted}")
        return found

    def check_improved(self) -> None:
        """Raise WeightsError for initial weights, which no epoch improved on."""
        check_improved(self.about, self.path)


def is_trained(path: Path) -> bool:
    """Return whether a safetensors file is of Landseer, rather than published weights or no such file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about, names = file.metadata() or {}, file.keys()
    except (SafetensorError, OSError):
        return False
    ours = "landseer" in about or about.get("format", "").startswith("landseer")
    return ours or any(name.startswith("trunk.") for name in names)


def backbone_of(path: Path) -> str | None:
    """Return the backbone that a file of `landseer train` names; None for other files, and for none."""
    if path.suffix != SUFFIX or not path.is_file() or not is_trained(path):
        return None
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return str(_about(file.metadata() or {}).get("trunk", "")).partition(" ")[0] or None


def read_trained(path: Path) -> Trained:
    """Read a trunk and its head. WeightsError if the file holds anything else."""
    state, about = read_tensors(path)
    parts = {name: _section(state, name) for name in ("trunk", "head")}
    if str(about.get("format", "")).startswith("landseer parts"):
        raise WeightsError(f"{path} holds trained parts: pass it with --parts; {EXPECTED}")
    if about.get("method.kind") == "boxes" or _section(state, "rpn"):
        kind = about.get("method.head", "rpn")
        raise WeightsError(f"{path} holds a detector: pass it with --detector {kind} --detector-weights; {EXPECTED}")
    if not parts["trunk"]:
        # A head alone would fit any trunk with as many channels, but be right for only one.
        what = "a head without the trunk that it was trained on" if parts["head"] else "neither trunk.* nor head.*"
        raise WeightsError(f"{path} holds {what}; {EXPECTED}")
    return Trained(path=path, about=about, **parts)


def read_proposals(path: Path, trunk: str) -> tuple[dict[str, Tensor], str]:
    """Read the weights of `landseer train rpn`. → state of `RegionProposals`, and a note about them or "".

    trunk: `trunk_sha256` of the trunk to use them on. WeightsError if they were trained on another trunk, or if
    training did not improve on the initial weights.
    """
    state, about = read_tensors(path)
    return _section(state, "rpn") or state, check_trunk(about, path, trunk)


def check_trunk(about: Mapping[str, Any], path: Path, trunk: str) -> str:
    """Return a note if proposals do not name their trunk, else "". See `read_proposals`."""
    check_improved(about, path)
    found = about.get("trunk_sha256")
    if found not in (None, trunk):
        raise WeightsError(
            f"{path} holds region proposals of another trunk ({str(found)[:16]}, not {trunk[:16]}): pass the "
            f"weights they were trained on with --weights, or train new ones: landseer train rpn DATA --out DIR"
        )
    return "" if found else "does not say which trunk it was trained on"


def check_improved(about: Mapping[str, Any], path: Path) -> None:
    """Raise WeightsError for initial weights, which no epoch improved on."""
    if about.get("epoch") == 0:
        raise WeightsError(f"{path} holds the initial weights, which no epoch improved on: train longer")


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors, floats as float32, and the training metadata. WeightsError for any other file."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsError(f"no weights file at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: _single(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
            return state, _about(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors: {error}") from error


def _about(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the metadata of `landseer train`, flat; for other files their own."""
    if "landseer" not in metadata:
        return dict(metadata)
    found: dict[str, Any] = json.loads(metadata["landseer"])
    return found


def _section(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}


def _single(x: Tensor) -> Tensor:
    return x.to(torch.float32) if x.is_floating_point() else x
