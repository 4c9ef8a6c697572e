"""Reading methods from the command line: [DATABASE+][METHOD+][RERANKING], where any one part suffices."""

from __future__ import annotations

import math
from dataclasses import replace

from landseer.ensemble.asmk.codebook import MOST_WORDS
from landseer.ensemble.search.expansion.methods import DEFAULTS, MOST, VERIFIED, VERIFIED_NEIGHBOURS, limits
from landseer.ensemble.search.expansion.recipe import Recipe, recipe
from landseer.ensemble.search.expansion.weights import ALPHA
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.diffusion import NEIGHBOURS, QUERY_NEIGHBOURS
from landseer.ops.evaluate.methods import DATABASE_NAMES, DIFFUSION, NO_EXPANSION, NONE, RANKERS, WHOLE, Method
from landseer.ops.evaluate.needs import WORDY
from landseer.ops.evaluate.reranking import CANDIDATES, FUSING, RERANKERS, WEIGHT, Reranking

_AUGMENTING = {name: method for method, name in DATABASE_NAMES.items()}


def parse_all(text: str, *, positions: int) -> list[Method]:
    """Read METHOD,METHOD,..., each once. OpsError."""
    return list(dict.fromkeys(parse(one, positions=positions) for one in text.split(",")))


def parse(text: str, *, positions: int) -> Method:
    """Read [DATABASE+][METHOD+][RERANKING]. positions: the most neighbours that LAttQE takes. OpsError."""
    first, *rest = (part.strip() for part in text.split("+"))
    for name in map(_name, (first, *rest)):
        if name in WHOLE:
            return _whole(text, name)
    reranking = None
    if _name([first, *rest][-1]) in RERANKERS:
        reranking = _reranking([first, *rest][-1])
        first, *rest = [first, *rest][:-1] or [NONE]
    return replace(_before(text, first, rest, positions=positions), reranking=reranking)


def _before(text: str, first: str, rest: list[str], *, positions: int) -> Method:
    """Read [DATABASE+]METHOD or DATABASE."""
    if _name(first) not in _AUGMENTING:
        if rest:
            known = ", ".join(_AUGMENTING)
            raise OpsError(f"--methods has {text!r}; before `+` expected one of {known}, such as alphadba:10:3")
        return _ranking(first, positions=positions)
    if len(rest) > 1 or rest == [""] or (rest and _name(rest[0]) in (DIFFUSION, *WORDY, *_AUGMENTING)):
        known = ", ".join([NONE, *DEFAULTS, *RERANKERS])
        raise OpsError(f"--methods has {text!r}; after `+` expected one of {known}, such as alphaqe:10:3")
    ranking = _ranking(rest[0], positions=positions) if rest else NO_EXPANSION
    return replace(ranking, database=_database(first, positions=positions))


def _whole(text: str, name: str) -> Method:
    if name == VERIFIED:
        return _verified(text.strip())
    if text.strip() != name:
        raise OpsError(f"--methods has {text!r}, but {name} takes no numbers and cannot be combined with `+`")
    return Method(name=name)


def _verified(text: str) -> Method:
    name, *numbers = text.split(":")
    given = [int(one) if one.isdecimal() else 0 for one in numbers] or [VERIFIED_NEIGHBOURS]
    if name != VERIFIED or len(given) > 1 or not 1 <= given[0] <= MOST:
        raise OpsError(
            f"--methods has {text!r}; expected {VERIFIED}:NEIGHBOURS, from 1 to {MOST}, alone, such as {VERIFIED}:10"
        )
    return Method(name=VERIFIED, neighbours=given[0])


def _name(text: str) -> str:
    return text.split(":", maxsplit=1)[0]


def _reranking(text: str) -> Reranking:
    name, *numbers = text.split(":")
    try:
        candidates = int(numbers[0]) if numbers else CANDIDATES
        weight = float(numbers[1]) if len(numbers) > 1 else WEIGHT
    except ValueError:
        candidates, weight = 0, WEIGHT
    most = 2 if name in FUSING else 1
    if len(numbers) > most or not 1 <= candidates <= MOST or not 0 <= weight <= 1:
        numbers_of = "CANDIDATES:WEIGHT" if name in FUSING else "CANDIDATES"
        of_weight = ", and a weight from 0 to 1" if name in FUSING else ""
        raise OpsError(
            f"--methods has {text!r}; expected {name}:{numbers_of}, with 1 to {MOST} candidates{of_weight}, such as "
            f"{name}:{CANDIDATES}"
        )
    return Reranking(name=name, candidates=candidates, weight=weight)


def _database(text: str, *, positions: int) -> Recipe:
    """Read NAME[:NEIGHBOURS[:PARAMETER]] like `landseer augment --method`, but with the papers' names."""
    name, *numbers = text.split(":")
    try:
        return recipe(":".join([_AUGMENTING[name], *numbers]), positions=positions)
    except ValueError as error:
        raise OpsError(f"--methods has {text!r}, augmentation by {_AUGMENTING[name]}: {error}") from error


def _ranking(text: str, *, positions: int) -> Method:
    name, *numbers = text.split(":")
    if name not in RANKERS:
        known = ", ".join(dict.fromkeys([*RANKERS, *_AUGMENTING, *RERANKERS, *WHOLE]))
        raise OpsError(f"--methods names {name!r}; expected some of {known}, such as alphaqe:10:3")
    if name == DIFFUSION:
        return _diffusion(text, numbers)
    if name in WORDY:
        return _wordy(text, name, numbers)
    if name != NONE:
        return _expansion(text, name, numbers, most=limits(positions)[name])
    if numbers:
        raise OpsError(f"--methods has {text!r}; expected {NONE} without numbers")
    return NO_EXPANSION


def _wordy(text: str, name: str, numbers: list[str]) -> Method:
    given = [int(one) if one.isdecimal() else 0 for one in numbers]
    if len(given) > 1 or not all(1 <= one <= MOST_WORDS for one in given):
        raise OpsError(f"--methods has {text!r}; expected {name}:WORDS, from 1 to {MOST_WORDS:,}, such as {name}:1024")
    return Method(name=name, words=given[0] if given else 0)


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
