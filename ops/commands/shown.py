"""Progress of work whose amount is known only once it has begun."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from landseer.client.commands.progress import Display, display

MIB = 2**20


@contextmanager
def shown(what: str, unit: int = 1) -> Iterator[Callable[[int, int], None]]:
    """Give a function that shows how much of all is done; on stderr, from its first call on. unit: shown as one."""
    with ExitStack() as until_the_end:
        bars: list[Display] = []

        def show(done: int, total: int) -> None:
            if not bars:
                bars.append(until_the_end.enter_context(display(what, -(-total // unit))))
            bars[0].update(done // unit)

        yield show
