"""What is computed from rankings: figures, gains, sweeps, regimes, failures, synthetic distractors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from shared_files import reference

from landseer.ensemble.evaluation import Truth, bootstrap_interval, evaluate
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.failures import failures
from landseer.ops.evaluate.figures import KS, Estimate, MethodRow
from landseer.ops.evaluate.methods import NO_EXPANSION, Method
from landseer.ops.evaluate.notation import parse_all
from landseer.ops.evaluate.regimes import regimes
from landseer.ops.evaluate.sweep import counts, swept
from landseer.ops.evaluate.synthetic import BLOCK, synthetic

rng = np.random.default_rng


def row(method, ranked, truths, base=None):
    figures = evaluate(ranked, truths, ks=KS)
    base = figures if base is None else base.figures
    classes = np.arange(len(truths))
    return MethodRow(system="s", method=method, protocol="medium", figures=figures, base=base, classes=classes, seed=0)


def ranked_by(draws, count, size):
    return [draws.permutation(size) for _ in range(count)]


def intervals(estimate):
    return estimate.over_classes, estimate.over_queries


def truths_of(sizes):
    return [Truth(easy=np.arange(size)) for size in sizes]


def test_the_gain_is_paired_and_its_interval_narrower_than_of_unpaired_figures():
    draws, truths = rng(0), truths_of([3] * 40)
    ranked = ranked_by(draws, 40, 50)
    base = row(NO_EXPANSION, ranked, truths)
    # The right answers of every query move up by a place.
    better = [np.concatenate([order[1:], order[:1]]) if order[0] > 2 else order for order in ranked]
    found = row(Method(name="aqe", neighbours=2), better, truths).over(base)
    assert found.gain.value == pytest.approx(np.mean(found.figures.aps - base.figures.aps))
    for of_gain, of_map in zip(intervals(found.gain), intervals(found.map), strict=True):
        assert 0 < of_gain.low <= found.gain.value <= of_gain.high
        assert of_gain.high - of_gain.low < of_map.high - of_map.low
    assert base.gain is None
    assert found.recall_at_1.value == pytest.approx(np.mean([order[0] <= 2 for order in better]))


def test_estimates_pass_over_queries_without_an_answer():
    found = Estimate.of([0.5, np.nan, *[0.5] * 5], np.arange(7))
    assert (found.value, *found.over_classes, *found.over_queries) == (0.5,) * 5
    nothing = {"value": None, "low": None, "high": None, "interval_over_classes": None}
    assert Estimate.of([np.nan], np.arange(1)).as_dict() == nothing


def test_too_few_classes_give_no_interval_over_classes():
    values, classes = rng(0).random(20), np.arange(20) % 5
    assert Estimate.of(values, classes).over_classes == bootstrap_interval(values, classes)
    few = np.minimum(classes, 3)
    assert Estimate.of(values, few).over_classes is None
    assert Estimate.of(values, few).over_queries == bootstrap_interval(values)
    # A class none of whose queries has a value is none.
    assert Estimate.of(np.where(classes == 4, np.nan, values), classes).over_classes is None


@pytest.mark.parametrize("protocol", ["easy", "medium", "hard"])
def test_rows_say_what_the_authors_code_says(protocol):
    known = reference("eval_revisitop.npz")
    parts = {name: [ids[ids >= 0] for ids in known[name]] for name in ("easy", "hard", "junk")}
    truths = [Truth(easy=e, hard=h, junk=j) for e, h, j in zip(*parts.values(), strict=True)]
    figures = evaluate(list(known["ranks"].T), truths, protocol=protocol, ks=KS)
    found = MethodRow(
        system="s",
        method=NO_EXPANSION,
        protocol=protocol,
        figures=figures,
        base=figures,
        classes=np.arange(len(truths)),
        seed=0,
    )
    letter, kappas = protocol[0].upper(), known["kappas"].tolist()
    assert found.map.value == pytest.approx(float(known[f"map_{letter}"]), abs=1e-5)
    assert found.mp10.value == pytest.approx(float(known[f"mpr_{letter}"][kappas.index(10)]), abs=1e-5)
    assert found.recall_at_1.value == pytest.approx(float(known[f"mpr_{letter}"][kappas.index(1)]), abs=1e-5)


def test_a_sweep_takes_each_method_once_with_the_neighbours_it_can_have():
    methods = parse_all("none,aqe,aqe:7,alphaqe:10:2,alphaqe:5,dqe,lattqe,none", positions=8)
    assert [str(method) for method in methods[:3]] == ["none", "aqe:1", "aqe:7"] and len(methods) == 7
    found = [str(method) for method in swept(methods, counts("4, 1,128,4"), positions=8)]
    assert found == [
        *("aqe:1", "aqe:4", "aqe:128", "alphaqe:1:2", "alphaqe:4:2", "alphaqe:128:2"),
        *("alphaqe:1:3", "alphaqe:4:3", "alphaqe:128:3", "dqe:1", "dqe:4", "lattqe:1", "lattqe:4"),
    ]


@pytest.mark.parametrize("text", ["", "0", "1,x", "1,,2", "-1", "folder:photos"])
def test_a_sweep_of_no_numbers_is_refused(text):
    with pytest.raises(OpsError, match=r"--sweep is .*expected numbers of neighbours"):
        counts(text)


def test_regimes_part_the_queries():
    draws = rng(1)
    sizes = [*draws.integers(1, 20, 60), 0]
    truths = truths_of(sizes)
    base = row(NO_EXPANSION, ranked_by(draws, 61, 40), truths)
    found = row(Method(name="aqe", neighbours=1), ranked_by(draws, 61, 40), truths).over(base)
    known = regimes([base, found], truths)
    for by in ("positives", "ap"):
        ranges = [one for one in known if one.by == by]
        assert sum(one.queries for one in ranges) == 60
        weighted = sum(one.queries * one.gain.value for one in ranges) / 60
        assert weighted == pytest.approx(found.gain.value)
        assert all(one.high < after.low or by == "ap" for one, after in itertools.pairwise(ranges))
    even = regimes([found], truths_of([5] * 61))
    assert [(one.low, one.high) for one in even if one.by == "positives"] == [(5, 5)]


def test_failures_are_the_worst_queries_with_ranks_from_which_junk_is_gone():
    truths = [
        Truth(easy=np.array([0]), junk=np.array([9])),
        Truth(easy=np.array([1])),
        Truth(easy=np.array([2])),
        Truth(),
    ]
    ranked = [np.array(order) for order in ([9, 5, 6, 7, 8, 0], [1, 2], [3, 4], [0])]
    aps = evaluate(ranked, truths, ks=KS).aps
    found = failures(ranked, truths, aps, protocol="medium")
    assert [failure.query for failure in found] == [2, 0]
    assert found[0].right is None and found[0].wrong == [(1, 3), (2, 4)]
    assert found[1].wrong == [(1, 5), (2, 6), (3, 7)] and found[1].right == (5, 0)


@pytest.mark.parametrize("count", [30, 5])
def test_synthetic_distractors_have_the_statistics_of_the_references(count):
    """Before they are made unit norm: so let the references be nearly on a small cap of the sphere."""
    size = 12
    references = rng(2).normal(size=(count, size)) * np.linspace(0.01, 0.05, size) + np.eye(size)[0] * 3
    references /= np.linalg.norm(references, axis=1, keepdims=True)
    made = synthetic(references.astype(np.float32), 2 * BLOCK + 3, seed=4)
    assert made.shape == (2 * BLOCK + 3, size) and made.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(made.mean(axis=0), references.mean(axis=0), atol=1e-3)
    expected = np.cov(references.T)
    np.testing.assert_allclose(np.cov(made.T), expected, atol=0.05 * expected.max())
    np.testing.assert_array_equal(made[:7], synthetic(references.astype(np.float32), 7, seed=4)[:7])
    assert np.abs(made[:7] - synthetic(references.astype(np.float32), 7, seed=5)).max() > 1e-3


def test_of_one_reference_nothing_can_be_drawn():
    with pytest.raises(ValueError, match="got 1 references; expected at least 2"):
        synthetic(np.ones((1, 3), np.float32), 2, seed=0)
