"""A generated store that is ready to be served: entries, words, keypoints where they are asked for, an index version.

On request it is kept for further runs.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console

from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.store.folder import DATA
from landseer.ops.bench.generated_features import FeaturePool
from landseer.ops.bench.generated_store import (
    FEATURES,
    WrittenStore,
    expected_bytes,
    give_features,
    limit_bytes,
    open_with_features,
    require_room,
    write,
)
from landseer.ops.bench.generated_words import WORDS_BYTES, write_words
from landseer.ops.bench.generator import EntryDistribution
from landseer.ops.errors import OpsError
from landseer.ops.progress import bars

STORE, DONE = "store", "written.json"
"""In the folder of a run: the store, and what says that it is finished."""
INDEX_BYTES = 930
"""Of an entry in the index version, at most, beside its vector."""
NEAR = 400
"""The nearest entries of a query that have keypoints: the candidates of a search, and of its second search."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StorePlan:
    """What to write."""

    fitted: EntryDistribution
    pool: FeaturePool
    profile: Profile
    entries: int
    asked: Sequence[str]
    """Ids of entries that have keypoints, as the nearest of each have."""
    seed: int

    @property
    def bytes(self) -> int:
        """Bytes of the store, about."""
        return expected_bytes(self.fitted.patterns, self.entries) + len(self.asked) * self.near * FEATURES

    @property
    def near(self) -> int:
        """How many of the nearest."""
        return min(NEAR, self.entries)

    @property
    def limit(self) -> int:
        """The store's limit, bytes."""
        return limit_bytes(self.bytes)


@contextmanager
def home_of(plan: StorePlan, photographs: str, scratch: Path, *, keep: bool) -> Iterator[Path]:
    """Yield the folder of a run: a temporary one, or one that is kept, the same for an equal plan.

    photographs: says which real pictures the plan is of.
    """
    if not keep:
        with tempfile.TemporaryDirectory(prefix="reranking-", dir=scratch) as folder:
            yield Path(folder)
        return
    known = f"{plan.profile.fingerprint} {photographs} {plan.entries} {plan.seed} {' '.join(plan.asked)}"
    home = scratch / f"reranking-{hashlib.sha256(known.encode()).hexdigest()[:12]}"
    home.mkdir(exist_ok=True)
    yield home


def prepared(home: Path, plan: StorePlan, console: Console) -> WrittenStore:
    """Write the store into the folder, and versions of its index and words, unless an earlier run did.

    OpsError if there is too little room, or an earlier run did not finish.
    """
    done, store = home / DONE, home / STORE
    if done.exists():
        return WrittenStore(**json.loads(done.read_text()))
    if store.exists():
        raise OpsError(f"{home} has a store that was not finished; delete the folder")
    index = INDEX_BYTES + 2 * plan.profile.sizes.channels
    require_room(home, plan.bytes + plan.entries * (index + WORDS_BYTES))
    written = _written(store, plan, console)
    featured = _with_features(store, plan, console)
    with console.status("building an index version"):
        _build(store)
    written = replace(written, featured=featured, bytes=(store / DATA).stat().st_size)
    done.write_text(json.dumps(asdict(written)))
    return written


def _written(store: Path, plan: StorePlan, console: Console) -> WrittenStore:
    with bars(console) as progress:
        task = progress.add_task("writing entries", total=plan.entries)
        return write(
            store,
            plan.fitted,
            profile=plan.profile,
            count=plan.entries,
            seed=plan.seed,
            progress=lambda count: progress.advance(task, count),
        )


def _with_features(folder: Path, plan: StorePlan, console: Console) -> int:
    """Give entries keypoints and words. Returns how many have keypoints."""
    store = open_with_features(folder, plan.profile, plan.limit)
    try:
        with console.status(f"giving keypoints to {len(plan.asked)} entries and the {plan.near} nearest of each"):
            featured = give_features(store, plan.pool, plan.asked, near=plan.near, seed=plan.seed)
        with bars(console) as progress:
            task = progress.add_task("writing words", total=plan.entries)
            write_words(store, folder, plan.pool, seed=plan.seed, progress=lambda count: progress.advance(task, count))
        return featured
    finally:
        store.close()


def _build(store: Path) -> None:
    """Build an index version as an operator does. OpsError."""
    command = [sys.executable, "-m", "landseer.client.cli", "index-versions", "build", str(store)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise OpsError(f"no index version was built: {ended.stderr.strip() or ended.returncode}")
