"""A flipped bit in the store's file: whether reading everything again reports it, or gives other answers silently.

Each flip is tried in a process of its own, since LMDB may end the process over a damaged page.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from landseer.ensemble.store.store import Store
from landseer.ops.chaos.contents import contents
from landseer.ops.scratch import scratch_folder

PAGE = 4096
DATA = "data.mdb"
OPENED, READ, SAME, SILENT = "opened", "read", "same", "silent"


@dataclass(frozen=True, kw_only=True)
class DamageFigures:
    """How flips ended."""

    tried: int
    at_open: int
    """Opening the store failed."""
    at_read: int
    """Reading failed, with an error or by the end of the process."""
    harmless: int
    """Everything was as before."""
    silent: Sequence[str]
    """What was read that nobody wrote, one sentence each."""


def flips(store: Path, *, count: int, seed: int = 0) -> DamageFigures:
    """Flip `count` random bits of a store, one at a time, in copies; the store must not be open."""
    draws = random.Random(seed)
    found: dict[str, list[str]] = {OPENED: [], READ: [], SAME: [], SILENT: []}
    with scratch_folder("flips") as folder:
        sound = (store / DATA).read_bytes()
        job = {
            "store": str(store),
            "folder": str(folder),
            "bits": [draws.randrange(8 * len(sound)) for _ in range(count)],
        }
        while job["bits"]:
            done = _run(job)
            for outcome, said in done:
                found[outcome].append(said)
            # The process ended over the next one.
            if len(done) < len(job["bits"]):
                found[READ].append("the process ended")
            job["bits"] = job["bits"][len(done) + 1 :]
    return DamageFigures(
        tried=count,
        at_open=len(found[OPENED]),
        at_read=len(found[READ]),
        harmless=len(found[SAME]),
        silent=found[SILENT],
    )


def _run(job: Mapping[str, object]) -> list[tuple[str, str]]:
    """Try bits in another process, until one ends it."""
    command = [sys.executable, "-m", "landseer.ops.chaos.damage"]
    ended = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, check=False)
    return [tuple(json.loads(line)) for line in ended.stdout.splitlines() if line.endswith("]")]


def _tried(store: Path, folder: Path, bit: int, truth: dict[str, str]) -> tuple[str, str]:
    data = bytearray((store / DATA).read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    (folder / DATA).write_bytes(data)
    where = f"byte {bit // 8 % PAGE} of page {bit // 8 // PAGE}"
    try:
        opened = Store.open(folder, fingerprint=None)
    except Exception as error:
        return OPENED, f"{where}: {error}"
    try:
        now = contents(opened)
    except Exception as error:
        return READ, f"{where}: {error}"
    finally:
        opened.close()
    differing = [name for name in {**truth, **now} if truth.get(name) != now.get(name)]
    return (SILENT, f"{where}: {', '.join(differing[:3])}") if differing else (SAME, where)


def main() -> int:
    """Try the bits of the job on stdin; a line of JSON for each."""
    job = json.load(sys.stdin)
    folder = Path(job["folder"])
    opened = Store.open(Path(job["store"]), fingerprint=None)
    truth = contents(opened)
    opened.close()
    for bit in job["bits"]:
        print(json.dumps(_tried(Path(job["store"]), folder, bit, truth)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
