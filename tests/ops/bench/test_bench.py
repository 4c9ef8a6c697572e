"""The statistics and the report of the serving benchmark; `make bench-serving` measures."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
import time
from datetime import datetime, timezone

import numpy as np
import pytest

from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.ops.bench.breakdown import PARTS, Breakdown, Counters, mean
from landseer.ops.bench.contenders import Contender
from landseer.ops.bench.contest import Contest, check_hits, check_vectors, play
from landseer.ops.bench.cpu_time import CpuTime, cpu_time
from landseer.ops.bench.pictures import Picture, middle, pictures, sequence
from landseer.ops.bench.serving import AT_LEAST, _options, main
from landseer.ops.bench.serving_report import ServingReport, markdown, outcome, verdict
from landseer.ops.bench.statistics import Round, estimate, latency, ranked, ratios, throughputs, turns
from landseer.ops.errors import OpsError
from landseer.ops.machine import features, field


def rounds(*speeds, requests=4):
    return [Round(seconds=requests / speed, latencies=(1 / speed,) * requests) for speed in speeds]


def test_throughput_is_requests_over_seconds():
    assert Round(seconds=2.0, latencies=(0.5, 0.5, 1.0)).throughput == 1.5
    np.testing.assert_allclose(throughputs(rounds(2.0, 5.0)), [2.0, 5.0])


def test_ratios_are_taken_within_a_round():
    # The machine was twice as slow in the second round: the ratio does not see it.
    np.testing.assert_allclose(ratios(rounds(9.0, 4.5), rounds(10.0, 5.0)), [0.9, 0.9])
    with pytest.raises(ValueError, match="got 1 and 2 rounds"):
        ratios(rounds(1.0), rounds(1.0, 1.0))


def test_estimate_is_the_median_and_its_seeded_bootstrap():
    values = np.array([0.9, 0.91, 0.92, 0.93, 2.0])
    found = estimate(values, seed=3)
    assert found.median == 0.92
    assert 0.9 <= found.low <= found.median <= found.high <= 2.0
    assert estimate(values, seed=3) == found
    same = estimate(np.full(5, 0.9))
    assert (same.low, same.median, same.high) == (0.9, 0.9, 0.9)
    with pytest.raises(ValueError, match="no values"):
        estimate(np.array([]))


def test_the_interval_covers_what_it_should():
    """Of many samples of a known median, about 95% of the intervals hold it."""
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        found = estimate(rng.normal(1.0, 0.1, 15), seed=seed, resamples=500)
        held += found.low <= 1.0 <= found.high
    assert 0.88 <= held / 200 <= 1.0


def test_latency_is_over_all_requests_of_all_rounds():
    some = [Round(seconds=1, latencies=(1.0, 2.0)), Round(seconds=1, latencies=(3.0, 4.0, 5.0))]
    assert latency(some, 0.5) == 3.0
    assert latency(some, 1.0) == 5.0


def test_the_best_is_so_by_its_median_ratio():
    measured = {"steady": rounds(5, 5, 5), "lucky": rounds(4, 4, 50), "same": rounds(5, 5, 5)}
    assert ranked(measured, ["lucky", "steady", "same"], against="steady")[0] == "steady"
    # The second round had a slow machine. By median throughputs, 5 and 6, b would be the better one.
    drifting = {"a": rounds(10, 5, 4.5), "b": rounds(6, 6, 4), "base": rounds(10, 5, 4.5)}
    assert ranked(drifting, ["b", "a"], against="base") == ["a", "b"]


@pytest.mark.parametrize("names", ["abc", "abcd", "abcdefgh"])
def test_turns_rotate_and_turn_around(names):
    orders = turns(names, 2 * len(names))
    assert all(sorted(order) == sorted(names) for order in orders)
    # Everybody has every place equally often.
    for place in range(len(names)):
        assert sorted(order[place] for order in orders) == sorted(names * 2)
    # And comes before and after its neighbour equally often.
    before = sum(order.index("a") < order.index("b") for order in orders)
    assert 0 < before < len(orders)


def picture(number, shape=(2, 4)):
    return Picture(id=f"p{number}", data=b"", pixels=np.full((1, *shape, 3), number, np.uint8))


def contest(title="pixels → vectors", requests=3, **callers):
    made = {name: Contender(name=name, callers=tuple(some)) for name, some in callers.items()}
    [first, *others] = made.values()
    return Contest(title=title, direct=(first,), served=tuple(others), requests=requests)


def test_a_turn_answers_every_request_once():
    seen, lock = [], threading.Lock()

    def call(request):
        time.sleep(0.001)
        with lock:
            seen.append(request.id)

    requests = [picture(n) for n in range(10)]
    for callers in (1, 3):
        seen.clear()
        taken = Contender(name="x", callers=(call,) * callers).turn(requests)
        assert sorted(seen) == sorted(one.id for one in requests)
        assert len(taken.latencies) == 10
        assert taken.seconds >= max(taken.latencies) >= 0.001
        assert sum(taken.latencies) <= callers * taken.seconds


def test_callers_call_at_the_same_time():
    meeting = threading.Barrier(4, timeout=10)
    Contender(name="x", callers=(lambda request: meeting.wait(),) * 4).turn([picture(0)] * 8)


def test_a_caller_that_fails_fails_the_turn():
    def fail(request):
        raise OpsError("no")

    for callers in (1, 2):
        with pytest.raises(OpsError, match="no"):
            Contender(name="x", callers=(fail,) * callers).turn([picture(0)])


def test_all_of_a_contest_get_the_same_requests_in_every_round():
    got = {"direct": [], "served": []}
    one = contest(direct=[lambda p: got["direct"].append(p.id)], served=[lambda p: got["served"].append(p.id)])
    names = []

    def around(contender, turn):
        names.append(contender.name)
        return turn()

    measured = play([one], [picture(n) for n in range(4)], rounds=2, around=around)
    assert got["direct"] == got["served"] == ["p0", "p1", "p2", "p3", "p0", "p1", "p2", "p3", "p0"]
    assert names == ["direct", "served", "direct", "served", "direct", "served"] or sorted(names[:2]) == sorted(got)
    # One more round was played than is kept.
    assert {name: len(some) for name, some in measured.items()} == {"direct": 2, "served": 2}


def test_answers_that_differ_stop_the_benchmark():
    one, other = np.array([1.0, 0.0]), np.array([0.8, 0.6])
    assert check_vectors(contest(direct=[lambda p: one], served=[lambda p: 2 * one]), [picture(0)]) == 1.0
    with pytest.raises(OpsError, match=r"cosine 0\.80000"):
        check_vectors(contest(direct=[lambda p: one], served=[lambda p: other]), [picture(0)])
    check_hits(contest(direct=[lambda p: [p.id]], served=[lambda p: [p.id]]), [picture(0)])
    with pytest.raises(OpsError, match="expected the same"):
        check_hits(contest(direct=[lambda p: [p.id, "q"]], served=[lambda p: ["q", p.id]]), [picture(0)])


def test_pictures_are_of_mixed_shapes_in_turn():
    some = pictures(Profile(backbone="x", weights_sha256="y", sizes=Sizes(channels=8)))
    shapes = [one.shape for one in some]
    assert shapes[:4] == [(480, 640), (640, 480), (640, 640), (416, 640)]
    assert shapes == shapes[:4] * 3
    assert len({one.data for one in some}) == len(some)
    assert [one.id for one in sequence(some, 3, start=11)] == ["bench/11", "bench/00", "bench/01"]


def test_the_middle_has_the_aspect_and_stays_inside():
    pixels = np.arange(30 * 50, dtype=np.uint16).reshape(30, 50, 1).repeat(3, 2).astype(np.uint8)
    assert middle(pixels, (1, 1)).shape == (30, 30, 3)
    assert middle(pixels, (4, 3)).shape == (30, 22, 3)
    np.testing.assert_array_equal(middle(pixels, (3, 5)), pixels)


def counted(ns, requests=2, executions=2):
    return Counters(
        ensemble=(requests, 10 * ns),
        backbone=dict.fromkeys(PARTS, (requests, ns)),
        inferences=requests,
        executions=executions,
    )


def test_counters_add_up():
    assert counted(5).plus(counted(7)) == counted(12, 4, 4)
    assert counted(12, 4, 3).since(counted(5)) == counted(7, 2, 1)


def test_the_parts_sum_to_what_the_caller_saw():
    parts = mean(counted(2_000_000), graph_s=0.001, client_s=0.024, requests=2)
    assert parts.client == pytest.approx(12.0)
    assert parts.graph == pytest.approx(0.5)
    assert parts.ensemble == pytest.approx(10.0)
    assert sum(ms for _, ms in parts.rows) == pytest.approx(parts.client)
    # Triton may not have counted the last request yet: its means are by its own count.
    late = mean(counted(1_000_000, requests=1), graph_s=0.001, client_s=0.024, requests=2)
    assert late.ensemble == pytest.approx(parts.ensemble)


def test_the_machine_is_read_from_proc():
    text = "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: sse avx2 amx_bf16\n\nmodel name\t: another"
    assert field(text, "model name") == "A CPU"
    assert field(text, "nothing") == ""
    assert features(field(text, "flags")).startswith("avx2, amx_bf16; not avx512f")


def test_what_other_programs_use_is_what_is_left():
    before = CpuTime(when=0.0, busy=100.0, ours=10.0)
    after = CpuTime(when=10.0, busy=100.0 + 5.0 * os.cpu_count(), ours=10.0 + 4.0 * os.cpu_count())
    assert after.others_since(before) == pytest.approx(0.1)
    assert before.others_since(CpuTime(when=-1.0, busy=99.0, ours=0.0)) == 0.0


def test_our_own_time_is_counted():
    before = cpu_time(())
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    spent = cpu_time(()).ours - before.ours
    assert 0.08 <= spent <= 1.0
    assert cpu_time((os.getsid(0),)).ours >= spent


def test_the_time_of_a_server_that_was_started_and_stopped_is_ours():
    before = cpu_time(())
    worked = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", worked], check=True, start_new_session=True)
    assert cpu_time(()).ours - before.ours >= 0.28


def report(served):
    """A report in which serving reached `served` of the graph in process."""
    [*direct, one, four] = (
        Contender(name=name, callers=(print,)) for name in ("direct", "halves", "pixels, one", "pixels, four")
    )
    first = Contest(title="pixels → vectors", direct=tuple(direct), served=(one, four), requests=3)
    second = contest("JPEG → hits", search=[print], whole=[print])
    return ServingReport(
        contests=(first, second),
        rounds={
            "direct": rounds(10, 8),
            "pixels, one": rounds(11 * served, 9 * served),
            "pixels, four": rounds(10 * served, 8 * served),
            "halves": rounds(12.5, 10),
            "search": rounds(6, 6),
            "whole": rounds(3, 3),
        },
        batched=counted(1, requests=24, executions=20),
        parts=Breakdown(client=100.0, graph=90.0, ensemble=97.0, backbone=dict.fromkeys(PARTS, 23.0)),
        eager=Round(seconds=2.0, latencies=(1.0, 1.0)),
        machine=[("processor", "A CPU")],
        others=0.01,
        backbone="x",
        precision="fp32",
        agreement=0.9999999,
        pictures=[picture(0, (480, 640))],
        at_least=AT_LEAST,
        seed=0,
        command="python -m landseer.ops.bench.serving",
        date=datetime(2026, 1, 2, 3, 4, tzinfo=timezone.utc),
        seconds=12.0,
    )


@pytest.mark.parametrize(("served", "kept"), [(0.84, False), (0.86, True), (1.1, True)])
def test_the_verdict_is_of_the_worst_served_against_the_same_in_process(served, kept):
    found = outcome(report(served), report(served).contests[0])
    assert (found.baseline, found.served, found.rival) == ("direct", "pixels, four", "halves")
    assert found.to_rival.median == pytest.approx(served / 1.25)
    assert found.ratio.median == pytest.approx(served)
    assert verdict(report(served)) is kept


def test_the_report_says_what_was_measured():
    text = markdown(report(0.8))
    assert "0.800 (0.800 to 0.800)" in text
    whole = " ".join(text.split())
    assert "| pixels → vectors: Triton's `describe` | **0.800 (0.800 to 0.800)** | **0.640 (0.640 to 0.640)** |" in text
    assert "| JPEG → hits: `Search` | **0.500 (0.500 to 0.500)** | **0.500 (0.500 to 0.500)** |" in text
    assert "for the slower number of callers (four; whole)" in whole
    assert "The fastest way is halves for pixels" in whole
    assert "reaches 0.85 of the same way in process: **not passed**" in whole
    assert "| direct | 9.00 | 112 | 125 | 1 (baseline) |" in text
    assert "| whole | 3.00 | 333 | 333 | 0.500 (0.500 to 0.500) |" in text
    assert "at least 0.999999;" in text
    assert "24 pictures in 20 executions" in text
    assert "instead of calling Triton gives 56% more pictures/s; decoding" in whole
    assert "instead of calling Search gives 100% more pictures/s." in whole
    assert "not quiet" not in text
    assert "other programs used 40% of its cores" in markdown(dataclasses.replace(report(0.8), others=0.4))
    assert "1.00 pictures/s" in text
    assert "process: passed" in markdown(report(0.9))


def test_eager_that_cannot_be_had_is_said():
    assert "Eager torch was not measured" in markdown(dataclasses.replace(report(0.9), eager=None))


def test_options_that_make_no_sense_are_refused(capsys):
    with pytest.raises(SystemExit):
        _options(["--rounds", "0"])
    assert "expected a whole number of at least 1" in capsys.readouterr().err


def test_without_models_one_line_says_what_to_do(tmp_path, capsys):
    assert main(["--repository", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("landseer: error:")
    assert "run: python export/all.py" in said
    assert said.count("\n") == 1
