"""Replaces Triton's native onnxruntime backend, which the Triton from pip does not have.

Triton's Python backend loads this file in a stub process for every model with `backend: "onnxruntime"`. It only adapts
Triton's objects to landseer.ops.backend.runner.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from landseer.ops.backend.deadlines import Deadlines
from landseer.ops.backend.model_settings import from_triton
from landseer.ops.backend.runner import Job, Outputs, RequestFailure, Runner

CODES = {"invalid": "INVALID_ARG", "internal": "INTERNAL", "late": "UNAVAILABLE", "cancelled": "CANCELLED"}
"""Names of pb_utils.TritonError's codes; that class exists only after this module is imported."""

REFUSED = "landseer_triton_refused_total"
"""The counter of failed requests. Triton books every answer of a backend in Python as a success, errors, too."""


class TritonPythonModel:
    """The class that Triton looks for, with the three methods that it calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph; Triton reports an exception as the reason why the model cannot be served."""
        config = json.loads(args["model_config"])
        settings = from_triton(config, repository=Path(args["model_repository"]), version=args["model_version"])
        self._runner = Runner(settings)
        self._deadlines = Deadlines()
        description = "Requests that a model answered with an error"
        self._refused = pb_utils.MetricFamily(name=REFUSED, description=description, kind=pb_utils.MetricFamily.COUNTER)
        labels = {"model": args["model_name"], "version": args["model_version"]}
        self._refusals = {kind: self._refused.Metric(labels=labels | {"reason": kind}) for kind in CODES}
        log = pb_utils.Logger
        if self._runner.precision != settings.precision:
            log.log_warn(f"{args['model_name']}: this CPU has no {settings.precision}, using {self._runner.precision}")
        how = f"{settings.engine}, {self._runner.precision}, {settings.threads} threads"
        log.log_info(f"{args['model_name']}: {how}, {settings.path}")

    def execute(self, requests: Sequence[Any]) -> None:
        """Answer each request, with its tensors or its error, as soon as it is done.

        Triton may pass requests of several shapes at once; none waits for the inferences of the others.
        """
        senders, now = [request.get_response_sender() for request in requests], time.monotonic()
        jobs = [_job(request, self._deadlines.of(request.parameters(), now=now)) for request in requests]
        for place, answer in self._runner.answers(jobs):
            if isinstance(answer, RequestFailure):
                self._refusals[answer.kind].increment(1)
            senders[place].send(_response(answer), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def finalize(self) -> None:
        """Free the graph before the process ends."""
        self._runner.close()


def _job(request: Any, deadline: float) -> Job:
    return Job(
        inputs={tensor.name(): tensor.as_numpy() for tensor in request.inputs()},
        outputs=frozenset(request.requested_output_names()),
        refused=lambda: _refused(request, deadline),
    )


def _refused(request: Any, deadline: float) -> RequestFailure | None:
    """Return a failure if the request was cancelled or is late; Triton does not tell an ensemble's steps itself."""
    if request.is_cancelled():
        return RequestFailure(message="cancelled by the caller", kind="cancelled")
    if time.monotonic() > deadline:
        return RequestFailure(message="Request timeout expired: the deadline passed in the queue", kind="late")
    return None


def _response(answer: Outputs | RequestFailure) -> Any:
    if isinstance(answer, RequestFailure):
        code = getattr(pb_utils.TritonError, CODES[answer.kind])
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(answer.message, code))
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in answer.items()])
