"""What a failure does in a stage that an answer needs, and in one that it can do without."""

from __future__ import annotations

import asyncio
import logging
import time

import cv2
import lmdb
import numpy as np
import pytest

from landseer.ensemble.deadline import Deadline
from landseer.ensemble.errors import InferenceFailed, InvalidInput
from landseer.ensemble.search.stages import Stages
from landseer.ensemble.telemetry.metrics import Metrics
from landseer.ensemble.telemetry.request_id import ANSWERING, Answering

UNEXPECTED = [
    ValueError("secret"),
    IndexError("secret"),
    MemoryError("secret"),
    cv2.error("secret"),
    lmdb.CorruptedError("secret"),
    np.linalg.LinAlgError("secret"),
]


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def stages(metrics):
    return Stages(metrics, Deadline.after(5.0), reserve_s=0.05)


def failing(error):
    async def work(_):
        raise error

    return work


def count(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


@pytest.mark.parametrize("error", UNEXPECTED, ids=lambda error: type(error).__name__)
async def test_an_optional_stage_is_left_out_whatever_it_fails_with(stages, metrics, caplog, error):
    ANSWERING.set(Answering(request_id="mine"))
    with caplog.at_level(logging.ERROR):
        assert await stages.optional("rerank", failing(error)) is None
    said = "UNEXPECTED: unexpected error; see the server's log for request mine"
    assert stages.degradations == {"rerank": said}
    assert count(metrics, "landseer_degraded_total", stage="rerank") == 1
    assert count(metrics, "landseer_stage_errors_total", stage="rerank", reason="UNEXPECTED") == 1
    assert [record.exc_info[1] for record in caplog.records] == [error]


async def test_known_errors_are_told_without_a_traceback(stages, caplog):
    with caplog.at_level(logging.INFO):
        assert await stages.optional("expand", failing(InferenceFailed("broken"))) is None
    assert stages.degradations == {"expand": "INFERENCE_FAILED: broken"}
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("error", [*UNEXPECTED, InferenceFailed("broken")], ids=lambda error: type(error).__name__)
async def test_a_stage_goes_on_without_a_part_that_fails(stages, metrics, error):
    async def work(left):
        return await stages.part("expand", failing(error)(left)), "the rest"

    assert await stages.optional("expand", work) == (None, "the rest")
    [(stage, why)] = stages.degradations.items()
    reason = why.split(":")[0]
    assert stage == "expand" and (reason == "UNEXPECTED" or why == "INFERENCE_FAILED: broken")
    assert count(metrics, "landseer_degraded_total", stage="expand") == 1
    assert count(metrics, "landseer_stage_errors_total", stage="expand", reason=reason) == 1
    assert count(metrics, "landseer_stage_duration_seconds_count", stage="expand") == 1


async def test_a_part_ends_with_the_deadline_of_its_stage(metrics):
    stages, ended = Stages(metrics, Deadline.after(0.1), reserve_s=0.05), []

    async def slow():
        await asyncio.sleep(5.0)
        ended.append("too late")

    async def work(_):
        return await stages.part("expand", slow()), "the rest"

    assert await stages.optional("expand", work) is None
    assert "DEADLINE" in stages.degradations["expand"] and not ended
    assert count(metrics, "landseer_stage_duration_seconds_count", stage="expand") == 1


@pytest.mark.parametrize("error", UNEXPECTED, ids=lambda error: type(error).__name__)
async def test_errors_of_required_stages_are_raised(stages, error):
    with pytest.raises(type(error), match="secret"):
        await stages.required("search", failing(error))
    assert not stages.degradations


async def test_bad_input_is_raised_from_any_stage(stages):
    with pytest.raises(InvalidInput, match="region"):
        await stages.optional("rerank", failing(InvalidInput("region", "bad")))
    with pytest.raises(InvalidInput, match="region"):
        await stages.part("rerank", failing(InvalidInput("region", "bad"))(None))
    assert not stages.degradations


async def test_a_stage_that_runs_twice_takes_the_time_of_both(stages):
    async def work(_):
        time.sleep(0.02)

    await stages.optional("rerank", work)
    once = stages.timings["rerank"]
    await stages.optional("rerank", work)
    assert stages.timings["rerank"] >= once + 0.02
