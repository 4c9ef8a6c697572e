"""`landseer codebook` on a store of generated local features."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time

import numpy as np

from landseer.ensemble.asmk.codebook import Codebook
from landseer.ensemble.ingest.vocabulary import MOST_FEATURES, draft_of
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


def test_the_default_is_what_the_largest_codebook_needs():
    assert parsed("store").features == MOST_FEATURES


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
