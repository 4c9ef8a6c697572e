"""The dashboard of Triton by model."""

from __future__ import annotations

from landseer.ops.watch.panels import Board, I, Panel, R, one


def _triton(numerator: str) -> str:
    """Return one of Triton's times, in seconds per inference, by model."""
    return (
        f"sum by (model) (rate({numerator}{{{I}}}[{R}])) / 1e6"
        f" / (sum by (model) (rate(nv_inference_count{{{I}}}[{R}])) > 0)"
    )


BOARD = Board(
    uid="landseer-triton",
    title="Landseer: Triton by model",
    description="Triton's own metrics. The ensembles describe and describe_full consist of the other models.",
    rows=[
        (
            "Throughput",
            [
                Panel(
                    title="Inferences per second",
                    unit="ops",
                    queries=one(f"sum by (model) (rate(nv_inference_count{{{I}}}[{R}]))", "{{model}}"),
                ),
                Panel(
                    title="Pictures per execution",
                    queries=one(
                        f"sum by (model) (rate(nv_inference_count{{{I}}}[{R}]))"
                        f" / (sum by (model) (rate(nv_inference_exec_count{{{I}}}[{R}])) > 0)",
                        "{{model}}",
                    ),
                    description="1 means that nothing is batched.",
                ),
                Panel(
                    title="Failed requests",
                    unit="reqps",
                    queries=[
                        *one(
                            f"sum by (model) (rate(nv_inference_request_failure{{{I}}}[{R}])) or vector(0)",
                            "{{model}}",
                        ),
                        *one(
                            f"sum by (model, reason) (rate(landseer_triton_refused_total{{{I}}}[{R}]))",
                            "{{model}}: {{reason}}",
                        ),
                    ],
                    description="late and cancelled ones were dropped before they ran: nobody waits for them.",
                ),
            ],
        ),
        (
            "Time per inference",
            [
                Panel(
                    title="In the queue",
                    unit="s",
                    queries=one(_triton("nv_inference_queue_duration_us"), "{{model}}"),
                ),
                Panel(
                    title="Computing",
                    unit="s",
                    queries=one(_triton("nv_inference_compute_infer_duration_us"), "{{model}}"),
                ),
                Panel(
                    title="Requests in the queue",
                    queries=one(f"sum by (model) (nv_inference_pending_request_count{{{I}}})", "{{model}}"),
                ),
            ],
        ),
    ],
)
