from __future__ import annotations

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
    """Install a command called `extra` with the given body of run."""

    def install(source: str, module: str = "extra_command_for_test") -> None:
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.setattr(cli, "commands", lambda: {"extra": module, "index": "landseer.client.commands.index"})

    return install


WORKING = """
    HELP = "does as the test says"
    def add_arguments(parser):
        parser.add_argument("--number", type=int, default=0)
    def run(args):
        {body}
        return args.number
"""


def test_commands_come_from_entry_points() -> None:
    found = {point.name: point.value for point in metadata.entry_points(group=cli.GROUP)}
    assert cli.commands() == dict(sorted(found.items()))
    for name in ("index", "search", "stats", "get", "delete"):
        assert found[name] == f"landseer.client.commands.{name}"


def test_overview_lists_commands_without_importing_them(extra_command, capsys) -> None:
    extra_command("import not_there_at_all\nHELP = 'does much'\n")
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "  extra  does much\n" in shown
    assert "  index  index the pictures of folders and files\n" in shown
    assert cli.main([]) == 2


def test_a_missing_module_names_its_extra(extra_command, capsys, monkeypatch) -> None:
    extra_command("import not_there_at_all\nHELP = 'does much'\n")
    monkeypatch.setitem(cli.EXTRAS, "extra_command_for_test", "much")
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


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("landseer.client.commands.get", "cli"),
        ("landseer.ensemble.app.serve", "cpu"),
        ("landseer.ops.commands.triton", "triton"),
        ("landseer.ops.commands.up", "cpu,triton"),
    ],
)
def test_extras(module: str, extra: str) -> None:
    assert cli._extra(module) == extra


def test_status_and_options_reach_the_command(extra_command) -> None:
    extra_command(WORKING.format(body="pass"))
    assert cli.main(["extra", "--number", "3"]) == 3


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["serch"], "landseer serch: there is no command 'serch'; did you mean `landseer search`?"),
        (["xyz\x1b[2J"], "there is no command"),
        (["--verbose"], "landseer: there is no option --verbose before a command; see landseer --help"),
    ],
)
def test_unknown_words_get_one_line(arguments: list[str], line: str, capsys) -> None:
    assert cli.main(arguments) == 1
    told = capsys.readouterr().err
    assert line in told
    assert told.count("\n") == 1
    assert "\x1b" not in told.partition(": ")[2]


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
