from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from landseer.ops.errors import OpsError
from landseer.ops.run.processes import Child, ChildConfig

FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
time.sleep(600)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""


def python(code: str, **more: object) -> ChildConfig:
    return ChildConfig(command=(sys.executable, "-S", "-c", code), **more)


def test_output_status_and_cleaning(tmp_path):
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / "file").touch()
    seen, log = [], tmp_path / "log"
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    child = Child.start(python(code, remove=(f"{tmp_path}/le*",), log_file=log, on_line=seen.append))
    assert child.wait(20) == 3
    assert sorted(child.lines) == sorted(seen) == ["err", "out"]
    assert sorted(log.read_text().split()) == ["err", "out"]
    assert not (tmp_path / "left").exists()


def test_stop_ends_its_children_too(eventually, is_running):
    child = Child.start(python(FAMILY))
    assert eventually(lambda: len(child.lines) == 1)
    grandchild = int(child.lines[0].split()[1])
    assert child.stop() == 128 + signal.SIGTERM
    assert not is_running(child.pid)
    assert not is_running(grandchild)
    assert child.stop() == 128 + signal.SIGTERM


def test_whoever_ignores_sigterm_is_killed(eventually, is_running):
    child = Child.start(python(STUBBORN, grace_s=0.3))
    assert eventually(lambda: list(child.lines) == ["ready"])
    assert child.stop() == 128 + signal.SIGKILL
    assert not is_running(child.pid)


def test_killing_the_command_ends_its_children(eventually, is_running):
    child = Child.start(python(FAMILY))
    assert eventually(lambda: len(child.lines) == 1)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait(20) == 128 + signal.SIGKILL
    assert not is_running(int(child.lines[0].split()[1]))


def test_killing_the_guard_ends_the_command(eventually, is_running, tmp_path):
    (tmp_path / "left").touch()
    child = Child.start(python(FAMILY, remove=(f"{tmp_path}/left",)))
    assert eventually(lambda: len(child.lines) == 1)
    child.watcher.kill()
    child.wait(20)
    assert not is_running(child.pid)
    assert not is_running(int(child.lines[0].split()[1]))
    assert not (tmp_path / "left").exists()


def test_killing_the_launcher_ends_everything(eventually, is_running, tmp_path):
    (tmp_path / "left").touch()
    code = f"""
import sys, time
from landseer.ops.run.processes import Child, ChildConfig
child = Child.start(ChildConfig(command=(sys.executable, "-S", "-c", {FAMILY!r}), remove=({str(tmp_path / "left")!r},)))
while not child.lines: time.sleep(0.05)
print(child.watcher.pid, child.pid, child.lines[0].split()[1], flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as launcher:
        pids = [int(word) for word in launcher.stdout.readline().split()]
        assert all(is_running(pid) for pid in pids)
        launcher.kill()
    assert eventually(lambda: not any(is_running(pid) for pid in pids))
    assert not (tmp_path / "left").exists()


def test_it_outlives_the_thread_that_started_it():
    started = []
    thread = threading.Thread(target=lambda: started.append(Child.start(python("import time; time.sleep(600)"))))
    thread.start()
    thread.join()
    child = started[0]
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.7)
    child.stop()


def test_a_command_that_does_not_exist():
    with pytest.raises(OpsError, match=r"could not start /no/such/command: .*No such file"):
        Child.start(ChildConfig(command=("/no/such/command",)))


SIGNALLED = """
import os, signal
from landseer.ops.run.processes import Stopping
before = signal.getsignal(signal.SIGTERM)
with Stopping() as stopping:
    os.kill(os.getpid(), signal.SIGTERM)
    assert stopping.event.wait(5)
assert signal.getsignal(signal.SIGTERM) is before
"""


def test_signals_set_the_event_and_the_handlers_come_back():
    # Not in the tests' own process: of libraries there that meddle with signals one lets it die now and then.
    subprocess.run([sys.executable, "-c", SIGNALLED], check=True, timeout=60)
