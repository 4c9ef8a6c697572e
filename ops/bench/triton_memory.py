"""How much memory Triton takes, picture after picture of random sizes. Writes docs/reports/triton-memory.md.

    python -m landseer.ops.bench.triton_memory --pictures 2000

It starts a Triton of its own. Sides are random multiples of 32 pixels, from 64 to 640; every other picture is described
for a search, the others for the index; as many are with Triton at a time as an orchestrator sends.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console

from landseer.ensemble.config import ServerConfig
from landseer.ensemble.cores import cores
from landseer.ensemble.deadline import Deadline
from landseer.ensemble.inference.contracts import SIDE_MULTIPLE
from landseer.ensemble.inference.triton import Triton
from landseer.ensemble.search.describe import FOR_INDEX, FOR_SEARCH
from landseer.ensemble.telemetry.metrics import Metrics
from landseer.ops import machine
from landseer.ops.bench.bench_command import bench_parser, repeated, run_as_script, write_report
from landseer.ops.bench.report_parts import table
from landseer.ops.run.triton import TritonConfig, TritonServer

MIB = 2**20
MOST_MIB = 1536
"""What Triton may take: 1.5 GiB."""
FLAT = 1.1
"""How much more the last tenth of the pictures may take than the first half."""
SIDES = range(64, 641, SIDE_MULTIPLE)
SAMPLES = 20
KINDS = (("describe", FOR_SEARCH), ("describe_full", FOR_INDEX))


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


async def _measured(server: TritonServer, count: int, seed: int) -> list[Sample]:
    triton = Triton(server.grpc_url, timeout_s=600.0, metrics=Metrics())
    rng, samples, done = random.Random(seed), [sample(server, 0)], 0
    step, waiting = max(1, count // SAMPLES), asyncio.Semaphore(ServerConfig.in_flight)

    async def one(model: str, outputs: tuple[str, ...], height: int, width: int) -> None:
        nonlocal done
        async with waiting:
            pixels = np.random.default_rng(height * width).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
            await triton.infer(model, {"image": pixels}, outputs, Deadline())
            done += 1
            if done % step == 0:
                samples.append(await asyncio.to_thread(sample, server, done))

    kinds = itertools.cycle(KINDS)
    try:
        await asyncio.gather(*(one(*next(kinds), rng.choice(SIDES), rng.choice(SIDES)) for _ in range(count)))
    finally:
        await triton.close()
    return samples


def report(samples: list[Sample], options: argparse.Namespace) -> tuple[str, bool]:
    """Return the report, and whether memory stays below `MOST_MIB` and flat."""
    most = max(one.total for one in samples)
    half, last = samples[1 : len(samples) // 2 + 1], samples[-max(1, len(samples) // 10) :]
    grown = max(one.total for one in last) / max(one.total for one in half)
    names = sorted(samples[-1].by_process, key=lambda name: -samples[-1].by_process[name])
    lines = [
        "# Memory of Triton",
        "",
        f"{options.pictures:,} pictures of {len(SIDES) ** 2} sizes, from 64 x 64 to 640 x 640, in turn for a search "
        f"and for the index, {ServerConfig.in_flight} at a time. MiB by proportional set size (shared pages count once "
        "altogether). [What takes it](../research/triton-memory.md).",
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
    return "\n".join(lines), most <= MOST_MIB * MIB and grown <= FLAT


def main() -> int:
    """Measure and write the report. Returns 1 if Triton takes too much."""
    parser = bench_parser("triton-memory", __doc__)
    parser.add_argument("--pictures", type=int, default=2000, metavar="N", help="default %(default)s")
    options = parser.parse_args()

    def measure() -> tuple[str, bool]:
        with TritonServer(TritonConfig(repository=options.repository)) as server:
            server.wait_ready(600)
            samples = asyncio.run(_measured(server, options.pictures, options.seed))
        return report(samples, options)

    return write_report(measure, options.out, Console())


if __name__ == "__main__":
    run_as_script(main)
