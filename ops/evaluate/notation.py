"""How methods are written on the command line: [DATABASE+]METHOD, or DATABASE alone."""

from __future__ import annotations

import math
from dataclasses import replace

from landseer.ensemble.expansion.diffusion import NEIGHBOURS, QUERY_NEIGHBOURS
from landseer.ensemble.expansion.methods import DEFAULTS, MOST, limits
from landseer.ensemble.expansion.recipe import Recipe, recipe
from landseer.ensemble.expansion.weights import ALPHA
from landseer.ops.evaluate.methods import DATABASE_NAMES, DIFFUSION, NO_EXPANSION, NONE, RANKERS, Method
from landseer.ops.processes import OpsError

_AUGMENTING = {name: method for method, name in DATABASE_NAMES.items()}


def parse_all(text: str, *, positions: int) -> list[Method]:
    """Read METHOD,METHOD,..., each once. OpsError."""
    return list(dict.fromkeys(parse(one, positions=positions) for one in text.split(",")))


def parse(text: str, *, positions: int) -> Method:
    """Read [DATABASE+]METHOD or DATABASE; positions: how many neighbours the exported LAttQE knows. OpsError."""
    first, *rest = (part.strip() for part in text.split("+"))
    name = first.split(":")[0]
    if name not in _AUGMENTING:
        if rest:
            known = ", ".join(_AUGMENTING)
            raise OpsError(f"--methods has {text!r}; expected before the + one of {known}, such as alphadba:10:3")
        return _ranking(first, positions=positions)
    if len(rest) > 1 or rest == [""] or (rest and rest[0].split(":")[0] in (DIFFUSION, *_AUGMENTING)):
        known = ", ".join([NONE, *DEFAULTS])
        raise OpsError(f"--methods has {text!r}; expected behind the + one of {known}, such as alphaqe:10:3")
    ranking = _ranking(rest[0], positions=positions) if rest else NO_EXPANSION
    return replace(ranking, database=_database(first, positions=positions))


def _database(text: str, *, positions: int) -> Recipe:
    """Read NAME[:NEIGHBOURS[:PARAMETER]] by the rules of `landseer augment --method`, in the papers' names."""
    name, *numbers = text.split(":")
    try:
        return recipe(":".join([_AUGMENTING[name], *numbers]), positions=positions)
    except ValueError as error:
        raise OpsError(f"--methods has {text!r}, augmentation by {_AUGMENTING[name]}: {error}") from error


def _ranking(text: str, *, positions: int) -> Method:
    name, *numbers = text.split(":")
    if name not in RANKERS:
        known = ", ".join([*RANKERS, *_AUGMENTING])
        raise OpsError(f"--methods names {name!r}; expected some of {known}, such as alphaqe:10:3")
    if name == DIFFUSION:
        return _diffusion(text, numbers)
    if name != NONE:
        return _expansion(text, name, numbers, most=limits(positions)[name])
    if numbers:
        raise OpsError(f"--methods has {text!r}; expected {NONE} without numbers")
    return NO_EXPANSION


def _expansion(text: str, name: str, numbers: list[str], *, most: int) -> Method:
    try:
        neighbours = int(numbers[0]) if numbers else min(DEFAULTS[name], most)
        alpha = float(numbers[1]) if len(numbers) > 1 else ALPHA
    except ValueError as error:
        raise OpsError(f"--methods has {text!r}; expected NAME:NEIGHBOURS:ALPHA, such as alphaqe:10:3") from error
    if len(numbers) > (2 if name == "alphaqe" else 1) or not 1 <= neighbours <= most or not 0 <= alpha < math.inf:
        raise OpsError(
            f"--methods has {text!r}; expected {name} with 1 to {most} neighbours, and an alpha of 0 or more for "
            "alphaqe alone"
        )
    return Method(name=name, neighbours=neighbours, alpha=alpha)


def _diffusion(text: str, numbers: list[str]) -> Method:
    given = [int(one) if one.isdecimal() else 0 for one in numbers]
    if len(given) > 2 or not all(1 <= one <= MOST for one in given):
        raise OpsError(
            f"--methods has {text!r}; expected diffusion:NEIGHBOURS:QUERY_NEIGHBOURS, each from 1 to {MOST}, "
            f"such as diffusion:{NEIGHBOURS}:{QUERY_NEIGHBOURS}"
        )
    neighbours, query_neighbours = [*given, *(NEIGHBOURS, QUERY_NEIGHBOURS)[len(given) :]]
    return Method(name=DIFFUSION, neighbours=neighbours, query_neighbours=query_neighbours)
