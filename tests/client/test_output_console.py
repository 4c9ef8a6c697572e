import io

import pytest
from rich.table import Table

from landseer.client.commands.output import console

NAMES = ("coattention:100:0.5", "[bold]a[/bold]", "photos/[1].jpg")


@pytest.mark.parametrize("width", [80, None])
def test_names_are_printed_as_they_are(width: int | None) -> None:
    shown, stream = Table("name", box=None), io.StringIO()
    for name in NAMES:
        shown.add_row(name)
    console(stream, pipe_width=width).print(shown)
    for name in NAMES:
        console(stream, pipe_width=width).print(name)
    assert [line.strip() for line in stream.getvalue().splitlines()][1:] == [*NAMES, *NAMES]
