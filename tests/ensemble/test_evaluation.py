import numpy as np
import pytest
import shared_files
from hypothesis import given
from hypothesis import strategies as st

from landseer.ensemble import evaluation
from landseer.ensemble.evaluation import (
    PROTOCOLS,
    Truth,
    average_precision,
    bootstrap_interval,
    evaluate,
    positive_ranks,
    precision_at,
)

LETTERS = {"easy": "E", "medium": "M", "hard": "H"}


@pytest.fixture(scope="module")
def reference():
    return shared_files.reference("eval_revisitop.npz")


def truths(reference):
    parts = {name: [row[row >= 0] for row in reference[name]] for name in ("easy", "hard", "junk")}
    return [Truth(easy=e, hard=h, junk=j) for e, h, j in zip(*parts.values(), strict=True)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_equal_to_the_authors_code(reference, protocol):
    letter = LETTERS[protocol]
    found = evaluate(list(reference["ranks"].T), truths(reference), protocol=protocol, ks=reference["kappas"])
    assert found.map == pytest.approx(float(reference[f"map_{letter}"]), abs=1e-5)
    for name, values in {
        "aps": found.aps,
        "prs": found.precisions,
        "mpr": found.mean_precisions,
    }.items():
        np.testing.assert_allclose(values, reference[f"{name}_{letter}"], atol=1e-5, equal_nan=True, err_msg=name)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_rankings_cut_short(reference, protocol):
    expected = reference[f"aps_truncated60_{LETTERS[protocol]}"]
    found = evaluate([ranking[:60] for ranking in reference["ranks"].T], truths(reference), protocol=protocol).aps
    known = ~np.isnan(expected)
    assert known.any()
    np.testing.assert_allclose(found[known], expected[known], atol=1e-5)
    # Where the authors' code fails because no positive is in the list, the query still counts, with nothing found.
    assert set(found[~known][~np.isnan(found[~known])]) <= {0.0}


def test_a_perfect_and_a_hopeless_ranking():
    truth = Truth(easy=np.array([4, 2]), junk=np.array([9]))
    found = evaluate([np.array([9, 2, 4, 1]), np.array([1, 3, 9])], [truth, truth], ks=(1, 2))
    assert found.aps.tolist() == [1.0, 0.0]
    assert found.precisions.tolist() == [[1.0, 1.0], [0.0, 0.0]]


def test_no_query_with_positives_gives_nan_without_warning(recwarn):
    found = evaluate([np.array([1, 2])], [Truth(junk=np.array([1]))])
    assert np.isnan(found.map) and np.isnan(found.mean_precisions).all()
    assert not recwarn.list


def test_rankings_and_truths_must_match():
    with pytest.raises(ValueError, match="2 rankings and 1 truths"):
        evaluate([np.array([1])] * 2, [Truth()])


@given(st.data())
def test_against_the_slow_definition(data):
    ranking = data.draw(st.permutations(range(data.draw(st.integers(1, 25)))))
    labels = [data.draw(st.sampled_from(["positive", "junk", "wrong"])) for _ in ranking]
    positives = np.array([i for i, label in enumerate(labels) if label == "positive"], np.int64)
    junk = np.array([i for i, label in enumerate(labels) if label == "junk"], np.int64)
    ranks = positive_ranks(np.array(ranking), positives=positives, junk=junk)
    judged = [item for item in ranking if labels[item] != "junk"]
    assert ranks.tolist() == [place for place, item in enumerate(judged) if labels[item] == "positive"]
    if len(positives):
        area = 0.0
        for hits, place in enumerate(ranks):
            before = 1.0 if place == 0 else hits / place
            area += (before + (hits + 1) / (place + 1)) / 2 / len(positives)
        assert average_precision(ranks, positives=len(positives)) == pytest.approx(area)
        assert 0 <= precision_at(ranks, 5) <= 1


def test_bootstrap_interval():
    values = np.random.default_rng(1).normal(0.6, 0.2, 400)
    low, high = bootstrap_interval(values, rounds=2000)
    assert low < values.mean() < high
    # The normal approximation of the same interval.
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert bootstrap_interval(values, rounds=2000) == (low, high)
    assert bootstrap_interval(values, rounds=2000, seed=1) != (low, high)
    assert bootstrap_interval([0.5, np.nan]) == (0.5, 0.5)
    assert np.isnan(bootstrap_interval([np.nan])).all()
    assert np.isnan(bootstrap_interval([np.nan], ["a"])).all()


def slow_class_interval(values, classes, rounds, seed):
    """The definition: draw classes, collect all of their queries, take the mean."""
    draws = np.random.default_rng(seed)
    kept = [(value, label) for value, label in zip(values, classes, strict=True) if not np.isnan(value)]
    names = sorted({label for _, label in kept})
    means = []
    for _ in range(rounds):
        drawn = [names[place] for place in draws.integers(len(names), size=len(names))]
        means.append(np.mean([value for name in drawn for value, label in kept if label == name]))
    return np.quantile(means, [0.025, 0.975])


@given(st.data())
def test_the_interval_over_classes_equals_a_slow_reference(data):
    classes = data.draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=20))
    of_a_query = st.one_of(st.floats(-1, 1), st.just(np.nan))
    values = np.array([data.draw(of_a_query) for _ in classes])
    if np.isnan(values).all():
        return
    found = bootstrap_interval(values, classes, rounds=30, seed=3)
    np.testing.assert_allclose(found, slow_class_interval(values, classes, 30, 3), atol=1e-12)


def test_queries_that_are_classes_of_their_own_give_the_interval_over_queries():
    values = np.random.default_rng(2).random(50)
    assert bootstrap_interval(values, np.arange(50)) == bootstrap_interval(values)


def test_the_interval_over_classes_is_wider_where_queries_of_a_class_are_alike():
    of_class = np.random.default_rng(3).normal(0.5, 0.2, 30)
    classes = np.repeat(np.arange(30), 16)
    low, high = bootstrap_interval(of_class[classes], classes)
    # 30 classes decide, not 480 queries: wider by the square root of 16.
    narrow = bootstrap_interval(of_class[classes])
    assert high - low == pytest.approx(4 * (narrow.high - narrow.low), rel=0.1)
    apart = np.random.default_rng(4).normal(0.5, 0.2, 480)
    wide, narrow = bootstrap_interval(apart, classes), bootstrap_interval(apart)
    assert wide.high - wide.low == pytest.approx(narrow.high - narrow.low, rel=0.3)


def test_the_interval_does_not_depend_on_how_many_rounds_are_drawn_at_once(monkeypatch):
    values, classes = np.random.default_rng(5).random(40), np.arange(40) % 7
    whole = bootstrap_interval(values, classes, rounds=500)
    monkeypatch.setattr(evaluation, "_DRAWN_AT_ONCE", 70)
    assert bootstrap_interval(values, classes, rounds=500) == pytest.approx(whole, abs=1e-12)
