"""What each step of describing a picture in bulk costs, one picture after the other in one process."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from landseer.ensemble.keypoints.rootsift import extract
from landseer.ensemble.store.record_store import RecordStore
from landseer.ops.bulk.describer import DescribingOrder, PictureDescriber

DECODING, MODELS, KEYPOINTS, SIFT = "decoding and the thumbnail", "models", "keypoints and words", "of these, SIFT"
RECORD, WRITING = "the record, to the writer and back", "into the store, alone"
WARM = 3
"""Pictures before those that count."""


class StepClock:
    """Adds up the processor time of steps: of this process and those that it started."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time of the block."""
        # To look for the others takes time of our own, which must not count.
        others, own = _others(), time.process_time()
        yield
        spent = time.process_time() - own
        self._spent[name] = self._spent.get(name, 0.0) + spent + _others() - others

    def means(self, pictures: int) -> dict[str, float]:
        """Return the seconds of a core a picture, by step."""
        return {name: spent / pictures for name, spent in self._spent.items()}


def bulk_steps(files: Sequence[Path], order: DescribingOrder, store: RecordStore) -> dict[str, float]:
    """Return the seconds of a core a picture of each step, after the first `WARM`. Errors of `PictureDescriber`."""
    describer = PictureDescriber(order)
    try:
        for file in files[:WARM]:
            _step_by_step(file, describer, store, StepClock())
        clock = StepClock()
        for file in files[WARM:]:
            _step_by_step(file, describer, store, clock)
    finally:
        describer.close()
    return clock.means(len(files) - WARM)


def _step_by_step(file: Path, describer: PictureDescriber, store: RecordStore, clock: StepClock) -> None:
    with clock.step(DECODING):
        prepared = describer.decode(file.read_bytes())
    with clock.step(MODELS):
        found = describer.infer(prepared)
    with clock.step(KEYPOINTS):
        keypoints = describer.keypoints(prepared.pixels)
    if keypoints is not None:
        with clock.step(SIFT):
            extract(prepared.pixels)
    with clock.step(RECORD):
        record = pickle.loads(pickle.dumps(describer.record(str(file), found, keypoints)))
    with clock.step(WRITING):
        store.put_many([record])


def _others() -> float:
    """Return the seconds of a core that the processes that this one started have spent."""
    return sum(_scheduled(child.pid) for child in psutil.Process().children(recursive=True))


def _scheduled(pid: int) -> float:
    """Return the seconds that a process ran, to the nanosecond; 0 if it has ended or Linux does not say."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
