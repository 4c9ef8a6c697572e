"""A small JSON text with its own checksum, so that a flipped bit in what describes other files is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def sealed(format: str, fields: Mapping[str, Any]) -> str:
    """Return the text. format: its name and version."""
    return json.dumps({"format": format, "sha256": _sum(fields), "fields": fields}, indent=1) + "\n"


def opened(format: str, text: str | bytes) -> dict[str, Any]:
    """Return the fields of a text. ValueError if it has another format or was changed."""
    try:
        found = json.loads(text)
        its, fields = found["format"], found["fields"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"it cannot be read ({error})") from error
    if its != format:
        raise ValueError(f"its format is {its!r}, and this release reads {format!r}")
    if not isinstance(fields, dict) or found.get("sha256") != _sum(fields):
        raise ValueError("its checksum is wrong")
    return fields


def _sum(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
