"""A few faults of `make chaos` on a real Triton, once each."""

from __future__ import annotations

import pytest

from landseer.client.blocking import BlockingSearchClient
from landseer.ops.chaos.album import Album
from landseer.ops.chaos.history_trial import history_trial
from landseer.ops.chaos.model_faults import Unloaded
from landseer.ops.chaos.process_faults import Hung, KilledAtStage
from landseer.ops.chaos.scene import Scene
from landseer.ops.chaos.store_faults import StoreDamaged, truncate
from landseer.ops.chaos.trial import run_trial

pytestmark = pytest.mark.stack
LONG_S = 30.0
"""How long a recovery may take beside other work; `make chaos` measures it."""


@pytest.fixture(scope="module")
def scene(stack, tmp_path_factory):
    with Scene(stack.triton, folder=tmp_path_factory.mktemp("chaos"), shared=True) as running:
        yield running


@pytest.fixture(scope="module")
def album(scene):
    with BlockingSearchClient(scene.address) as client:
        return Album.indexed(client)


@pytest.mark.parametrize(
    "fault",
    [
        Hung("Triton"),
        Unloaded("lattqe"),
        KilledAtStage("committed, not indexed"),
        StoreDamaged("store file truncated", truncate),
    ],
    ids=lambda fault: fault.name,
)
def test_a_fault_goes_as_promised(scene, album, fault):
    fault.hold_s, fault.limit_s = min(fault.hold_s, 3.0), LONG_S
    outcome = run_trial(scene, album, fault)
    assert outcome.good, outcome


def test_the_history_of_a_killed_orchestrator_is_linearisable(scene, album):
    found = history_trial(scene, seconds=5.0, clock=False)
    assert not found.faults
    assert found.operations > 50
