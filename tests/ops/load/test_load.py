from __future__ import annotations

import dataclasses
from datetime import datetime, timezone

import pytest

from landseer.ops.errors import OpsError
from landseer.ops.load import k6
from landseer.ops.load.k6 import K6Figures, _read
from landseer.ops.load.load_report import Duel, LoadReport, LoadStep, markdown, verdict
from landseer.ops.load.locust_run import LoadConfig, LoadFigures, TaskFigures, Tick, read
from landseer.ops.load.shapes import SHAPES, ramp, ramp_users, spike
from landseer.ops.watch.queries import PanelQuery


@pytest.mark.parametrize("name", sorted(SHAPES))
@pytest.mark.parametrize("peak", [1, 2, 7, 16, 200])
def test_a_plan_has_from_one_user_to_the_peak_at_any_time(name, peak):
    users = [SHAPES[name](step / 100, peak) for step in range(101)]
    assert 1 <= min(users) <= max(users) <= peak
    assert max(users) == (max(1, peak // 2) if name == "soak" else peak)


def test_a_ramp_rises_by_steps_from_one_to_the_peak():
    assert ramp_users(16) == [1, 2, 3, 5, 7, 11, 16]
    assert ramp_users(1) == [1]
    users = [ramp(step / 100, 16) for step in range(101)]
    assert users == sorted(users)
    assert (users[0], users[-1]) == (1, 16)


def test_a_spike_comes_and_goes():
    assert [spike(gone, 16) for gone in (0.1, 0.5, 0.9)] == [4, 16, 4]


STATS = """Type,Name,Request Count,Failure Count,Median Response Time,Requests/s,50%,95%,99%
grpc,search picture,30,2,100,3.0,100,200,300
grpc,search id,10,0,10,1.0,10,20,30
grpc,upsert,5,0,90,0.5,90,95,99
,Aggregated,45,2,95,4.5,95,190,290
"""
FAILURES = """Method,Name,Error,Occurrences
grpc,search picture,CallFailed('UNAVAILABLE'),1
grpc,search picture,CallFailed('WRONG_HIT'),1
"""
HISTORY = """Timestamp,User Count,Type,Name,Total Request Count
100,0,,Aggregated,0
101,2,grpc,search id,1
101,2,,Aggregated,4
111,4,,Aggregated,45
112,0,,Aggregated,45
"""


@pytest.fixture
def config(tmp_path):
    return LoadConfig(
        host="127.0.0.1:1", photos=tmp_path, shape="steady", peak=4, length_s=1.0, out=tmp_path / "steady"
    )


def written(config, **files):
    for kind, text in files.items():
        config.out.with_name(f"{config.out.name}_{kind}.csv").write_text(text)


def test_locusts_files_are_read(config):
    written(config, stats=STATS, failures=FAILURES, stats_history=HISTORY)
    figures = read(config)
    assert figures.total == TaskFigures(calls=45, failures=2, rate=4.5, p50_ms=95, p95_ms=190, p99_ms=290)
    assert figures.searches == 40
    assert figures.failures == {"UNAVAILABLE": 1, "WRONG_HIT": 1}
    assert figures.ticks == [Tick(when=101, users=2, calls=4), Tick(when=111, users=4, calls=45)]
    assert figures.seconds == 10


def test_users_that_leave_at_the_end_are_no_step_of_their_own():
    ticks = [Tick(when=when, users=users, calls=when) for when, users in enumerate((1, 1, 2, 2, 4, 2, 1))]
    steps = dict(dataclasses.replace(figures(), ticks=ticks).steps())
    assert {users: [tick.when for tick in some] for users, some in steps.items()} == {1: [0, 1], 2: [2, 3], 4: [4]}


def test_a_run_without_a_call_is_an_error(config):
    with pytest.raises(OpsError, match=r"wrote no steady_stats\.csv"):
        read(config)
    written(config, stats="Type,Name,Request Count,50%\n,Aggregated,0,N/A\n")
    with pytest.raises(OpsError, match="made no call"):
        read(config)


def figures(rate=4.0, **failures):
    one = TaskFigures(calls=40, failures=sum(failures.values()), rate=rate, p50_ms=95, p95_ms=190, p99_ms=290)
    ticks = [Tick(when=0, users=1, calls=0), Tick(when=10, users=4, calls=40)]
    return LoadFigures(tasks={"search picture": one, "Aggregated": one}, failures=failures, ticks=ticks)


def report(**changes):
    opinion = K6Figures(calls=40, failed=0, rate=4.2, p50_ms=100.0, p95_ms=120.0)
    steps = [
        LoadStep(users=users, rate=rate, p50_ms=100, p95_ms=200, waiting=0)
        for users, rate in ((1, 2.0), (2, 3.9), (4, 4.0), (8, 3.95))
    ]
    made = LoadReport(
        shape="ramp",
        peak=8,
        figures=figures(),
        steps=steps,
        counted=40,
        panels={PanelQuery(board="b", panel="p", expression="up"): 2},
        duel=Duel(users=4, locust=[figures()], k6=[opinion]),
        machine=[("processor", "A CPU")],
        photos=99,
        command="python -m landseer.ops.load.load_test",
        date=datetime(2026, 1, 2, tzinfo=timezone.utc),
        seconds=200.0,
    )
    return dataclasses.replace(made, **changes)


def test_saturation_is_the_fewest_users_that_get_nearly_all():
    assert report().saturation.users == 2


def test_the_verdict_asks_whether_independent_counts_agree():
    assert verdict(report())
    assert not verdict(report(counted=43))
    assert not verdict(report(panels={PanelQuery(board="b", panel="p", expression="up"): 0}))
    assert not verdict(report(duel=Duel(users=4, locust=[figures(rate=3.0)], k6=report().duel.k6)))
    assert verdict(report(duel=None))
    assert not verdict(report(figures=figures(WRONG_HIT=1)))


def test_the_report_says_what_was_measured():
    text = markdown(report())
    assert "**4.0 calls per second**" in text
    assert "No call failed" in text
    assert "**Saturation at users = 2: 3.9 calls per second**" in text
    assert "4.000 by locust, 4.000 by Prometheus, ratio 1.000;\nthey agree" in text
    assert "Median ratio of the throughputs 1.050; they agree" in " ".join(text.split())
    assert "All 1 queries of the 1 panels" in text
    assert "b, p: `up`" in markdown(report(panels={PanelQuery(board="b", panel="p", expression="up"): 0}))
    assert "| UNAVAILABLE | 3 |" in markdown(report(figures=figures(UNAVAILABLE=3)))


def test_k6_is_found_beside_python_without_an_active_environment(tmp_path, monkeypatch):
    binary = tmp_path / "k6"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setattr(k6.sys, "executable", str(tmp_path / "python"))
    assert k6.installed()
    binary.unlink()
    assert not k6.installed()


def test_k6_that_made_no_call_is_an_error():
    with pytest.raises(OpsError, match="no call"):
        _read({"iterations": {"count": 0}})
