"""`landseer codebook` on a store of generated local features, and on pictures."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from landseer.ensemble.asmk.codebook import Codebook
from landseer.ensemble.ingest import picture_features, store_features
from landseer.ensemble.ingest.vocabulary import draft_of
from landseer.ensemble.keypoints.shipped import is_for_keypoints
from landseer.ensemble.store.local_features import LocalFeatures
from landseer.ensemble.store.record import Record
from landseer.ensemble.store.store import Store
from landseer.ops.commands import codebook

COMMAND = """
import argparse, sys
from landseer.ops.commands import codebook
parser = argparse.ArgumentParser()
codebook.add_arguments(parser)
sys.exit(codebook.run(parser.parse_args()))
"""


def picture(number, count, dimension):
    rows = np.random.default_rng(number).standard_normal((count, dimension)).astype(np.float32)
    return Record(
        id=f"r{number}",
        metadata={},
        width=40,
        height=30,
        descriptor=np.ones(4, np.float16),
        query_vector=np.zeros(512, np.float16),
        clusters=np.zeros((0, 512), np.float16),
        boxes=np.zeros((0, 5), np.float32),
        feature_map=np.zeros((0, 4), np.uint8),
        model_version="1",
        indexed_at=1e9,
        locals=LocalFeatures(
            descriptors=rows / np.linalg.norm(rows, axis=1, keepdims=True),
            positions=np.zeros((count, 2), np.float32),
            scales=np.ones(count, np.float32),
            counts=(count,),
        ),
    )


def filled(folder, *, pictures, count=100, dimension=8):
    store = Store.open(folder, fingerprint="{}", locals_sha256="ab" * 32)
    store.put_many([picture(number, count, dimension) for number in range(pictures)])
    store.close()
    return folder


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    codebook.add_arguments(parser)
    return parser.parse_args([*map(str, arguments)])


def run(*arguments) -> int:
    return codebook.run(parsed(*arguments, "--threads", 1))


def test_it_learns_and_says_what(tmp_path, capsys):
    store, output = filled(tmp_path / "store", pictures=10), tmp_path / "words.safetensors"
    assert run(store, "--output", output, "--rounds", 4) == 0
    said = capsys.readouterr()
    assert said.out.startswith("16 words from 1,000 features of 10 pictures after 4 rounds, mean squared error 0.")
    book = Codebook.load(output)
    assert book.words == 16 and book.card["job"]["store"] == str(store)
    assert run(store, "--output", output, "--rounds", 2, "--words", 5, "--features", 200, "--seed", 7) == 0
    assert Codebook.load(output).words == 5
    assert "5 words from 200 features" in capsys.readouterr().out


def test_the_help_names_the_defaults():
    parser = argparse.ArgumentParser()
    codebook.add_arguments(parser)
    said = " ".join(parser.format_help().split())
    assert f"{picture_features.MOST_FEATURES} keypoints" in said
    assert f"{store_features.MOST_FEATURES} deep local features" in said


def test_errors_take_one_line(tmp_path, capsys):
    store = filled(tmp_path / "store", pictures=1)
    without = Store.open(tmp_path / "without", fingerprint="{}")
    without.close()
    for arguments, status, line in (
        ([tmp_path / "gone"], 1, "there is no store in"),
        ([tmp_path / "without"], 1, "no picture in"),
        ([store, "--output", tmp_path / "no" / "file"], 1, "cannot write"),
        ([store, "--output", tmp_path / "words", "--words", 1000], 2, "got 100 features for 1000 words"),
    ):
        assert run(*arguments) == status
        said = capsys.readouterr().err
        assert said.startswith(f"landseer codebook: {line}") and said.count("\n") == 1
    held = Store.open(store, fingerprint=None)
    assert run(store, "--output", tmp_path / "words") == 1
    assert "in use by process" in capsys.readouterr().err
    held.close()


def test_ctrl_c_keeps_the_rounds_that_are_done(tmp_path):
    store, output = filled(tmp_path / "store", pictures=20, count=500, dimension=32), tmp_path / "words"
    command = [sys.executable, "-c", COMMAND, store, "--output", output, "--words", "256", "--rounds"]
    command = [*map(str, command), "100000", "--threads", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as learning:
        end = time.monotonic() + 60
        while not draft_of(output).exists() and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.3)
        learning.send_signal(signal.SIGINT)
        _, said = learning.communicate(timeout=30)
    assert learning.returncode == codebook.INTERRUPTED
    assert said.splitlines()[-1].startswith("landseer codebook: stopped; finished rounds are kept")
    assert "Traceback" not in said
    done = Codebook.load(draft_of(output)).card["rounds"]
    assert done >= 1 and not output.exists()
    assert run(store, "--output", output, "--words", 256, "--rounds", done + 1) == 0
    assert Codebook.load(output).card["rounds"] == done + 1


def noise(path, seed):
    values = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), np.uint8)
    Image.fromarray(values).resize((320, 240), Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number in range(2):
        noise(folder / f"{number}.png", number)
    noise(folder / "more" / "2.png", 2)
    return folder


def test_it_learns_words_of_the_keypoints_in_pictures(photos, tmp_path, capsys):
    (photos / "bad.jpg").write_bytes(b"no picture")
    (photos / "notes.txt").write_text("ignored")
    output = tmp_path / "words.safetensors"
    assert run("--pictures", photos, "--output", output, "--words", 6, "--rounds", 2, "--features", 80) == 0
    said = capsys.readouterr()
    assert said.out.startswith("6 words from 60 features of 3 pictures after 2 rounds, mean squared error 0.")
    assert (
        said.err.startswith(f"skipped {photos}/bad.jpg: got bytes that are not a picture") and "notes" not in said.err
    )
    book = Codebook.load(output)
    assert is_for_keypoints(book) and book.card["job"]["folders"] == str(photos)
    written = output.read_bytes()
    assert run("--pictures", photos, "--output", output, "--words", 6, "--rounds", 2, "--features", 80) == 0
    assert output.read_bytes() == written


def test_a_store_and_pictures_exclude_each_other(photos, tmp_path, capsys):
    assert run("store", "--pictures", photos) == 2
    assert "leave out the store to learn words of keypoints" in capsys.readouterr().err
    assert run("--output", tmp_path / "words") == 2
    assert "name folders of pictures with --pictures DIR" in capsys.readouterr().err


def test_errors_about_pictures_take_one_line(photos, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "empty" / "blank.png")
    for arguments, status, line in (
        ([tmp_path / "gone"], 1, "no pictures: "),
        ([photos, tmp_path / "gone"], 1, f"{tmp_path / 'gone'}: there is no such file or folder"),
        ([tmp_path / "empty"], 1, "no keypoints in"),
        ([photos, "--words", 100_000], 2, "got 100,000 words; expected at most 65,536"),
    ):
        assert run("--output", tmp_path / "words", "--pictures", *arguments) == status
        said = capsys.readouterr().err
        assert said.startswith(f"landseer codebook: {line}") and said.count("\n") == 1
