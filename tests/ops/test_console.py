import io

import pytest
from rich.table import Table

from landseer.client.commands.output import console
from landseer.ops.console import plain

NAMES = ("coattention:100:0.5", "[bold]a[/bold]", "photos/[1].jpg")


def shown() -> Table:
    table = Table("name", box=None)
    for name in NAMES:
        table.add_row(name)
    return table


def test_names_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    plain(width=80).print(shown())
    for name in NAMES:
        plain(stderr=True, width=80).print(name)
    out, err = capsys.readouterr()
    assert [line.strip() for line in out.splitlines()][1:] == list(NAMES)
    assert err.splitlines() == list(NAMES)


def test_so_are_those_of_the_client() -> None:
    stream = io.StringIO()
    console(stream).print(shown())
    assert [line.strip() for line in stream.getvalue().splitlines()][1:] == list(NAMES)
