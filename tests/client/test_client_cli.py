from __future__ import annotations

import importlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from importlib import metadata
from pathlib import Path

import pytest

from landseer.client import cli

CLI = [sys.executable, "-m", "landseer.client.cli"]


@pytest.fixture
def extra_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Add a command called `extra` with the given source."""

    def install(source: str, module: str = "extra_command_for_test") -> None:
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.setitem(cli.COMMANDS, "extra", cli.Command(module, "much", "does much"))

    return install


WORKING = """
    def add_arguments(parser):
        parser.add_argument("--number", type=int, default=0)
    def run(args):
        {body}
        return args.number
"""


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_its_module_and_its_extra(name: str, capsys) -> None:
    command = cli.COMMANDS[name]
    assert set(command.extra.split(",")) <= set(metadata.metadata("landseer").get_all("Provides-Extra"))
    with pytest.raises(SystemExit) as left:
        cli.main([name, "--help"])
    assert left.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith(f"usage: landseer {name} ")
    assert command.help in shown
    assert callable(importlib.import_module(command.module).run)


def test_overview_lists_commands_without_importing_them(extra_command, capsys) -> None:
    extra_command("import not_there_at_all\n")
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^  extra +does much$", shown, re.MULTILINE)
    assert re.search(r"^  index +add the pictures in folders and files to the index$", shown, re.MULTILINE)
    assert cli.main([]) == 2


def test_a_missing_module_names_its_extra(extra_command, capsys) -> None:
    extra_command("import not_there_at_all\n")
    assert cli.main(["extra"]) == 1
    assert capsys.readouterr().err == (
        "landseer extra: this command needs not_there_at_all, which is not installed; pip install 'landseer[much]'\n"
    )


def test_a_missing_rich_names_its_extra() -> None:
    code = "import sys; sys.modules['rich'] = None; from landseer.client.cli import main; sys.exit(main(['stats']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "landseer stats: this command needs rich, which is not installed; pip install 'landseer[cli]'\n",
    )


def test_status_and_options_reach_the_command(extra_command) -> None:
    extra_command(WORKING.format(body="pass"))
    assert cli.main(["extra", "--number", "3"]) == 3


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["serch"], "landseer serch: unknown command 'serch'; did you mean `landseer search`?"),
        (["xyz\n\x1b[2J"], "unknown command"),
        (["--verbose"], "landseer: unknown option --verbose; options go after a command, see landseer --help"),
    ],
)
def test_unknown_words_get_one_line(arguments: list[str], line: str, capsys) -> None:
    assert cli.main(arguments) == 1
    told = capsys.readouterr().err
    assert line in told
    assert told.count("\n") == 1
    assert "\x1b" not in told


def test_wrong_options_get_one_line(extra_command, capsys) -> None:
    extra_command(WORKING.format(body="pass"))
    with pytest.raises(SystemExit) as left:
        cli.main(["extra", "--number", "x"])
    assert left.value.code == 2
    assert capsys.readouterr().err == (
        "landseer extra: argument --number: invalid int value: 'x' (see landseer extra --help)\n"
    )


@pytest.mark.parametrize(
    ("body", "status", "line"),
    [
        ("raise KeyboardInterrupt", 130, ""),
        ("raise BrokenPipeError", 141, ""),
        ("raise OSError(28, 'No space left on device')", 1, "landseer extra: [Errno 28] No space left on device\n"),
        (
            "from landseer.client import LandseerClientError; raise LandseerClientError('two\\nlines')",
            1,
            "landseer extra: two lines\n",
        ),
    ],
)
def test_how_commands_end(extra_command, capsys, monkeypatch, body: str, status: int, line: str) -> None:
    monkeypatch.setattr(cli, "_silence_stdout", lambda: None)
    extra_command(WORKING.format(body=body))
    assert cli.main(["extra"]) == status
    assert capsys.readouterr().err == line


def test_version(capsys) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"landseer {metadata.version('landseer')}\n"


def test_a_reader_that_leaves_is_no_error() -> None:
    shell = f"{sys.executable} -m landseer.client.cli search --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""


def test_ctrl_c_is_quiet() -> None:
    folder = tempfile.mkdtemp(prefix="ls-")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{folder}/s")
        silent.listen()
        waiting = [*CLI, "stats", "--server", f"unix:{folder}/s", "--timeout", "60"]
        process = subprocess.Popen(waiting, stderr=subprocess.PIPE, text=True)
        try:
            silent.settimeout(30)
            with silent.accept()[0]:  # It has called, and hears nothing.
                process.send_signal(signal.SIGINT)
                _, told = process.communicate(timeout=30)
        finally:
            process.kill()
            shutil.rmtree(folder)
    assert (process.returncode, told) == (130, "")
