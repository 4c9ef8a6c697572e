"""The report of an overload test, and how its callers take a refusal."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timezone

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from landseer.ops.load.callers import DETAILS, Call, Calls, retry_of
from landseer.ops.load.overload_report import Burst, Load, OverloadReport, goodput_holds, markdown


def calls(*, answered=0, refused=0, late=0, seconds=10.0, took=0.4, burst=()):
    """burst: seconds of answers to calls that began at once."""
    made = [Call(ended=109.0, seconds=took, code="OK")] * answered
    made += [Call(ended=109.0, seconds=0.002, code="RESOURCE_EXHAUSTED", retry_s=0.5)] * refused
    made += [Call(ended=109.0, seconds=3.0, code="DEADLINE_EXCEEDED")] * late
    made += [Call(ended=100.1 + one, seconds=one, code="OK") for one in burst]
    return Calls(calls=made, seconds=seconds, began=100.0)


def load(name, found):
    return Load(
        name=name,
        offered="many",
        rounds=[found, found],
        lookups=[calls(answered=100, took=0.05)] * 2,
        capacity=[2.4, 2.5, 2.6],
        rss_mib=300.0,
    )


@pytest.fixture
def report():
    return OverloadReport(
        unloaded=calls(answered=20),
        lookups=calls(answered=200, took=0.04),
        capacity_callers=3,
        lookups_s=8.0,
        loads=(
            load("1x", calls(answered=20, refused=3)),
            load("4x", calls(answered=21, refused=70, late=1, took=1.0, burst=(0.5, 1.4, 1.9))),
            load("24 callers", calls(answered=25, refused=60)),
        ),
        burst=Burst(offered="many", calls=calls(answered=3, refused=297), rss_mib=300.0),
        idle_mib=250.0,
        settled_mib=300.0,
        shed={"slow": 400.0, "calls": 30.0, "bytes": 0.0},
        deadline_s=3.0,
        photos=40,
        light=False,
        machine=[("processor", "one")],
        others=0.0,
        command="python -m landseer.ops.load.overload",
        date=datetime(2026, 11, 29, tzinfo=timezone.utc),
        seconds=200.0,
    )


def test_the_report_has_each_load(report):
    text = markdown(report)
    assert "at least 0.96 of it" in text
    assert "| one caller | 1 caller | 2.00 |  |  | 400 | 400 | 1.0 |  | 0 | 0 |  |" in text
    assert "| 4x | many | 2.40 | 2.40, 2.50, 2.60 | 0.96 | 1000 | 1000 | 2.5 | 1900 | 140 | 2 | 2 |" in text
    assert "| 4x | 10.0 | 50 | 50 | 1.2 | 0 | 0 |" in text
    assert "3 answered, 297 refused, 0 too late" in text
    assert "slow: 400, calls: 30." in text


def test_the_report_says_what_bounds_the_slowest_answers(report):
    text = markdown(report)
    assert "A load has 40 to 50 answers by picture after its first 3 s" in text
    assert "expected to be answered within 1.5 s." in text


def test_an_aim_that_was_missed_is_named(report):
    assert "Every aim below was kept." in markdown(report)
    silent = Calls(calls=[Call(ended=0.0, seconds=0.1, code="RESOURCE_EXHAUSTED")] * 3, seconds=10.0)
    slow = load("24 callers", calls(answered=25, refused=60, took=1.3))
    busy = dataclasses.replace(load("1x", calls(answered=20)), lookups=[calls(answered=9, took=0.1)], rss_mib=500.0)
    burst = dataclasses.replace(report.burst, calls=silent, rss_mib=1300.0)
    loads = (dataclasses.replace(busy, rss_mib=315.0), load("4x", calls(answered=20, late=9)), slow)
    bad = dataclasses.replace(report, loads=loads, burst=burst, idle_mib=250.0)
    found = markdown(bad).split("## Searches")[0]
    assert [line for line in found.splitlines() if line.startswith(("- ", "**6"))] == [
        "**6 aims missed:**",
        "- 4x: 0.80 of the capacity was answered, not 0.9.",
        "- 24 callers: the p99 of answers is 3.2 times the unloaded one, not 3 or less.",
        "- large pictures: 3 refusals do not say when to come back.",
        "- 1x: the p99 of searches by id is 2.5 times that alone, not 2 or less.",
        "- 1x: memory grew to 1.26 times, not at most 1.25.",
        "- large pictures: memory grew by 1050 MiB, not at most 1024.",
    ]


def test_the_goodput_must_hold_above_the_capacity_and_refusals_say_when_to_come_back(report):
    assert goodput_holds(report)
    collapsed = load("4x", calls(answered=2, late=80))
    assert not goodput_holds(dataclasses.replace(report, loads=(report.loads[0], collapsed)))
    silent = Calls(calls=[Call(ended=0.0, seconds=0.1, code="RESOURCE_EXHAUSTED")], seconds=10.0)
    assert not goodput_holds(dataclasses.replace(report, loads=(load("1x", silent), *report.loads[1:])))


@pytest.mark.parametrize("seconds", [None, 1.5])
def test_retry_info_is_read(seconds):
    status = status_pb2.Status(code=8)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="OVERLOADED"))
    if seconds is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(1000 * seconds))
        status.details.add().Pack(retry)
    details = grpc.aio.Metadata((DETAILS, status.SerializeToString()))
    error = grpc.aio.AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.aio.Metadata(), details)
    assert retry_of(error) == seconds
