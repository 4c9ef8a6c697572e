"""The bulk benchmark adds up what it measured, and its report says what that is of the bare graph's rate."""

from __future__ import annotations

import os
import time

import pytest

from landseer.ops.bench.bulk_report import BulkReport, Trial, report
from landseer.ops.bench.bulk_run import DECODERS, SERVERS, WORKERS, WRITER, BulkRun, _between, _kind, _Moment
from landseer.ops.bench.bulk_steps import KEYPOINTS, MODELS, SIFT, StepClock
from landseer.ops.bench.cpu_time import CpuTime
from landseer.ops.bench.graph_rate import GraphRate, _environment
from landseer.ops.bench.process_memory import own_memory
from landseer.ops.bulk.huge_pages import HUGE_PAGES

SPENT = {WORKERS: 15.0, DECODERS: 1.0, WRITER: 0.5, SERVERS: 0.5}


def run(rate):
    return BulkRun(
        start_s=20.0, start_processor=30.0, pictures=60, seconds=60 / rate, spent=SPENT, others=0.01, memory=2**29
    )


def graphs(one_each, one_of_all):
    return [
        GraphRate(processes=2, threads=1, huge_pages=False, rate=one_each, processor=0.2),
        GraphRate(processes=1, threads=2, huge_pages=False, rate=one_of_all, processor=0.21),
    ]


def reported(with_keypoints, without):
    return report(
        BulkReport(
            keypoints=[Trial(bulk=run(with_keypoints), graphs=graphs(10.0, 8.0))],
            none=[Trial(bulk=run(without), graphs=graphs(10.0, 8.0))],
            steps={MODELS: 0.2, KEYPOINTS: 0.05, SIFT: 0.04},
            pictures=64,
            stepped=8,
            cores=2,
            machine=[("processor", "one")],
            command="the command",
        )
    )


def test_the_start_is_apart_from_what_follows():
    begin = _Moment(machine=CpuTime(when=0.0, busy=0.0, ours=0.0), settled=0, spent=dict.fromkeys(SPENT, 0.0), memory=0)
    first = _Moment(
        machine=CpuTime(when=20.0, busy=35.0, ours=30.0), settled=4, spent={**SPENT, WORKERS: 28.0}, memory=2
    )
    after = {kind: spent + SPENT[kind] for kind, spent in first.spent.items()}
    last = _Moment(machine=CpuTime(when=30.0, busy=55.0, ours=47.0), settled=64, spent=after, memory=3)
    found = _between(begin, first, last)
    assert (found.start_s, found.start_processor, found.pictures, found.seconds) == (20.0, 30.0, 60, 10.0)
    assert found.spent == SPENT and found.rate == 6.0
    assert found.busy == pytest.approx(1.7) and found.processor(WORKERS) == 0.25
    assert 0 < found.others < 0.2 and found.memory == 3


@pytest.mark.parametrize(
    ("with_keypoints", "without", "verdict"),
    [(9.0, 9.5, "kept."), (8.0, 9.5, "kept without keypoints only."), (8.0, 8.5, "not kept.")],
)
def test_the_ratio_is_to_the_faster_way_to_run_the_graph(with_keypoints, without, verdict):
    said = reported(with_keypoints, without)
    assert f"at {with_keypoints / 10:.2f} of the rate of the bare graph with keypoints, at {without / 10:.2f}" in said
    assert f"It should keep 0.9: {verdict}" in said


def test_the_report_says_where_the_time_goes():
    said = reported(8.0, 9.0)
    assert f"| {WORKERS} | 250.0 | 250.0 |" in said
    assert f"| {MODELS} | 200.0 | 1.000 |" in said and f"| {SIFT} | 40.0 | 0.200 |" in said
    assert "| all | 250.0 | 1.250 |" in said


def test_processes_are_told_apart_by_their_commands():
    assert _kind(["ray::MapWorker(MapBatches(_Worker)).submit"]) == WORKERS
    assert _kind(["python", "-m", "landseer.ensemble.pictures.nursery"]) == DECODERS
    assert _kind(["raylet"]) == _kind(["ray::_StatsActor"]) == _kind(["ray::IDLE"]) == SERVERS


def test_a_step_counts_processor_time_not_waiting():
    clock = StepClock()
    with clock.step("waiting"):
        time.sleep(0.2)
    with clock.step("working"):
        until = time.process_time() + 0.2
        while time.process_time() < until:
            pass
    means = clock.means(2)
    assert means["waiting"] < 0.05 and 0.09 < means["working"] < 0.15


@pytest.mark.parametrize("before", [None, "glibc.malloc.check=0"])
def test_the_graph_runs_with_and_without_huge_pages_whatever_is_set(before, monkeypatch):
    name, value = HUGE_PAGES
    monkeypatch.delenv(name, raising=False)
    if before:
        monkeypatch.setenv(name, before)
    with _environment(huge_pages=True):
        assert os.environ[name] == value
    with _environment(huge_pages=False):
        assert name not in os.environ
    assert os.environ.get(name) == before


def test_a_process_that_has_ended_has_no_memory():
    assert own_memory(os.getpid()) > 2**20
    assert own_memory(2**30) == 0
