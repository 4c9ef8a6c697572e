"""Processes that write a store until they are killed."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Said = list[list[tuple[str, int | None]]]
"""What a writer acknowledged: lists of (id, step or None for deleted)."""

WRITERS = """
import os


def write(folder, start):
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


for line in sys.stdin:
    folder, start, said = json.loads(line)
    writer = os.fork()
    if writer == 0:
        sys.stdout = open(said, "w")
        write(Path(folder), start)
        sys.exit()
    print(writer, flush=True)
    os.waitpid(writer, 0)
    print("gone", flush=True)
"""


def names_of(test: str) -> str:
    """Return a script's first lines: they give it the names of a test file."""
    paths = [str(Path(__file__).parent), str(Path(test).parent)]
    return (
        f"import json, random, sys\nfrom pathlib import Path\nsys.path[:0] = {paths}\nfrom {Path(test).stem} import *\n"
    )


@contextmanager
def writers(test: str, records: str) -> Iterator[Callable[[Path, int, float], Said]]:
    """Give a function that lets a process write into `folder` from step `start`, kills it, and returns what it said.

    It takes the folder, the first step, and the seconds that the writer has after its first line. Each writer is a fork
    of one process that has imported the test file, which takes longer than most writers live.

    test: the file whose names the writers have, `open_store` among them. records: an expression of the records that
    `step` writes; `draws` is random.
    """
    script = names_of(test) + WRITERS.replace("RECORDS", textwrap.dedent(records))
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:

        def kill_one(folder: Path, start: int, delay: float) -> Said:
            pipe = folder.with_name(f"{folder.name}-said")
            os.mkfifo(pipe)
            parent.stdin.write(json.dumps([str(folder), start, str(pipe)]) + "\n")
            parent.stdin.flush()
            writer = int(parent.stdout.readline())
            with pipe.open() as stream:
                try:
                    first = stream.readline()
                    time.sleep(delay)
                finally:
                    os.kill(writer, signal.SIGKILL)
                lines = [first, *stream.readlines()]
            pipe.unlink()
            assert parent.stdout.readline() == "gone\n"
            return [json.loads(line) for line in lines if line.endswith("]\n")]

        try:
            yield kill_one
        finally:
            parent.kill()
