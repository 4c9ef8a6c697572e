import random

import pytest

from landseer.ops.chaos.register import Operation, is_linearisable, stale_reads

LATE = 100
"""When a change without an answer can have happened at the latest."""


def write(value, began, ended=None):
    return Operation(kind="write", value=value, began=began, ended=ended or LATE, answered=ended is not None)


def read(value, began, ended):
    return Operation(kind="read", value=value, began=began, ended=ended)


def delete(began, ended=None, *, found=None):
    return Operation(kind="delete", began=began, ended=ended or LATE, answered=ended is not None, found=found)


GOOD = {
    "nothing": [],
    "a value is read after it was written": [write(1, 0, 1), read(1, 2, 3)],
    "a read during a write sees the value before or after it": [
        write(1, 0, 1), write(2, 2, 9), read(1, 3, 4), read(2, 5, 6)
    ],
    "two writes at once end in either order": [write(1, 0, 5), write(2, 0, 5), read(1, 6, 7), read(1, 8, 9)],
    "a write of unknown outcome happened": [write(1, 0), read(1, 2, 3)],
    "a write of unknown outcome never happened": [write(1, 0), read(None, 2, 3)],
    "a write of unknown outcome happened late": [write(1, 0), read(None, 2, 3), read(1, 4, 5)],
    "a deletion leaves nothing": [write(1, 0, 1), delete(2, 3, found=True), read(None, 4, 5)],
    "a deletion finds nothing": [delete(0, 1, found=False), write(1, 2, 3)],
    "a deletion of unknown outcome explains a second one that finds nothing": [
        write(1, 0, 1), delete(2), delete(3, 4, found=False)
    ],
}  # fmt: skip
BAD = {
    "an acknowledged write is gone": [write(1, 0, 1), read(None, 2, 3)],
    "a read goes back in time": [write(1, 0, 1), write(2, 2, 9), read(2, 3, 4), read(1, 5, 6)],
    "a value comes back after it was replaced": [write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)],
    "a value is read before it was written": [read(1, 0, 1), write(1, 2, 3)],
    "a value is read that nobody wrote": [write(1, 0, 1), read(7, 2, 3)],
    "a deleted value comes back": [write(1, 0, 1), delete(2, 3, found=True), read(1, 4, 5)],
    "a deletion finds something where nothing is": [delete(0, 1, found=True)],
    "a deletion does not find what was written": [write(1, 0, 1), delete(2, 3, found=False)],
    "two deletions find one value": [write(1, 0, 1), delete(2, 5, found=True), delete(2, 5, found=True)],
    "a write of unknown outcome happens twice": [
        write(1, 0), read(1, 1, 2), write(2, 3, 4), read(2, 5, 6), read(1, 7, 8)
    ],
    "two readers disagree on the order of two writes": [
        write(1, 0, 9), write(2, 0, 9), read(1, 1, 2), read(2, 3, 4), read(1, 5, 6)
    ],
}  # fmt: skip


@pytest.mark.parametrize("history", GOOD.values(), ids=GOOD)
def test_what_a_register_can_do(history):
    assert is_linearisable(history)
    assert is_linearisable(history[::-1])


@pytest.mark.parametrize("history", BAD.values(), ids=BAD)
def test_what_no_register_does(history):
    assert not is_linearisable(history)
    assert not is_linearisable(history[::-1])


def simulated(draws, *, callers=4, calls=150):
    """Return what callers saw of a true register, a tenth of them without an answer."""
    free, value, made = [0.0] * callers, None, []
    instants = sorted(draws.uniform(0, 60) for _ in range(calls))
    for number, instant in enumerate(instants):
        caller = min(range(callers), key=lambda one: free[one])
        began, ended = max(free[caller], instant - draws.random()), instant + draws.random()
        if began > instant:
            continue
        free[caller], lost = ended, draws.random() < 0.1
        kind = draws.choice(("write", "read", "delete"))
        if kind == "read":
            made.append(read(value, began, ended))
        elif kind == "write":
            value = number
            made.append(Operation(kind="write", value=number, began=began, ended=ended, answered=not lost))
        else:
            found, value = value is not None, None
            found = None if lost else found
            made.append(Operation(kind="delete", began=began, ended=ended, answered=not lost, found=found))
    return made


def test_histories_of_a_true_register_pass_and_altered_ones_do_not():
    for seed in range(20):
        made = simulated(random.Random(seed))
        assert is_linearisable(made), seed
        values = [one.value for one in made if one.kind == "write"]
        last = max(one.ended for one in made)
        # The first write is long replaced by then.
        assert not is_linearisable([*made, read(values[0], last + 1, last + 2), read(values[1], last + 3, last + 4)]), (
            seed
        )


def test_a_search_may_miss_only_what_changes():
    changes = [write(1, 0, 1), write(2, 10, 12), delete(20, 21, found=True)]
    fine = [read(1, 2, 3), read(None, 11, 13), read(1, 9, 11), read(2, 13, 14), read(None, 22, 23)]
    stale = [read(None, 2, 3), read(1, 13, 14), read(2, 22, 23)]
    assert stale_reads(changes, [*fine, *stale]) == stale


def test_a_search_after_a_change_of_unknown_outcome_sees_either():
    changes = [write(1, 0, 1), write(2, 5)]
    assert not stale_reads(changes, [read(1, 130, 131), read(2, 130, 131), read(3, 30, 31)])
    assert stale_reads(changes, [read(3, 130, 131)])
