"""When a server is ready, by what Triton answers, fails to answer, and answers meanwhile."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time

import pytest
from fake_triton import PROFILE

from landseer.ensemble.config import NONE, ServerConfig
from landseer.ensemble.errors import CheckMissed, ModelsUnavailable, ProfileMismatch
from landseer.ensemble.index.readiness import Readiness
from landseer.ensemble.inference.triton import Served
from landseer.ensemble.telemetry.metrics import Metrics

SERVED = Served(profile=PROFILE, versions=())
OTHERS = Served(profile=dataclasses.replace(PROFILE, weights_sha256="9" * 64), versions=())
MISSED = CheckMissed("no answer")


class Answers:
    """A Triton whose checks have these outcomes; the last one repeats."""

    def __init__(self, *outcomes):
        self.outcomes, self.checks = list(outcomes), 0
        self.inferred = -1.0
        self.replaced = asyncio.Event()

    async def served(self, timeout_s, known=None):
        self.checks += 1
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if outcome == "missed, but an inference succeeded":
            self.inferred = time.monotonic()
            raise MISSED
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def answered_since(self, when):
        return self.inferred >= when


@pytest.fixture
async def watched(tmp_path):
    """Returns what was reported after each check of a Triton with these answers."""

    async def after(*outcomes, checks):
        config = ServerConfig(
            store=tmp_path / "store", store_limit_bytes=2**24, threads=1, local_features=NONE, poll_s=0.01
        )
        reports, triton = [], Answers(SERVED, *outcomes)
        readiness = Readiness(config, triton, Metrics(), reports.append)
        await readiness._look()
        await readiness._opening
        readiness._show()
        assert reports == [True]
        triton.checks, watching = 0, asyncio.create_task(readiness.watch())
        while len(reports) <= checks:
            await asyncio.sleep(0.005)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await readiness.close()
        return reports[1 : checks + 1]

    return after


async def test_a_check_or_two_without_an_answer_change_nothing(watched):
    assert await watched(MISSED, MISSED, SERVED, MISSED, MISSED, SERVED, checks=7) == [True] * 7


async def test_three_in_a_row_do_until_one_is_answered(watched):
    found = await watched(MISSED, MISSED, MISSED, MISSED, SERVED, MISSED, SERVED, checks=7)
    assert found == [True, True, False, False, True, True, True]


async def test_inferences_that_succeed_meanwhile_count_as_answers(watched):
    busy = "missed, but an inference succeeded"
    assert await watched(MISSED, MISSED, busy, MISSED, MISSED, busy, SERVED, checks=7) == [True] * 7
    assert await watched(*[busy] * 9, SERVED, checks=9) == [True] * 9


@pytest.mark.parametrize("answer", [ModelsUnavailable("backbone is not loaded"), ProfileMismatch("no profile"), OTHERS])
async def test_what_triton_does_answer_counts_at_once(watched, answer):
    assert await watched(answer, SERVED, checks=2) == [False, True]


@pytest.mark.parametrize(
    ("release", "relayed", "level"),
    [("2.51.0", False, logging.WARNING), ("2.51.0", True, logging.INFO), ("2.75.0", False, None)],
)
async def test_a_triton_that_may_crash_is_told_of(watched, caplog, release, relayed, level):
    with caplog.at_level(logging.INFO):
        await watched(dataclasses.replace(SERVED, server=release, relayed=relayed), checks=1)
    told = [record.levelno for record in caplog.records if "may crash" in record.getMessage()]
    assert told == ([] if level is None else [level])
