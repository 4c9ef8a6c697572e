"""What commands print: JSON for programs, tables for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from landseer.client.readable import one_line

_WIDE = (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64)
_PIPE_WIDTH = 1000


def as_dict(message: Message) -> dict[str, Any]:
    """Return a message as JSON values under the proto's field names, without bytes (thumbnails).

    Unlike in the proto3 JSON mapping, 64-bit integers are numbers, not strings.
    """
    values = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return _plain(values, message.DESCRIPTOR.fields_by_name)


def print_json(values: Any) -> None:
    """Print indented ASCII JSON."""
    print(json.dumps(values, indent=2))


def table(*columns: tuple[str, str]) -> Table:
    """Return an empty table; each column is a heading and `left` or `right`. Long cells wrap."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading, justify in columns:
        made.add_column(heading, justify="right" if justify == "right" else "left", overflow="fold")
    return made


def cell(text: str, style: str = "") -> Text:
    """Return text for a terminal, with markup taken literally and control characters replaced."""
    return Text(one_line(text), style=style)


def console(stream: TextIO | None = None, *, pipe_width: int | None = _PIPE_WIDTH) -> Console:
    """Return a console on `stream` (default stdout) that prints text literally.

    In names of files, classes and rows, rich would read "[a]" as markup and ":100:" in "coattention:100:0.5" as an
    emoji. `pipe_width` is the line width where `stream` is not a terminal; None for rich's default.
    """
    file = stream or sys.stdout
    return Console(file=file, highlight=False, markup=False, emoji=False, width=None if file.isatty() else pipe_width)


def say(text: str, style: str = "") -> None:
    """Print a line on stdout; only a terminal wraps it."""
    console().print(cell(text, style), soft_wrap=True)


def tell(text: str) -> None:
    """Print a line on stderr."""
    console(sys.stderr).print(cell(text, "yellow"), soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    tell(f"warning: {text}")


def _plain(values: dict[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in values.items() if fields[name].type != FieldDescriptor.TYPE_BYTES}
    return {name: _plain_field(value, fields[name]) for name, value in kept.items()}


def _plain_field(value: Any, field: Any) -> Any:
    if isinstance(value, list):
        return [_plain_field(item, field) for item in value]
    if field.type in _WIDE:
        return int(value)
    ours = field.message_type is not None and field.message_type.file.package == "landseer.v1"
    if ours and not field.message_type.GetOptions().map_entry:
        return _plain(value, field.message_type.fields_by_name)
    return value
