"""Processes that write a store until they are killed."""

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path

WRITER = """
    folder, start = Path(sys.argv[1]), int(sys.argv[2])
    store, draws = open_store(folder), random.Random(start)
    for step in range(start, start + 100_000):
        if step % 5 == 4:
            store.delete(f"r{step - 4}")
            said = [[f"r{step - 4}", None]]
        else:
            records = RECORDS
            store.put_many(records)
            said = [[one.id, step] for one in records]
        sys.stdout.write(json.dumps(said) + "\\n")
        sys.stdout.flush()
"""


def names_of(test: str) -> str:
    """Return a script's first lines: they give it the names of a test file."""
    paths = [str(Path(__file__).parent), str(Path(test).parent)]
    return (
        f"import json, random, sys\nfrom pathlib import Path\nsys.path[:0] = {paths}\nfrom {Path(test).stem} import *\n"
    )


def kill_a_writer(
    test: str, records: str, folder: Path, start: int, delay: float
) -> list[list[tuple[str, int | None]]]:
    """Let a process write, kill it, and return what it acknowledged: lists of (id, step or None for deleted).

    test: the file whose names the process has, `open_store` among them. records: an expression of the records that
    `step` writes; `draws` is random.
    """
    script = names_of(test) + textwrap.dedent(WRITER).replace("RECORDS", records)
    command = [sys.executable, "-c", script, str(folder), str(start)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        first = writer.stdout.readline()
        time.sleep(delay)
        writer.kill()
        lines = [first, *writer.stdout.readlines()]
    return [json.loads(line) for line in lines if line.endswith("]\n")]
