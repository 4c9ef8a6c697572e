"""The control groups of this process: how Linux limits what a container may use, in versions 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def folders(controller: str, groups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> Iterator[Path]:
    """Yield the folders of our groups, up to the root, which in a container is often all that there is.

    controller: `cpu` or `memory`; groups: where control groups are mounted; membership: our groups, as Linux lists
    them.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        root = groups / controllers if controllers else groups
        inner = Path(path.lstrip("/"))
        yield from (root / part for part in (inner, *inner.parents))
