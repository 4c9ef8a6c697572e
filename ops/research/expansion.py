"""`make results-expansion`: expansions of queries and of databases, each by its number of neighbours.

Of the methods without a network; `make expansion-sweep` compares the network that ships with some of these. Writes
docs/reports/results-expansion.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from landseer.client.commands.output import console as plain_console
from landseer.ensemble.evaluation import Evaluation, Ids, evaluate
from landseer.ensemble.search.expansion.methods import AUGMENTATION_DEFAULTS, DEFAULTS, DQE, RANK_CURVE
from landseer.ensemble.search.expansion.recipe import PARAMETERS, Recipe
from landseer.ops.evaluate.in_process import InProcessSystem
from landseer.ops.evaluate.methods import NO_EXPANSION, NONE, Method
from landseer.ops.evaluate.readers import read
from landseer.ops.research.cells import INTERVALS, QUERIES, gain_cells
from landseer.ops.research.writing import add_report, made_by, written

PROGRAM = "python -m landseer.ops.research.expansion"
REPORT = Path("docs/reports/results-expansion.md")
COUNTS = (1, 2, 4, 8, 16, 32, 64)
OF_QUERIES = ("aqe", "aqewd", "aqewd-dir", "alphaqe", DQE, RANK_CURVE)
OF_DATABASES = ("aqe", "aqewd-dir", "alphaqe", RANK_CURVE)
Judge = Callable[[Method], Evaluation]


@dataclass(frozen=True, kw_only=True)
class Family:
    """A method at any number of neighbours."""

    name: str
    at: Callable[[int], Method]
    """From a number of neighbours to the method."""
    default: int
    """The number of neighbours by default."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Swept:
    """The figures of a family by number of neighbours: those of `COUNTS`, and the default."""

    family: Family
    figures: Mapping[int, Evaluation]

    @property
    def best(self) -> int:
        """The number of neighbours with the highest mAP."""
        return max(self.figures, key=lambda count: self.figures[count].map)


def query_families() -> Iterator[Family]:
    """Yield the expansions of queries."""
    for name in OF_QUERIES:
        yield Family(name=name, at=_expansion(name), default=DEFAULTS[name])


def _expansion(name: str) -> Callable[[int], Method]:
    return lambda count: Method(name=name, neighbours=count)


def database_families(name: str) -> tuple[Family, Family]:
    """Return the augmentation of the database by a method, and the same followed by that expansion of the query."""

    def alone(count: int) -> Method:
        return Method(name=NONE, database=_recipe(name, count))

    def both(count: int) -> Method:
        return Method(name=name, neighbours=count, database=_recipe(name, count))

    default = AUGMENTATION_DEFAULTS[name]
    return (
        Family(name=f"database {name}", at=alone, default=default),
        Family(name=f"database {name}, then {name}", at=both, default=default),
    )


def _recipe(name: str, count: int) -> Recipe:
    return Recipe(method=name, neighbours=count, parameter=PARAMETERS.get(name, 0.0))


def swept(judge: Judge, families: Sequence[Family]) -> list[Swept]:
    """Judge families at every number of neighbours. Those of one database are judged together, which is faster."""
    counts = sorted({*COUNTS, *(one.default for one in families)})
    found: list[dict[int, Evaluation]] = [{} for _ in families]
    for count in counts:
        for family, figures in zip(families, found, strict=True):
            if count in COUNTS or count == family.default:
                figures[count] = judge(family.at(count))
    return [Swept(family=one, figures=figures) for one, figures in zip(families, found, strict=True)]


def sweep_table(none: Evaluation, rows: Sequence[Swept]) -> str:
    """Return mAP and first hit right by number of neighbours."""
    lines = [
        f"| mAP / first right, by neighbours | {' | '.join(map(str, COUNTS))} |",
        "|---|" + "---:|" * len(COUNTS),
    ]
    for name, figures in [("none", dict.fromkeys(COUNTS, none)), *((one.family.name, one.figures) for one in rows)]:
        cells = (f"{100 * figures[k].map:.1f} / {100 * figures[k].mean_precisions[0]:.1f}" for k in COUNTS)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def gain_table(none: Evaluation, rows: Sequence[Swept], classes: Ids) -> str:
    """Return the gains over no expansion at the default and at the best number of neighbours. classes: [Q]."""
    columns = ("neighbours", "mAP gained", QUERIES, "first right gained", QUERIES)
    default, best = (f"{columns[0]} {which} | {' | '.join(columns[1:])}" for which in ("by default", "best here"))
    lines = [f"| expansion | {default} | {best} |", "|---|" + "---:|---|---|---|---|" * 2]
    for one in rows:
        cells = [one.family.name]
        for count in (one.family.default, one.best):
            figures = one.figures[count]
            cells += [
                str(count),
                *gain_cells(figures.aps, none.aps, classes),
                *gain_cells(figures.precisions[:, 0], none.precisions[:, 0], classes),
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Run. Returns what `written` does."""
    args = _parser().parse_args(argv)
    return written(lambda: _report(args), args.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--test", required=True, action="append", metavar="NAME=SPEC", help="a data set to search")
    parser.add_argument("--queries", type=int, help="queries of each data set, drawn with the seed (all)")
    parser.add_argument(
        "--repository", type=Path, default=Path("model_repository"), help="folder of exported models (%(default)s)"
    )
    parser.add_argument("--cache", type=Path, default=Path("var/evaluate/vectors.sqlite"), help="cache of descriptions")
    parser.add_argument("--seed", type=int, default=0)
    add_report(parser, REPORT)
    return parser


def _report(args: argparse.Namespace) -> str:
    tests = [_named(one) for one in args.test]
    system = InProcessSystem(args.repository, cache=args.cache, seed=args.seed)
    parts = [_part(system, name, spec, args) for name, spec in tests]
    return "\n".join([_head(args, system), *parts])


def _named(text: str) -> tuple[str, str]:
    name, equals, spec = text.partition("=")
    if not (name and equals and spec):
        raise ValueError(f"got --test {text!r}; expected NAME=SPEC, such as products=folder:photos/")
    return name, spec


def _part(system: InProcessSystem, name: str, spec: str, args: argparse.Namespace) -> str:
    console = plain_console(sys.stderr, pipe_width=None)
    data = read(spec).sampled(args.queries, args.seed)
    data = data.without(system.prepare(data, [NO_EXPANSION], console))
    rank, truths, classes = system.ranker(data), data.truths(), data.classes()

    def judge(method: Method) -> Evaluation:
        console.print(f"{name}: {method}")
        return evaluate(rank(method, lambda what, steps: lambda: None).orders, truths, ks=(1,))

    none = judge(NO_EXPANSION)
    rows = swept(judge, list(query_families()))
    for one in OF_DATABASES:
        rows += swept(judge, database_families(one))
    right = [len(truth.easy) for truth in truths]
    return f"""## {name}

{spec}: {len(data.queries):,} queries of {len(set(classes.tolist())):,} classes among {len(data.references):,} pictures,
{min(right)} to {max(right)} right answers each; without expansion {100 * none.map:.1f} mAP, first hit right
{100 * none.mean_precisions[0]:.1f}%.

{sweep_table(none, rows)}
{gain_table(none, rows, classes)}"""


def _head(args: argparse.Namespace, system: InProcessSystem) -> str:
    return f"""# Query and database expansion by number of neighbours

{made_by(PROGRAM, development=args.development)}

- {system.about.title}; the vectors are those that a server searches. alphaqe has alpha {PARAMETERS["alphaqe"]:g}.
- A database is augmented for each query as if the query were not in it. Where the query is expanded, too, it is by as
  many neighbours.
- *By default*: the number of neighbours of a search or of `landseer augment` that names none. *Best here*: the one with
  the highest mAP on these very queries, so its gain flatters. No number was tuned on other data.
- Networks are not among these methods: `make expansion-sweep` compares the one that ships.

{INTERVALS}
"""


if __name__ == "__main__":
    sys.exit(main())
