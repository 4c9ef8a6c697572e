"""A trained LAttQE in one safetensors file.

A relational network, or the mean of some, fits descriptors of every size; the paper's network only the size that it was
trained on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.models.lattqe import ExpansionNetwork, LAttQE
from landseer.export.models.mean_lattqe import MeanLAttQE
from landseer.export.models.relational import RelationalLAttQE
from landseer.export.models.torch_file import WeightsError

KINDS: Mapping[str, type[ExpansionNetwork]] = {
    "relational": RelationalLAttQE,
    "mean": MeanLAttQE,
    "paper": LAttQE,
}
FORMAT = "landseer lattqe 2"
NAME = "lattqe.safetensors"
SHIPPED = Path(__file__).parent / "trained" / "lattqe"
"""Networks that ship, named after the backbone and the descriptor that they learned on."""


def shipped_lattqe(backbone: str, descriptor: str) -> Path | None:
    """Return the network that learned on a backbone's descriptor with its shipped parts; None if there is none."""
    path = SHIPPED / f"{backbone}-{descriptor}.safetensors"
    return path if path.is_file() else None


def write_lattqe(network: ExpansionNetwork, path: Path, card: Mapping[str, Any], *, descriptor: str = "") -> None:
    """Write atomically. card: data, command, seed and figures of the training. descriptor: as of `learned_on`."""
    form = {name: value for name, value in network.shape.items() if name != "sizes"}
    form["kind"] = next(kind for kind, made in KINDS.items() if isinstance(network, made))
    about = {"format": FORMAT, "form": json.dumps(form), "card": json.dumps(dict(card)), "descriptor": descriptor}
    staged = path.with_name(f".{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.detach().contiguous() for name, value in network.state_dict().items()}, staged, about)
    staged.chmod(0o644)  # safetensors makes it readable by the owner only
    staged.replace(path)


def learned_on(path: Path) -> str:
    """Return the SHA-256 of what made the descriptors that a network learned on; empty if the file does not say."""
    try:
        with safe_open(path, framework="pt") as file:
            return str((file.metadata() or {}).get("descriptor", ""))
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error


def read_lattqe(path: Path, sizes: Sizes) -> ExpansionNetwork:
    """Read a network for descriptors of the given sizes. WeightsError says what is wrong with the file."""
    if not path.is_file():
        raise WeightsError(
            f"there is no trained LAttQE at {path}; train one with: landseer train lattqe DATA --out DIR"
        )
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT:
                raise WeightsError(f"{path} is of format {about.get('format')!r}; expected {FORMAT!r}")
            form = json.loads(about["form"])
            network = KINDS[form.pop("kind")](sizes=sizes, **form)
            network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path} holds no trained LAttQE for {sizes.neighbours} neighbours: {error}") from error
    return network.eval()
