"""Exports made for an evaluation, and how the command line names them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rich.console import Console

from landseer.client.cli import Parser, main
from landseer.export.exporter import ExportError
from landseer.ops.commands import evaluate as command
from landseer.ops.errors import OpsError
from landseer.ops.evaluate import exported_models
from landseer.ops.evaluate.exported_models import ExportRequest, exported

CONSOLE = Console(stderr=True)


@pytest.fixture
def made(monkeypatch):
    """What was exported, by the folder; nothing is built."""
    folders = []

    def export(request, folder, console):
        folders.append(folder)
        (folder / "whole").touch()

    monkeypatch.setattr(exported_models, "_export", export)
    monkeypatch.setattr(exported_models, "_is_whole", lambda folder: (folder / "whole").exists())
    return folders


def test_an_export_is_made_once_for_each_request(made, tmp_path):
    (tmp_path / "w.pth").write_bytes(b"weights")
    requests = [
        ExportRequest(backbone="resnet50"),
        ExportRequest(backbone="resnet50", descriptor="gem"),
        ExportRequest(backbone="resnet50", weights=tmp_path / "w.pth"),
        ExportRequest(backbone="resnet50", parts=tmp_path / "w.pth"),
    ]
    first = [exported(request, CONSOLE, home=tmp_path / "home") for request in requests]
    assert len(set(first)) == len(made) == 4
    assert [exported(request, CONSOLE, home=tmp_path / "home") for request in requests] == first
    assert len(made) == 4
    # The same bytes under another name are the same; other bytes under the same name are not.
    (tmp_path / "w.pth").rename(tmp_path / "v.pth")
    moved = ExportRequest(backbone="resnet50", weights=tmp_path / "v.pth")
    assert exported(moved, CONSOLE, home=tmp_path / "home") == first[2]
    (tmp_path / "v.pth").write_bytes(b"other weights")
    assert exported(moved, CONSOLE, home=tmp_path / "home") not in first


def test_an_export_that_fails_is_one_line(monkeypatch, tmp_path):
    def export(request, folder, console):
        raise ExportError("backbone on openvino does not agree")

    monkeypatch.setattr(exported_models, "_export", export)
    with pytest.raises(OpsError, match="resnet50 cannot be exported: backbone on openvino does not agree"):
        exported(ExportRequest(backbone="resnet50"), CONSOLE, home=tmp_path)


def parsed(*words):
    parser = Parser(prog="landseer evaluate")
    command.add_arguments(parser)
    return parser.parse_args(["folder:x", *words])


def test_options_belong_to_the_backbone_before_them():
    words = "--backbone resnet50 --weights a.pth --descriptor gem --backbone efficientnet_lite0 --parts b.safetensors"
    assert [ExportRequest(**one) for one in parsed(*words.split()).backbones] == [
        ExportRequest(backbone="resnet50", weights=Path("a.pth"), descriptor="gem"),
        ExportRequest(backbone="efficientnet_lite0", parts=Path("b.safetensors")),
    ]
    # Nothing of one command line is left in the next.
    assert parsed().backbones == []
    assert parsed("--sweep").sweep == "1,2,4,8,16,32,64"
    assert parsed("--sweep", "3").sweep == "3"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--weights a.pth", "--weights: got a.pth before any --backbone"),
        ("--backbone a --descriptor gem --descriptor rmac", "--descriptor: got two for a: gem and rmac"),
        ("--seed -1", "--seed: got '-1'; expected a whole number of at least 0"),
        ("--seed x", "--seed: got 'x'"),
        ("--queries 0", "--queries: got '0'; expected a whole number of at least 1"),
    ],
)
def test_a_wrong_command_line_is_status_2_and_one_line(words, said, capsys):
    with pytest.raises(SystemExit) as ended:
        parsed(*words.split())
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert re.search(re.escape(said), told) and told.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "--backbone vgg",
            "got --backbone vgg; expected one of efficientnet_lite0, efficientnet_lite1, efficientnet_lite2",
        ),
        ("--backbone resnet50 --descriptor best", "got --descriptor best; expected one of gem"),
        ("--backbone resnet50 --weights /nowhere", "got --weights /nowhere, which is not a file"),
        ("--backbone resnet50 --parts /tmp", "got --parts /tmp, which is not a file"),
        ("--backbone resnet50 --repository m", "--repository and --backbone both name what is evaluated"),
        ("--backbone resnet50 --server a:1", "--backbone and --server both name what is evaluated"),
        ("--server a", "--server is 'a'; expected HOST:PORT"),
        ("--server 127.0.0.1:1", "no Landseer server answers at 127.0.0.1:1"),
    ],
)
def test_what_cannot_be_evaluated_is_status_1_and_one_line(words, said, capsys):
    assert main(["evaluate", "folder:x", *words.split()]) == 1
    told = capsys.readouterr().err
    assert told.startswith("landseer evaluate: ") and said in told and told.count("\n") == 1


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit):
        parsed("--help")
    told = capsys.readouterr().out
    for action in ("--backbone", "--weights", "--server", "--sweep", "--report", "--distractors"):
        assert action in told
