from __future__ import annotations

import io

from rich.console import Console

from landseer.ops.train.progress_bars import Bars


def shown(*calls) -> str:
    """Return what the terminal shows after calls of a watcher."""
    stream = io.StringIO()
    with Bars(Console(file=stream, width=150), "mAP, %") as bars:
        for name, *arguments in calls:
            getattr(bars, name)(*arguments)
    return stream.getvalue()


def test_a_finished_run_that_resumes_has_a_full_bar_and_none_of_steps():
    told = shown(("resumed", 7, 7, 61.25))
    assert "finished before, 7 of 7 epochs: best validation (mAP, %) 61.25" in told
    assert "7/7" in told and "steps" not in told


def test_a_run_that_resumes_shows_what_is_done():
    told = shown(("resumed", 2, 7, 61.25), ("epoch", 2, 7, 30, 100), ("step", 0.5))
    assert "resumed, 2 of 7 epochs: best validation (mAP, %) 61.25" in told
    assert "2/7" in told and "31/100" in told and "loss 0.5000" in told


def test_a_new_run_shows_steps_once_there_are_some():
    assert "steps" not in shown(("doing", "validating"), ("validated", 40.0, True))
    assert "1/100" in shown(("epoch", 0, 7, 0, 100), ("step", 0.5))
