"""Which faults are tried, in order."""

from __future__ import annotations

from landseer.ops.chaos.clock_fault import ClockJump
from landseer.ops.chaos.connection_faults import Idle, Proxied, SlowReaders
from landseer.ops.chaos.fault import Fault
from landseer.ops.chaos.model_faults import OtherVersion, Unloaded
from landseer.ops.chaos.process_faults import Hung, HungAtStage, Killed, KilledAtStage, Terminated, TritonSlow
from landseer.ops.chaos.store_faults import DiskFull, FileLimit, StoreDamaged, flip_descriptor, truncate
from landseer.ops.chaos.tripwires import STAGES
from landseer.ops.chaos.version_faults import DiskFullInBuild, VersionDamaged, flip_bit, truncate_file

CONNECTIONS = 10_000
HOUR_S = 3600


def every_fault() -> list[Fault]:
    """Return all faults of `make chaos`."""
    return [
        Hung("Triton"),
        TritonSlow(),
        Unloaded("lattqe"),
        Unloaded("coattention"),
        *(KilledAtStage(stage) for stage in STAGES),
        *(HungAtStage(stage) for stage in STAGES),
        Killed("orchestrator"),
        Hung("orchestrator"),
        Terminated(),
        DiskFull(),
        FileLimit(),
        StoreDamaged("store file truncated", truncate),
        StoreDamaged("one bit of a descriptor flipped in the store file", flip_descriptor),
        VersionDamaged("index version truncated before a start", truncate_file),
        VersionDamaged("one bit of an index version flipped before a start", flip_bit),
        DiskFullInBuild(),
        ClockJump(HOUR_S),
        ClockJump(-HOUR_S),
        Idle(CONNECTIONS),
        SlowReaders(),
        Killed("Triton"),
        OtherVersion(),
        *(Proxied(where, how) for where in ("orchestrator", "Triton") for how in ("frozen", "forgotten")),
    ]
