"""docs/reports/expansion-sweep.md: its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.search.expansion.methods import BESIDE_LATTQE, DEFAULTS, LATTQE
from landseer.export.models.lattqe import ExpansionNetwork
from landseer.ops.evaluate.figures import Estimate
from landseer.ops.evaluate.results import between
from landseer.ops.research.cells import INTERVALS
from landseer.ops.research.searched import SURE, Figures, Searched
from landseer.ops.research.sweep_databases import Row
from landseer.ops.research.sweep_default import ByDefault
from landseer.ops.train.instances import VIEWS

COUNTS = (1, 2, 4, 8, 16, 32, 64)
NONE, DQE, CURVE, FREE = "none", "dqe", "rank-curve", "free curve"
NETWORK, GATED, PAPER = "lattqe", "lattqe, gated", "the paper's"
MOST_LOST, MOST_FIRST_LOST = 0.3, 0.5
"""Percentage points of mAP and of first hits that an expansion may cost."""
DEFAULT = DEFAULTS[LATTQE]


class Piece(NamedTuple):
    """A data set, or a third of one, and the network that expands its queries."""

    searched: Searched
    network: ExpansionNetwork


Pieces = Sequence[Piece]


class Sweep(NamedTuple):
    """What searches by expanded descriptors alone found."""

    sets: Mapping[str, Pieces]
    """The data sets by name."""
    rows: Mapping[str, Mapping[str, Sequence[Figures]]]
    """The figures of each data set and method by number of neighbours, `COUNTS`. Not all data sets have all methods."""
    tuned: Mapping[str, int]
    """The number of neighbours of each method that is best on what the networks validate by; of all but trainings."""

    def things(self, name: str) -> NDArray[np.int64]:
        """Return the thing of each query of a data set; its pieces have none in common."""
        return np.concatenate([one.searched.classes for one in self.sets[name]])


class Judged(NamedTuple):
    """What was measured."""

    sweep: Sweep
    databases: Mapping[str, Sequence[Row]]
    """In augmented databases, by data set."""
    default: Sequence[ByDefault]


def text(head: str, train: str, notes: Sequence[str], judged: Judged) -> str:
    """Return the report. head: its first lines; train: what was learned from; notes: sentences about the methods."""
    sweep = judged.sweep
    told = "\n".join(f"- {note}" for note in notes)
    tables = "\n".join(by_number(sweep, name) for name in sweep.sets)
    return f"""# Expansions by number of neighbours

{head}

- Learned from {train}: photographs by class, views of them and drawn targets, each described by a whitening that did
  not learn from it and by one that did. Data sets that are *cross-validated* are of these, each third of the things
  with the one network that did not learn from it. The whitening did not learn from these pictures either, but for
  those *as served*. Drawn targets and views are {VIEWS} pictures of a thing.
- `{NETWORK}` is what ships: the mean of three networks. `{GATED}` expands only by neighbours of a probability of {SURE}
  or more, of a weight above 0. `{FREE}` is one weight for each rank, learned from the same episodes as the networks;
  `{CURVE}` ships. *Training 2* and *3* are LAttQE trained as the one that ships, with other seeds.
- Each method's *tuned* number of neighbours is best on what the networks validate by.
{told}

{INTERVALS}

## In short

By the global descriptor alone. Gain in mAP over no expansion at the tuned number of neighbours. In the second line the
most that any number of neighbours costs, mAP and first hit right, in bold where it is more than {MOST_LOST} or
{MOST_FIRST_LOST}.

{short(sweep)}
## LAttQE by number of neighbours

Gain over no expansion in mAP, below it in first hits right, with intervals over things.

{by_interval(sweep)}
## LAttQE against the best rival

With its default of {DEFAULT} neighbours, against the rival and number of neighbours that have the highest mAP on these
very queries, which flatters the rival.

{against(sweep)}
## In augmented databases

By the global descriptor alone, each database as if the query were not in it. Numbers are tuned on what the networks
validate by, in databases augmented alike. *Best here*: with the number of neighbours that is best on these queries.

{"".join(augmented(name, rows, sweep) for name, rows in judged.databases.items())}
## In the default search

Descriptor and words of keypoints, verified, in process, with the code of a service. `{LATTQE}` and `{CURVE}` take the
place of verified hits, as in a request that names them. As in a service, candidates near the query that `{LATTQE}`
expanded count as near, and with any other expansion those near the query itself; unless a row says otherwise. By
default verified hits are added, each with a weight of {BESIDE_LATTQE:g}, to what `{NETWORK}` makes of the query:
*verified, on {NETWORK}*.

{"".join(by_default(one) for one in judged.default)}
# Tables
{tables}"""


def short(sweep: Sweep) -> str:
    """Return the table of gains in mAP: each method at its number of neighbours, and its worst."""
    names = list(sweep.tuned)
    lines = [
        f"| data | none | {' | '.join(f'{name}, {sweep.tuned[name]}' for name in names)} |",
        "|---|---:|" + "---|" * len(names),
    ]
    for data, found in sweep.rows.items():
        none, things = found[NONE][0], sweep.things(data)
        chosen = [found[name][COUNTS.index(sweep.tuned[name])] for name in names]
        gains = (_gain(one.aps, none.aps, things) for one in chosen)
        lines.append(f"| {data} | {none.aps.mean():.1f} | {' | '.join(gains)} |")
        costs = (_worst(found[name], none) for name in names)
        lines.append(f"| | {none.first.mean():.1f} first | {' | '.join(costs)} |")
    return "\n".join(lines) + "\n"


def by_interval(sweep: Sweep) -> str:
    """Return the gains of the networks with intervals."""
    lines = [f"| | {' | '.join(map(str, COUNTS))} |", "|---|" + "---|" * len(COUNTS)]
    for data, found in sweep.rows.items():
        things = sweep.things(data)
        for name in (one for one in found if one == NETWORK or one.startswith(f"{NETWORK}, training")):
            for what, called in ((0, "mAP"), (1, "first")):
                base = _values(found[NONE][0], what)
                cells = (_gain(_values(one, what), base, things) for one in found[name])
                told = f"{data}: {name}" if not what else ""
                lines.append(f"| {told} {called} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def against(sweep: Sweep) -> str:
    """Return the network's gains, with its default number of neighbours, over none and over the best rival."""
    lines = [
        f"| data | none | {NETWORK}, {DEFAULT} | gain | first hit | best rival | {NETWORK} over it | trainings |",
        "|---|---:|---:|---|---|---|---|---|",
    ]
    place = COUNTS.index(DEFAULT)
    for data, found in sweep.rows.items():
        none, ours, things = found[NONE][0], found[NETWORK][place], sweep.things(data)
        rivals = {
            f"{name}, {count}": one
            for name in sweep.tuned
            if name not in (NETWORK, GATED, PAPER)
            for count, one in zip(COUNTS, found[name], strict=True)
        }
        best = max(rivals, key=lambda one: float(rivals[one].aps.mean()))
        others = [one[place] for name, one in found.items() if name.startswith(f"{NETWORK}, training")]
        reached = ", ".join(f"{one.aps.mean():.1f}" for one in (ours, *others))
        lines.append(
            f"| {data} | {_two(none)} | {_two(ours)} | {_gain(ours.aps, none.aps, things)} "
            f"| {_gain(ours.first, none.first, things)} | {best}: {_two(rivals[best])} "
            f"| {_gain(ours.aps, rivals[best].aps, things)} | {reached} |"
        )
    return "\n".join(lines) + "\n"


def augmented(name: str, rows: Sequence[Row], sweep: Sweep) -> str:
    """Return the table of augmented databases of a data set."""
    none = rows[0].tuned
    things = sweep.sets[name][0].searched.drawn(len(none.aps)).classes
    head = ("database and neighbours", "mAP / first", "mAP gained", "first gained", "best here", "mAP gained")
    lines = [f"| {' | '.join(head)} |", "|---|---:|---|---|---|---|"]
    for row in rows:
        one, best = row.tuned, row.best
        gained = (
            ("", "") if row is rows[0] else (_gain(one.aps, none.aps, things), _gain(one.first, none.first, things))
        )
        here = ("", "") if best is None else (f"{row.best_count}: {_two(best)}", _gain(best.aps, none.aps, things))
        lines.append(f"| {' | '.join((row.name, _two(one), *gained, *here))} |")
    table = "\n".join(lines)
    return f"\n**{name}**, {len(none.aps):,} queries of {len(np.unique(things))} things:\n\n{table}\n"


def by_default(judged: ByDefault) -> str:
    """Return the table of the default search of a data set."""
    names, rows = list(judged.rows), judged.rows
    none, trusted = (rows[name] for name in names[:2])
    classes = judged.kind.classes
    head = ("expansion", "mAP", "gain", "first hit", "gain", f"mAP over `{names[1]}`", f"first hit over `{names[1]}`")
    lines = [f"| {' | '.join(head)} |", "|---|---:|---|---:|---|---|---|"]
    for name, one in rows.items():
        cells = [name]
        for what in (0, 1):
            values, base = _values(one, what), _values(none, what)
            cells += [f"{values.mean():.1f}", "" if one is none else _gain(values, base, classes)]
        for what in (0, 1):
            plain = one is none or one is trusted
            cells.append("" if plain else _gain(_values(one, what), _values(trusted, what), classes))
        lines.append(f"| {' | '.join(cells)} |")
    about = f"{judged.kind.data.summary()}; without a verified hit: {judged.unverified}"
    return f"\n**{judged.kind.name}**: {about}.\n\n" + "\n".join(lines) + "\n"


def by_number(sweep: Sweep, name: str) -> str:
    """Return the table of all methods on a data set."""
    pieces = sweep.sets[name]
    positives = np.concatenate([one.searched.relevant.sum(axis=1) for one in pieces])
    among = " and ".join(f"{len(one.searched.database):,}" for one in pieces)
    answers = f"{int(positives.min())} to {int(positives.max())} right answers"
    size = f"{len(positives):,} queries of {len(np.unique(sweep.things(name)))} things"
    lines = [
        f"\n## {name}\n",
        f"{size} among {among} pictures, {answers}. mAP / first hit right.\n",
        f"| neighbours | {' | '.join(map(str, COUNTS))} |",
        "|---|" + "---:|" * len(COUNTS),
    ]
    lines += [f"| {method} | {' | '.join(map(_two, found))} |" for method, found in sweep.rows[name].items()]
    return "\n".join(lines) + "\n"


def _two(one: Figures) -> str:
    return f"{one.aps.mean():.1f} / {one.first.mean():.1f}"


def _values(one: Figures, what: int) -> NDArray[np.float64]:
    return one.first if what else one.aps


def _worst(found: Sequence[Figures], none: Figures) -> str:
    """Return the most that a method costs, mAP and first hits, in bold if that is too much."""
    lost, first = (
        min(float(_values(one, what).mean() - _values(none, what).mean()) for one in found) for what in (0, 1)
    )
    harm = "**" * (lost < -MOST_LOST or first < -MOST_FIRST_LOST)
    return f"{harm}{lost:+.1f}, {first:+.1f}{harm}"


def _gain(values: NDArray[np.float64], base: NDArray[np.float64], things: NDArray[np.int64]) -> str:
    estimate = Estimate.of((values - base) / 100, things)
    return f"{100 * estimate.value:+.1f} ({between(estimate.over_classes or estimate.over_queries, sign='+')})"
