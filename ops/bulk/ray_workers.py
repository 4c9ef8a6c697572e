"""Describes pictures on the processes of a Ray cluster: one of this machine alone, or one that is there already."""

from __future__ import annotations

import logging
import os
import pickle
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data

from landseer.ensemble.cores import cores
from landseer.ensemble.errors import LandseerError
from landseer.ops.bulk.contents import contents
from landseer.ops.bulk.describer import DescribingOrder, PictureDescriber
from landseer.ops.bulk.huge_pages import HUGE_PAGES
from landseer.ops.bulk.outcome import Outcome
from landseer.ops.bulk.sources import BulkPicture
from landseer.ops.errors import OpsError
from landseer.ops.scratch import scratch_folder

LOOPBACK = "127.0.0.1"
STARTS = 3
"""Times that Ray is started if it fails: it gives itself 30 s, which is little on a machine that is very busy."""
RETRIES = 3
"""Times that pictures are given to another process when theirs ends; then they fail. A run must not stop for them."""
_TASK, _TASKS = 16, 8192
"""Most pictures of a task, unless that makes more tasks than so many, which is as many as Ray likes to plan."""
_EACH = 16
"""Tasks of each worker at least, so that all end at about the same time."""
_OBJECTS_BYTES = 512 * 2**20
"""Shared memory for records on their way: about 70 KB each."""
_log = logging.getLogger(__name__)


@contextmanager
def cluster(address: str | None, *, workers: int | None, threads: int) -> Iterator[int]:
    """Use a Ray cluster while the block runs, and give the number of its workers.

    address: of one that is there; None starts one of this machine alone, which ends with this process, however that
    ends. workers: how many; None for one for each core. threads: of each. OpsError.
    """
    with ExitStack() as ending:
        if address is None:
            count = workers or max(1, cores() // threads)
            ending.enter_context(_connected(_alone(ending.enter_context(scratch_folder("bulk")), count * threads)))
            yield count
            return
        ending.enter_context(_connected({"address": address}))
        there = int(ray.cluster_resources().get("CPU", 0)) // threads
        if there < (workers or 1):
            raise OpsError(
                f"the Ray cluster at {address} has processors for {there} workers of {threads} threads; "
                f"got --workers {workers or 1}: ask for fewer workers or threads, or add machines"
            )
        yield workers or there


def _alone(folder: Path, processors: int) -> dict[str, Any]:
    """Return how to start a cluster that asks nothing of the network. folder: for its logs."""
    # Ray would report its use, and look up an address outside to find its own.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault(*HUGE_PAGES)
    return {
        "address": "local",
        "num_cpus": processors,
        "num_gpus": 0,
        "include_dashboard": False,
        "object_store_memory": _OBJECTS_BYTES,
        "_node_ip_address": LOOPBACK,
        "_temp_dir": str(folder),
    }


@contextmanager
def _connected(options: dict[str, Any]) -> Iterator[None]:
    try:
        _connect(options)
        yield
    finally:
        ray.shutdown()


def _connect(options: dict[str, Any]) -> None:
    # Else Ray logs on the terminal, also what is no error.
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    starts = STARTS if options["address"] == "local" else 1
    for left in reversed(range(starts)):
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
            return
        except Exception as error:  # Ray raises what it likes, Exception itself if it starts too slowly.
            ray.shutdown()
            if not left:
                raise OpsError(f"Ray cannot be used: {_last_line(error)}") from error


def outcomes(pictures: Sequence[BulkPicture], order: DescribingOrder, *, workers: int) -> Iterator[list[Outcome]]:
    """Describe pictures on so many workers, and yield what became of them, in order, a few at a time.

    A worker that ends is replaced, and its pictures are described again; those that end `RETRIES` more are left out.
    OpsError if the workers cannot start.
    """
    options = ray.data.DataContext.get_current()
    options.execution_options.preserve_order = True
    options.enable_progress_bars = False
    options.print_on_execution_start = False
    options.max_errored_blocks = -1
    tasks = ray.data.from_arrow(list(_tasks(pictures, workers)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # From Ray 2.64 on there will be no `max_task_retries`.
        described = tasks.map_batches(
            _Worker,
            fn_constructor_args=(order,),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=order.threads,
            max_task_retries=RETRIES,
        )
    try:
        for batch in described.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield [pickle.loads(outcome.as_py()) for outcome in batch["outcome"]]
    except ray.exceptions.RayError as error:
        raise OpsError(
            f"the workers failed: {_last_line(error)}; what was written stays: run the same command again to resume"
        ) from error


def _tasks(pictures: Sequence[BulkPicture], workers: int) -> Iterator[pa.Table]:
    """Yield pictures in the parts that workers get."""
    size = max(1, min(_TASK, len(pictures) // (_EACH * workers)), -(-len(pictures) // _TASKS))
    for first in range(0, len(pictures), size):
        part = pictures[first : first + size]
        yield pa.table(
            {
                "position": list(range(first, first + len(part))),
                "id": [one.id for one in part],
                "address": [one.absolute for one in part],
            }
        )


class _Worker:
    """A process of the cluster that describes pictures."""

    def __init__(self, order: DescribingOrder) -> None:
        self._describer, self._most = PictureDescriber(order), order.config.limits.max_bytes

    def __call__(self, part: pa.Table) -> pa.Table:
        """Return a table of outcomes: a bad picture fails alone."""
        rows = part.to_pylist()
        images = contents([row["address"] for row in rows], most=self._most)
        found = [self._outcome(row, image.result) for row, image in zip(rows, images, strict=True)]
        return pa.table({"outcome": pa.array([pickle.dumps(one) for one in found], pa.binary())})

    def _outcome(self, row: dict[str, Any], image: Any) -> Outcome:
        try:
            return Outcome(position=row["position"], record=self._describer.describe(row["id"], image()))
        except (LandseerError, OpsError) as error:
            return Outcome(position=row["position"], why=str(error))
        except Exception as error:
            _log.exception("describing %r failed", row["id"])
            return Outcome(position=row["position"], why=f"describing it failed unexpectedly: {error!r}")


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
