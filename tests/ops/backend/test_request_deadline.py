from __future__ import annotations

import json

import pytest

from landseer.ops.backend.deadlines import DEADLINE_PARAMETER, is_past


@pytest.mark.parametrize(("deadline", "past"), [("999999", True), ("1000001", False), (999_999, True), ("soon", False)])
def test_deadline(deadline, past):
    assert is_past(json.dumps({DEADLINE_PARAMETER: deadline}), now=1.0) is past


def test_a_request_without_one_waits_for_ever():
    assert not is_past("", now=1.0)
    assert not is_past('{"other": 1}', now=1.0)
