"""`landseer` with its metrics replaced by no-ops: the baseline of the instrumentation benchmark."""

from __future__ import annotations

import sys
from typing import Any

from landseer.client.cli import main
from landseer.ensemble.telemetry import metrics


class Nothing:
    """Accepts every call that a collector accepts, and does nothing."""

    def labels(self, *values: Any) -> Nothing:
        """Return itself."""
        return self

    def nothing(self, *values: Any) -> None:
        """Do nothing."""

    inc = dec = set = observe = set_function = set_to_current_time = clear = nothing


def strip() -> None:
    """Replace every metric created from now on by `Nothing`."""
    for kind in ("Counter", "Gauge", "Histogram", "ProcessCollector"):
        setattr(metrics, kind, lambda *words, **options: Nothing())


if __name__ == "__main__":
    strip()
    sys.exit(main())
