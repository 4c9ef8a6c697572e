"""The formats of the log."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import copy_context

import pytest

from landseer.ensemble.telemetry.logs import JsonFormatter, TextFormatter
from landseer.ensemble.telemetry.request_id import ANSWERING, Answering


def record(message="read %d", *arguments, **more):
    made = logging.LogRecord("landseer.x", logging.WARNING, __file__, 1, message, arguments or (7,), None, **more)
    made.created, made.msecs = 1795000000.25, 250.0
    return made


def answering(work, **answering):
    def run():
        ANSWERING.set(Answering(**answering))
        return work()

    return copy_context().run(run)


def test_json_is_one_object():
    assert json.loads(JsonFormatter().format(record())) == {
        "time": "2026-11-18T11:06:40.250Z",
        "level": "WARNING",
        "logger": "landseer.x",
        "message": "read 7",
    }


def test_json_names_the_request_and_the_trace():
    told = answering(lambda: json.loads(JsonFormatter().format(record())), request_id="r", trace_id="ab" * 16)
    assert (told["request_id"], told["trace_id"]) == ("r", "ab" * 16)
    told = answering(lambda: json.loads(JsonFormatter().format(record())), request_id="r")
    assert "trace_id" not in told


@pytest.mark.parametrize("nasty", ["a\nb", "a\u2028b", 'quote "', "\ud800", "ünï"])
def test_json_stays_one_line(nasty):
    line = JsonFormatter().format(record("%s", nasty))
    assert line.splitlines() == [line]
    line.encode("ascii")
    assert json.loads(line)["message"] == nasty


def test_json_has_the_exception_as_text():
    try:
        raise ValueError("broken")
    except ValueError:
        made = record()
        made.exc_info = sys.exc_info()
    told = json.loads(JsonFormatter().format(made))
    assert told["exception"].startswith("Traceback") and told["exception"].endswith("ValueError: broken")


def test_text_names_the_request_before_the_traceback():
    try:
        raise ValueError("broken")
    except ValueError:
        made = record()
        made.exc_info = sys.exc_info()
    lines = answering(lambda: TextFormatter().format(made), request_id="r").splitlines()
    assert lines[0].endswith("WARNING landseer.x: read 7 [request r]")
    assert lines[1].startswith("Traceback")
