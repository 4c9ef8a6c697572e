"""A method with its numbers, as `--methods` and `--method` write it: alphaqe:10:3."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from landseer.ensemble.search.expansion.methods import AUGMENTATION_DEFAULTS, LATTQE, limits
from landseer.ensemble.search.expansion.weights import ALPHA, TEMPERATURE

PARAMETERS: Mapping[str, float] = {"alphaqe": ALPHA, LATTQE: TEMPERATURE}
"""Default of the second number, for the methods that take one: alpha, or the temperature of LAttDBA."""
EXAMPLE = "alphaqe:10:3"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the vectors of a database are augmented."""

    method: str
    """A key of `AUGMENTATION_DEFAULTS`."""
    neighbours: int
    """k, without the picture itself; a smaller database gives fewer."""
    parameter: float = 0.0
    """Alpha of alphaqe, T of lattqe; unused by the others."""

    def __str__(self) -> str:
        """The command line's notation; `recipe` reads it back."""
        parameter = f":{self.parameter!r}" if self.method in PARAMETERS else ""
        return f"{self.method}:{self.neighbours}{parameter.removesuffix('.0')}"


def recipe(text: str, *, positions: int) -> Recipe:
    """Read NAME[:NEIGHBOURS[:PARAMETER]]. ValueError says what is expected.

    positions: the number of neighbours that the exported LAttQE takes.
    """
    name, *rest = text.strip().split(":")
    if name not in AUGMENTATION_DEFAULTS:
        known = ", ".join(AUGMENTATION_DEFAULTS)
        raise ValueError(f"got the method {name!r}; expected one of {known}, such as {EXAMPLE}")
    most = limits(positions)[name]
    try:
        neighbours = int(rest[0]) if rest else min(AUGMENTATION_DEFAULTS[name], most)
        parameter = float(rest[1]) if len(rest) > 1 else PARAMETERS.get(name, 0.0)
    except ValueError as error:
        raise ValueError(f"got the method {text!r}; expected NAME:NEIGHBOURS:PARAMETER, such as {EXAMPLE}") from error
    if not 0 <= neighbours <= most:
        raise ValueError(f"got {neighbours} neighbours for {name}; expected 0 to {most}")
    _check_parameter(name, parameter, given=len(rest) - 1)
    return Recipe(method=name, neighbours=neighbours, parameter=parameter)


def _check_parameter(name: str, parameter: float, *, given: int) -> None:
    if given > (name in PARAMETERS):
        takes = "NAME:NEIGHBOURS:PARAMETER" if name in PARAMETERS else "NAME:NEIGHBOURS"
        raise ValueError(f"got too many numbers for {name}; expected {takes}")
    if not math.isfinite(parameter) or parameter < 0 or (name == LATTQE and parameter == 0):
        raise ValueError(f"got the parameter {parameter:g} for {name}; expected alpha of 0 or more, T above 0")
