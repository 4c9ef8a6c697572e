"""Log formats: text for people, or one JSON object per line. Both name the request of each record.

Requests are not logged, so no picture, token or authorization metadata can reach the log. Pillow could quote a
picture's bytes at debug level, so its debug messages are disabled.
"""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone

from landseer.ensemble.telemetry.request_id import ANSWERING

_QUIET = ("PIL",)


class TextFormatter(logging.Formatter):
    """`2026-11-21 03:19:10,561 INFO logger: message [request 1f9c...]`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line, without the traceback that may follow it."""
        line, answering = super().formatMessage(record), ANSWERING.get()
        return line if answering is None else f"{line} [request {answering.request_id}]"


class JsonFormatter(logging.Formatter):
    """One object per line: time (RFC 3339, UTC), level, logger, message; optionally request_id, trace_id, exception.

    `ops/run/orchestrator.py` finds the level by its position, so the first two keys must stay first.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as ASCII JSON, so that no character can break the line."""
        time = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        told = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if answering := ANSWERING.get():
            told["request_id"] = answering.request_id
            if answering.trace_id:
                told["trace_id"] = answering.trace_id
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told)


FORMATS: dict[str, type[logging.Formatter]] = {"text": TextFormatter, "json": JsonFormatter}


def log_to_stderr(level: str, format: str) -> None:
    """Log records of `level` (a name, any case) and above to stderr, in a format of FORMATS. Call once per process."""
    handler = logging.StreamHandler()
    handler.setFormatter(FORMATS[format]())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.INFO, logging.getLogger().level))
