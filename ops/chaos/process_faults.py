"""Faults of processes: killed, hung, slow, told to end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

import psutil

from landseer.ops.chaos import tripwires
from landseer.ops.chaos.calls import CLEAR, OK, Call
from landseer.ops.chaos.fault import Fault
from landseer.ops.chaos.scene import Scene
from landseer.ops.errors import OpsError
from landseer.ops.run.server import Server

STAGE_WAIT_S = 15.0
ACCEPTED_S = 0.3
"""A call that began so long before SIGTERM has reached the server."""
GRACE_S = 15.0
"""Most seconds from SIGTERM to the end: 10 for calls that run, and some to close the store."""
RUN_S, STOP_S = 0.05, 0.45


class Killed(Fault):
    """SIGKILL; whoever watches the server starts it again."""

    hold_s = 0.0

    def __init__(self, which: str) -> None:
        self.name = f"{which} killed"
        self._which = which

    def inject(self, scene: Scene) -> None:
        """Kill it."""
        self._pid, self._began = _server(scene, self._which).pid, time.monotonic()
        scene.kill(_server(scene, self._which))

    def heal(self, scene: Scene) -> None:
        """Wait until the next one is ready."""
        scene.wait_ready(lambda: _server(scene, self._which), other_than=self._pid)
        self.note = f"it was started again and ready {time.monotonic() - self._began:.1f} s after its end"


class Hung(Fault):
    """SIGSTOP, then SIGCONT, to a server and its children."""

    def __init__(self, which: str) -> None:
        self.name = f"{which} hung"
        self._which = which

    def inject(self, scene: Scene) -> None:
        """Stop all its processes."""
        self._family = family(_server(scene, self._which))
        send(self._family, signal.SIGSTOP)

    def heal(self, scene: Scene) -> None:
        """Let them go on."""
        send(self._family, signal.SIGCONT)


class TritonSlow(Fault):
    """SIGSTOP in bursts: it runs a tenth of the time."""

    name = "Triton slow (runs a tenth of the time)"
    hold_s = 10.0

    def inject(self, scene: Scene) -> None:
        """Begin the bursts."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._burst, args=(family(scene.triton),), daemon=True)
        self._thread.start()

    def heal(self, scene: Scene) -> None:
        """End the bursts."""
        self._over.set()
        self._thread.join()

    def _burst(self, processes: list[psutil.Process]) -> None:
        while not self._over.is_set():
            send(processes, signal.SIGSTOP)
            self._over.wait(STOP_S)
            send(processes, signal.SIGCONT)
            self._over.wait(RUN_S)


class KilledAtStage(Killed):
    """The orchestrator killed as soon as a write reaches a stage."""

    def __init__(self, stage: str) -> None:
        super().__init__("orchestrator")
        self.name = f"orchestrator killed in a write: {stage}"
        self._stage = stage

    def inject(self, scene: Scene) -> None:
        """Let the next write kill it, and wait for that."""
        self._pid = scene.orchestrator.pid
        scene.expected.add(self._pid)
        _trip(scene, self._stage, signal.SIGKILL)
        self._began = time.monotonic()


class HungAtStage(Fault):
    """The orchestrator stopped as soon as a write reaches a stage."""

    hold_s = 5.0

    def __init__(self, stage: str) -> None:
        self.name = f"orchestrator hung in a write: {stage}"
        self._stage = stage

    def inject(self, scene: Scene) -> None:
        """Let the next write stop it, and wait for that."""
        self._pid = scene.orchestrator.pid
        _trip(scene, self._stage, signal.SIGSTOP)

    def heal(self, scene: Scene) -> None:
        """Let it go on."""
        os.kill(self._pid, signal.SIGCONT)


class Terminated(Fault):
    """SIGTERM while many calls run."""

    name = "SIGTERM under load"
    hold_s = 0.0
    writers = 6
    # gRPC's server in Python cancels calls that arrive just as it stops, before any code of ours sees them. The client
    # retries all but a Delete.
    allowed = CLEAR | {"CANCELLED"}

    def inject(self, scene: Scene) -> None:
        """Tell the orchestrator to end, and wait for that."""
        server = scene.orchestrator
        scene.expected.add(server.pid)
        self._pid, self._told = server.pid, time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        process = psutil.Process(server.pid)
        with suppress(psutil.TimeoutExpired):
            process.wait(GRACE_S)
        self._took = time.monotonic() - self._told

    def heal(self, scene: Scene) -> None:
        """Wait until the next one is ready."""
        scene.wait_ready(lambda: scene.orchestrator, other_than=self._pid)
        self.note = f"it ended {self._took:.1f} s after SIGTERM"

    def complaints(self, scene: Scene, calls: Sequence[Call]) -> list[str]:
        """Every call that it had accepted must be answered, and it must end in time."""
        running = [call for call in calls if call.began < self._told - ACCEPTED_S and call.ended > self._told]
        lost = [call for call in running if call.outcome != OK]
        cancelled = sum(call.outcome == "CANCELLED" for call in calls)
        self.note += f"; {len(running)} calls were running, {len(running) - len(lost)} of them were answered"
        self.note += f"; gRPC cancelled {cancelled} that arrived just then" if cancelled else ""
        late = [f"it took {self._took:.1f} s to end"] if self._took >= GRACE_S else []
        return [*(f"a running {call.kind} failed with {call.outcome}: {call.said}" for call in lost), *late]


def family(server: Server) -> list[psutil.Process]:
    """Return a server's processes, children first."""
    own = psutil.Process(server.pid)
    return [*own.children(recursive=True), own]


def send(processes: Sequence[psutil.Process], number: int) -> None:
    """Send a signal to processes, those that have ended left out."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _server(scene: Scene, which: str) -> Server:
    return scene.triton if which == "Triton" else scene.orchestrator


def _trip(scene: Scene, stage: str, number: int) -> None:
    tripwires.arm(scene.folder, stage, number)
    until = time.monotonic() + STAGE_WAIT_S
    while tripwires.is_armed(scene.folder):
        if time.monotonic() > until:
            raise OpsError(f"no write reached the stage {stage!r} within {STAGE_WAIT_S:g} s")
        time.sleep(0.02)
