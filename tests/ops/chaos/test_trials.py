"""Trials as `make chaos` has them: a real orchestrator, over a stand-in for Triton in a process of its own."""

from __future__ import annotations

import pytest
from fake_triton_process import FakeTritonServer

from landseer.client.blocking import BlockingSearchClient
from landseer.ops.chaos.album import Album
from landseer.ops.chaos.connection_faults import Idle, SlowReaders
from landseer.ops.chaos.model_faults import Unloaded
from landseer.ops.chaos.process_faults import HungAtStage, Terminated
from landseer.ops.chaos.scene import Scene
from landseer.ops.chaos.store_faults import FileLimit
from landseer.ops.chaos.trial import run_trial
from landseer.ops.chaos.version_faults import DiskFullInBuild, VersionDamaged, flip_bit
from landseer.ops.chaos.version_kills import version_kills

LONG_S = 60.0
"""How long a recovery may take beside other tests; `make chaos` measures it."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with Scene(FakeTritonServer(), folder=tmp_path_factory.mktemp("chaos")) as running:
        yield running


@pytest.fixture(scope="module")
def album(scene):
    with BlockingSearchClient(scene.address) as client:
        return Album.indexed(client)


@pytest.mark.parametrize(
    "fault",
    [
        HungAtStage("written, not committed"),
        Unloaded("coattention"),
        Idle(300),
        SlowReaders(),
        FileLimit(),
        VersionDamaged("one bit of an index version flipped before a start", flip_bit),
        DiskFullInBuild(),
        Terminated(),
    ],
    ids=lambda fault: fault.name,
)
def test_a_fault_goes_as_promised(scene, album, fault):
    fault.hold_s, fault.limit_s = min(fault.hold_s, 1.0), LONG_S
    outcome = run_trial(scene, album, fault)
    assert outcome.good, outcome
    if isinstance(fault, DiskFullInBuild) and outcome.skipped:
        pytest.skip(outcome.skipped)
    assert not outcome.skipped


def test_an_orchestrator_killed_while_it_merges_loses_nothing(scene, album):
    found = version_kills(scene, album, count=2, seed=1)
    assert found.faults == [] and found.places.total() == 2
    assert found.versions and found.backups


def test_a_lost_write_and_a_wrong_answer_are_seen(scene, album):
    class Tampered(Idle):
        name = "tampered with"

        def inject(self, scene):
            super().inject(scene)
            with BlockingSearchClient(scene.address) as client:
                client.upsert("anchor/0", album.known[1].image, metadata={"picture": "0"})
                client.delete("anchor/5")

    fault = Tampered(1)
    fault.hold_s = 1.0
    outcome = run_trial(scene, album, fault)
    assert any("anchor/0 has a descriptor of cosine" in said for said in outcome.lost)
    assert "anchor/5 was acknowledged and is gone" in outcome.lost
    assert outcome.wrong and not outcome.good
