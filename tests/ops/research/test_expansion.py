"""`make results-expansion`: what it compares, and its tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from landseer.ensemble.evaluation import Evaluation, Truth, evaluate
from landseer.ensemble.search.expansion.methods import limits
from landseer.ops.evaluate.database import Databases
from landseer.ops.evaluate.methods import NO_EXPANSION, Method, rankings
from landseer.ops.research.expansion import (
    COUNTS,
    OF_DATABASES,
    Family,
    Judge,
    Swept,
    database_families,
    gain_table,
    main,
    query_families,
    sweep_table,
    swept,
)

LABELS = np.repeat(np.arange(6), 8)


@pytest.fixture
def judge() -> Judge:
    """Searches 48 vectors of six classes for each other."""
    rng, own = np.random.default_rng(0), range(48)
    rows = rng.standard_normal((6, 16))[LABELS] + 1.5 * rng.standard_normal((48, 16))
    vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    databases = Databases(vectors, own, attention=lambda: pytest.fail("no method has a network"))
    truths = [Truth(easy=np.setdiff1d(np.flatnonzero(LABELS[row] == LABELS), [row])) for row in own]

    def judged(method: Method) -> Evaluation:
        database = databases.of(method.database, lambda what, steps: lambda: None)
        orders = rankings(method, vectors, database, own, lattqe=lambda *_: pytest.fail("no method has a network"))
        return evaluate(list(orders), truths, ks=(1,))

    return judged


def families() -> list[Family]:
    return [*query_families(), *(one for name in OF_DATABASES for one in database_families(name))]


@pytest.mark.parametrize("family", families(), ids=lambda one: one.name)
def test_no_more_neighbours_are_asked_for_than_a_server_takes(family: Family) -> None:
    for count in (*COUNTS, family.default):
        method = family.at(count)
        for name, asked in (
            (method.name, method.neighbours),
            *([] if method.database is None else [(method.database.method, method.database.neighbours)]),
        ):
            assert asked <= limits(64).get(name, 0)


def test_a_family_is_judged_at_every_number_of_neighbours(judge: Judge) -> None:
    rows = swept(judge, [*query_families()][:4])
    by_name = {one.family.name: one for one in rows}
    assert all(sorted(one.figures) == [*COUNTS] for one in rows)
    for name, one in by_name.items():
        for count, figures in one.figures.items():
            np.testing.assert_array_equal(figures.aps, judge(Method(name=name, neighbours=count)).aps)
        assert one.figures[one.best].map == max(figures.map for figures in one.figures.values())


def test_a_database_is_judged_alone_and_with_the_query_expanded_alike(judge: Judge) -> None:
    alone, both = swept(judge, database_families("alphaqe"))
    method = both.family.at(4)
    assert method.database is not None and str(method) == "alphadba:4:3+alphaqe:4:3"
    assert str(alone.family.at(4)) == "alphadba:4:3"
    np.testing.assert_array_equal(both.figures[4].aps, judge(method).aps)
    np.testing.assert_array_equal(alone.figures[4].aps, judge(replace(NO_EXPANSION, database=method.database)).aps)


def test_the_tables_tell_figures_and_gains_with_intervals_over_classes() -> None:
    def figures(ap: float, first: float) -> Evaluation:
        return Evaluation(aps=np.full(48, ap), precisions=np.full((48, 1), first))

    [family, *_] = query_families()
    at = {count: figures(0.5 + count / 1000, 1.0 - count / 100) for count in COUNTS}
    none, rows = figures(0.5, 1.0), [Swept(family=family, figures=at)]
    table = sweep_table(none, rows)
    assert "| none | 50.0 / 100.0 | 50.0 / 100.0 |" in table
    assert table.splitlines()[-1].startswith("| aqe | 50.1 / 99.0 | 50.2 / 98.0 | 50.4 / 96.0 |")
    line = gain_table(none, rows, LABELS).splitlines()[-1]
    assert line.startswith("| aqe | 1 | +0.1 (+0.1 to +0.1) | +0.1 to +0.1 | -1.0 (-1.0 to -1.0) | -1.0 to -1.0 | 64 |")
    assert line.count("|") == gain_table(none, rows, LABELS).splitlines()[1].count("|")


def test_data_without_a_name_is_refused_before_any_work(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    assert main(["--test", "folder:photos", "--repository", str(tmp_path / "none"), "--out", str(page)]) == 1
    error = "results: got --test 'folder:photos'; expected NAME=SPEC, such as products=folder:photos/\n"
    assert capsys.readouterr().err == error and not page.exists()
