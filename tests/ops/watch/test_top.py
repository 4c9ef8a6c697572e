"""The figures of `landseer top`, from pages of metrics to what it prints."""

from __future__ import annotations

import http.server
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landseer.client.cli import main
from landseer.ensemble.telemetry.metrics import Metrics
from landseer.ops.errors import OpsError
from landseer.ops.run.ports import free_port
from landseer.ops.watch.scrape import buckets, fetch, increase, parse, quantile
from landseer.ops.watch.top_figures import figures, plain, triton_figures

INF = math.inf
SEARCH = ("landseer.v1.SearchService", "Search")


@pytest.mark.parametrize(
    ("q", "counts", "expected"),
    [
        (0.5, {1: 2, 2: 4, INF: 4}, 1.0),
        (0.75, {1: 2, 2: 4, INF: 4}, 1.5),
        (0.5, {1: 4, INF: 4}, 0.5),  # the first bucket begins at 0
        (0.99, {1: 1, 2: 1, INF: 100}, 2.0),  # in the last: the bound below it
        (0.0, {1: 2, INF: 4}, 0.0),
        (1.0, {1: 2, 2: 4, INF: 4}, 2.0),
        (0.5, {-1: 4, 1: 4, INF: 4}, -1.0),  # a first bucket below 0 has no known beginning
        (0.5, {1: 2, 2: 1, 4: 4, INF: 4}, 1.0),  # counts that fall are held up
    ],
)
def test_quantile_is_that_of_prometheus(q, counts, expected):
    assert quantile(q, counts) == pytest.approx(expected)


@pytest.mark.parametrize("counts", [{}, {INF: 4}, {1: 0, INF: 0}, {1: 3, 2: 4}])
def test_quantile_of_nothing_is_nan(counts):
    assert math.isnan(quantile(0.5, counts))


@given(st.lists(st.floats(0, 40), min_size=1), st.floats(0.01, 1))
def test_quantile_lies_in_the_bucket_of_the_true_one(values, q):
    bounds = [0.5, 1, 2, 4, 8, 16, 32, INF]
    found = quantile(q, {bound: sum(value <= bound for value in values) for bound in bounds})
    true = sorted(values)[max(0, math.ceil(q * len(values)) - 1)]
    upper = next(bound for bound in bounds if true <= bound)
    lower = max((bound for bound in bounds if bound < upper), default=0)
    assert lower - 1e-9 <= found <= min(upper, 32) + 1e-9


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus is not installed")
def test_prometheus_says_the_same(tmp_path):
    counts = {"0.1": 3, "0.25": 11, "1": 11, "2.5": 40, "+Inf": 44}
    expected = {
        q: quantile(q, {float(bound): count for bound, count in counts.items()}) for q in (0.05, 0.5, 0.9, 0.99)
    }
    series = [{"series": f'h_bucket{{le="{bound}"}}', "values": str(count)} for bound, count in counts.items()]
    checks = [
        {
            "expr": f"histogram_quantile({q}, h_bucket)",
            "eval_time": "0",
            "exp_samples": [{"labels": "{}", "value": value}],
        }
        for q, value in expected.items()
    ]
    file = tmp_path / "test.yml"
    file.write_text(json.dumps({"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": checks}]}))
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def page(metrics):
    from prometheus_client import generate_latest

    return generate_latest(metrics.registry).decode()


def test_figures_are_of_the_interval_between_two_looks():
    metrics = Metrics()
    metrics.serving.set(1)
    handled = metrics.handled.labels
    handled(*SEARCH, "OK").inc(100)
    metrics.handling.labels(*SEARCH).observe(20)
    metrics.stage.labels("describe").observe(20)
    before = parse(page(metrics), at=10.0)
    handled(*SEARCH, "OK").inc(8)
    handled(*SEARCH, "INTERNAL").inc(2)
    handled("landseer.v1.IndexService", "Upsert", "INTERNAL").inc(2)
    for _ in range(10):
        metrics.handling.labels(*SEARCH).observe(0.3)
        metrics.handling.labels("landseer.v1.IndexService", "Upsert").observe(9)
        metrics.stage.labels("search").observe(0.003)
    metrics.degraded.labels("rerank").inc(2)
    metrics.shed.labels("search", "slow").inc(4)
    metrics.waiting.labels("search").set(5)
    metrics.in_flight.labels(*SEARCH).set(7)
    metrics.triton_in_flight.set(3)
    metrics.ingested.labels("added").inc(6)
    metrics.pictures.set(24)
    metrics.store_bytes.set(1024)
    told = figures(before, parse(page(metrics), at=12.0))
    assert (told.interval_s, told.serving, told.searches_per_s) == (2.0, True, 4.0)
    assert told.errors_per_s == {"INTERNAL": 2.0}
    assert 0.25 < told.search_s["p50"] < told.search_s["p95"] < told.search_s["p99"] <= 0.5
    assert list(told.stage_p95_s) == ["search"], "only what ran in the interval"
    assert 0.0019 < told.stage_p95_s["search"] < 0.0040
    assert told.degraded == {"rerank": 0.25}
    assert (told.shed_per_s, told.waiting) == ({"search": 2.0}, {"search": 5.0})
    assert (told.in_flight, told.triton_in_flight, told.pictures, told.store_bytes) == (7, 3, 24, 1024)
    assert told.ingested_per_s == {"added": 3.0}


def test_figures_of_a_server_that_has_done_nothing():
    looks = [parse(page(Metrics()), at) for at in (1.0, 2.0)]
    told = plain(figures(*looks))
    json.dumps(told, allow_nan=False)
    assert (told["searches_per_s"], told["search_s"]["p95"], told["serving"]) == (0.0, None, False)


def test_a_server_that_started_anew_counts_from_nothing():
    before, now = (parse(f"# TYPE c counter\nc_total{{a='1'}} {value}\n".replace("'", '"'), at=1.0) for value in (9, 2))
    assert increase(before, now).total("c_total") == 2


def test_buckets_are_summed_over_other_labels():
    text = 'h_bucket{le="1",a="x"} 1\nh_bucket{le="1",a="y"} 2\nh_bucket{le="+Inf",a="x"} 4\n'
    looked = parse("# TYPE h histogram\n" + text, at=0.0)
    assert buckets(looked, "h") == {1.0: 3.0, INF: 4.0}
    assert buckets(looked, "h", a="x") == {1.0: 1.0, INF: 4.0}


def triton_page(count, runs):
    return (
        "# HELP nv_inference_count Inferences\n# TYPE nv_inference_count counter\n"
        f'nv_inference_count{{model="backbone",version="1"}} {count}\nnv_inference_count{{model="describe"}} 900\n'
        f'# TYPE nv_inference_exec_count counter\nnv_inference_exec_count{{model="backbone",version="1"}} {runs}\n'
    )


def test_tritons_pictures_and_batches():
    told = triton_figures(parse(triton_page(10, 10), 0.0), parse(triton_page(40, 20), 2.0))
    assert (told.pictures_per_s, told.mean_batch) == (15.0, 3.0)
    idle = triton_figures(parse(triton_page(10, 10), 0.0), parse(triton_page(10, 10), 2.0))
    assert plain(idle) == {"pictures_per_s": 0.0, "mean_batch": None}


@pytest.fixture
def served():
    """Serves what is put into it at /metrics."""
    pages = {"/metrics": page(Metrics()), "/triton": triton_page(1, 1), "/other": "<html>"}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            found = pages.get(self.path)
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write((found or "").encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("path", "said"), [("/nothing", "answers 404 Not Found"), ("/other", "is not a metrics page")])
def test_what_is_no_page_of_metrics_is_one_line(served, path, said):
    with pytest.raises(OpsError, match=said) as caught:
        fetch(served + path)
    assert "\n" not in str(caught.value)


def test_once_prints_a_table(served, capsys):
    address = served.removeprefix("http://")
    assert (
        main(["top", "--once", "--interval", "0.1", "--metrics", address, "--triton-metrics", f"{served}/triton"]) == 0
    )
    out = capsys.readouterr().out
    assert f"Landseer at {served}/metrics: NOT SERVING" in out
    assert "searches answered" in out and "0.0 pictures/s" in out


def test_once_in_json(served, capsys):
    assert main(["top", "--once", "--json", "--interval", "0.1", "--metrics", served]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["landseer"]["searches_per_s"] == 0
    assert (told["triton"], told["down"]) == (None, [])


def test_who_is_down_is_one_line(served, capsys):
    nobody = f"127.0.0.1:{free_port()}"
    assert main(["top", "--once", "--metrics", nobody]) == 1
    assert capsys.readouterr().err == f"landseer top: no answer from http://{nobody}/metrics: Connection refused\n"
    assert main(["top", "--once", "--interval", "0.1", "--metrics", served, "--triton-metrics", nobody]) == 0
    said = capsys.readouterr()
    assert said.err == f"landseer top: no answer from http://{nobody}/metrics: Connection refused\n"
    assert "searches answered" in said.out


def test_it_goes_on_until_ctrl_c_also_while_nobody_answers(served):
    command = [sys.executable, "-m", "landseer.client.cli", "top", "--json", "--interval", "0.1", "--metrics"]
    for url, key in {served: "landseer", f"127.0.0.1:{free_port()}": "down"}.items():
        with subprocess.Popen([*command, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            lines = [json.loads(process.stdout.readline()) for _ in range(3)]
            os.kill(process.pid, signal.SIGINT)
            assert process.communicate(timeout=20)[1] == ""
        assert all(line[key] for line in lines)
        assert process.returncode == 130
