"""Folders of long runs are removed, however the run ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from landseer.ops import scratch
from landseer.ops.scratch import scratch_folder

ENDED = "from landseer.ops.bench.bench_command import run_as_script"
KILLED = "run_as_script = lambda main: main()"
RUN = """
import time
from landseer.ops.scratch import scratch_folder

def main():
    try:
        with scratch_folder("test") as folder:
            (folder / "file").write_text("x")
            print(folder, flush=True)
            try:
                time.sleep(60)
            finally:
                time.sleep(0.3)  # it ends its servers
    except KeyboardInterrupt:
        return 130

run_as_script(main)
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Starts a run; returns its process and its folder."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(scratch.tempfile, "tempdir", None)
    started: list[subprocess.Popen[str]] = []

    def start(how: str) -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen([sys.executable, "-c", how + RUN], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_run_that_is_ended_removes_its_folder_though_it_is_told_thrice(run) -> None:
    process, folder = run(ENDED)
    assert folder.is_dir()
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
        time.sleep(0.05)
    assert process.wait(20) == 130
    assert not folder.exists()


def test_the_next_run_removes_what_a_killed_one_left_and_nothing_else(run, tmp_path: Path) -> None:
    (killed, left), (_, used) = run(KILLED), run(KILLED)
    killed.kill()
    killed.wait(20)
    young, others = tmp_path / "landseer-scratch-test-young", tmp_path / "landseer-scratch-other-x"
    for folder in (young, others):
        folder.mkdir()
    for folder in (left, used, others):
        os.utime(folder, (0, 0))
    with scratch_folder("test") as mine:
        assert sorted(tmp_path.iterdir()) == sorted([mine, used, young, others])
        assert (used / "file").exists()
    assert not mine.exists()
