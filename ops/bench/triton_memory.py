"""How much memory Triton takes, picture after picture of random sizes. Writes docs/reports/triton-memory.md.

    python -m landseer.ops.bench.triton_memory --pictures 10000 --minutes 120

The report is written again after each twentieth of the pictures. After --minutes, on Ctrl-C or SIGTERM it has what was
measured until then, and says so. A run cannot be resumed: what it measures is one Triton.

It starts a Triton of its own. Sides are multiples of 32 pixels, from 64 to 640: first every size once, the largest
first, then random ones, small ones more often, so that thousands take minutes. Every other picture is described for a
search, the others for the index; as many are with Triton at a time as an orchestrator sends.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console

from landseer.client.commands.connection import seconds
from landseer.client.readable import duration
from landseer.ensemble.config import ServerConfig
from landseer.ensemble.cores import cores
from landseer.ensemble.deadline import Deadline
from landseer.ensemble.inference.contracts import SIDE_MULTIPLE
from landseer.ensemble.inference.triton import Triton
from landseer.ensemble.search.describe import FOR_INDEX, FOR_SEARCH
from landseer.ensemble.telemetry.metrics import Metrics
from landseer.ops import machine
from landseer.ops.arguments import positive
from landseer.ops.bench.bench_command import bench_parser, repeated, run_as_script, write_report
from landseer.ops.bench.report_parts import table
from landseer.ops.files import write_text
from landseer.ops.run.triton import TritonConfig, TritonServer

MIB = 2**20
MOST_MIB = 1536
"""What Triton may take: 1.5 GiB."""
FLAT = 1.1
"""How much more the last tenth of the pictures may take than the first half."""
SIDES = range(64, 641, SIDE_MULTIPLE)
SAMPLES = 20
FEWEST = 4
"""Samples without which nothing can be said."""
KINDS = (("describe", FOR_SEARCH), ("describe_full", FOR_INDEX))


def sizes(seed: int) -> Iterator[tuple[int, int]]:
    """Yield heights and widths: first each size once, by falling area, then random ones without end.

    A side is drawn in inverse proportion to its length. A picture then has 0.44 of the pixels that it would have if all
    sides were as likely, and the largest size still comes once in 2,700 pictures.
    """
    yield from sorted(itertools.product(SIDES, SIDES), key=lambda size: -size[0] * size[1])
    rng, weights = random.Random(seed), [1 / side for side in SIDES]
    while True:
        height, width = rng.choices(SIDES, weights, k=2)
        yield height, width


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Memory after some pictures."""

    pictures: int
    by_process: dict[str, int]
    """Proportional set size in bytes: shared pages count once altogether."""

    @property
    def total(self) -> int:
        """Bytes of all processes."""
        return sum(self.by_process.values())


def sample(server: TritonServer, pictures: int) -> Sample:
    """Return what Triton's processes and the relay take now."""
    found: dict[str, int] = {}
    for pid in server.pids:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            name = _name(process)
            found[name] = found.get(name, 0) + process.memory_full_info().pss
    return Sample(pictures=pictures, by_process=found)


def _name(process: psutil.Process) -> str:
    """Return the model of a stub, else what the process is."""
    words = process.cmdline()
    models = [Path(word).parent.parent.name for word in words if word.endswith(".onnx")]
    if models:
        return models[0]
    return "relay" if any("relay" in word for word in words) else process.name()


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What to send, until when, and what was found so far."""

    server: TritonServer
    count: int
    seed: int
    until: float
    """A point of `time.monotonic` after which no more are sent."""
    found: Callable[[list[Sample]], None]
    """Called with all samples after each new one."""
    samples: list[Sample]


async def _describe(run: _Run) -> None:
    """Describe pictures until there are enough or it is time, and take samples of the memory."""
    triton = Triton(run.server.grpc_url, timeout_s=600.0, metrics=Metrics())
    step = max(1, run.count // SAMPLES)
    pictures = zip(range(run.count), itertools.cycle(KINDS), sizes(run.seed))
    done = 0

    async def caller() -> None:
        nonlocal done
        for _, (model, outputs), (height, width) in pictures:
            pixels = np.random.default_rng(height * width).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
            await triton.infer(model, {"image": pixels}, outputs, Deadline())
            done += 1
            if done % step == 0:
                run.samples.append(await asyncio.to_thread(sample, run.server, done))
                run.found(run.samples)
            if time.monotonic() > run.until:
                return

    run.samples.append(sample(run.server, 0))
    try:
        await asyncio.gather(*(caller() for _ in range(ServerConfig.in_flight)))
    finally:
        await triton.close()


def report(samples: list[Sample], options: argparse.Namespace) -> tuple[str, bool]:
    """Return the report, and whether all pictures were described and memory stayed below `MOST_MIB` and flat.

    ValueError if there are too few samples to say anything.
    """
    if len(samples) < FEWEST:
        raise ValueError(f"it ended after {samples[-1].pictures if samples else 0} pictures, which tell nothing")
    done = max(one.pictures for one in samples)
    whole = done > options.pictures * (1 - 1 / SAMPLES)
    most = max(one.total for one in samples)
    half, last = samples[1 : len(samples) // 2 + 1], samples[-max(1, len(samples) // 10) :]
    grown = max(one.total for one in last) / max(one.total for one in half)
    names = sorted(samples[-1].by_process, key=lambda name: -samples[-1].by_process[name])
    lines = [
        "# Memory of Triton",
        "",
        *([] if whole else [f"**Ended early: after {done:,} of {options.pictures:,} pictures.**", ""]),
        f"{done:,} pictures in turn for a search and for the index, {ServerConfig.in_flight} at a time: "
        f"{_drawn(done)}. MiB by proportional set size (shared pages count once altogether). "
        "[What takes it](../research/triton-memory.md).",
        "",
        f"**Most: {most // MIB:,} MiB** (at most {MOST_MIB:,} are expected). The last tenth took {grown:.2f} times "
        f"what the first half took (at most {FLAT} is expected).",
        "",
        f"| pictures | together | {' | '.join(names)} |",
        f"|---:|{'---:|' * (len(names) + 1)}",
        *(
            f"| {one.pictures:,} | {one.total // MIB:,} | "
            + " | ".join(f"{one.by_process.get(name, 0) // MIB:,}" for name in names)
            + " |"
            for one in samples
        ),
        "",
        table(("machine", ""), machine.describe(threads=cores())),
        "",
        f"Again: `{repeated('landseer.ops.bench.triton_memory', options, 'pictures', 'seed')}`",
        "",
    ]
    return "\n".join(lines), whole and most <= MOST_MIB * MIB and grown <= FLAT


def _drawn(done: int) -> str:
    every, largest = len(SIDES) ** 2, max(SIDES)
    if done < every:
        return f"the {done:,} largest of {every} sizes, from {largest} x {largest} down"
    return (
        f"each of {every} sizes once, from {largest} x {largest} down to {min(SIDES)} x {min(SIDES)}, then "
        f"{done - every:,} random ones of these, a side of half the length twice as often"
    )


def main() -> int:
    """Measure and write the report. Returns 1 if Triton takes too much."""
    parser = bench_parser("triton-memory", __doc__)
    parser.add_argument("--pictures", type=positive, default=2000, metavar="N", help="default %(default)s")
    parser.add_argument(
        "--minutes", type=seconds, default=120.0, metavar="M", help="end after this time (default %(default)g)"
    )
    options, console = parser.parse_args(), Console()
    return write_report(lambda: _measure(options, console), options.out, console)


def _measure(options: argparse.Namespace, console: Console) -> tuple[str, bool]:
    began, samples = time.monotonic(), list[Sample]()

    def found(so_far: list[Sample]) -> None:
        last, took = so_far[-1], time.monotonic() - began
        left = took / last.pictures * (options.pictures - last.pictures)
        console.print(
            f"{last.pictures:,} of {options.pictures:,} pictures, {last.total // MIB:,} MiB; "
            f"{duration(left)} left, or {duration(max(0.0, 60 * options.minutes - took))} at most"
        )
        if len(so_far) >= FEWEST:  # kept even if this process is killed
            write_text(options.out, report(so_far, options)[0])

    with TritonServer(TritonConfig(repository=options.repository)) as server:
        server.wait_ready(600)
        run = _Run(
            server=server,
            count=options.pictures,
            seed=options.seed,
            until=began + 60 * options.minutes,
            found=found,
            samples=samples,
        )
        try:
            asyncio.run(_describe(run))
        except KeyboardInterrupt:
            console.print("stopped; the report has what was measured")
    return report(samples, options)


if __name__ == "__main__":
    run_as_script(main)
