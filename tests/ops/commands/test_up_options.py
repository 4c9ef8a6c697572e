"""What `landseer up` tells the orchestrator."""

from __future__ import annotations

import argparse

import pytest

from landseer.ensemble.app import serve
from landseer.ops.commands import up

WORDS = ["--local-features", "both", "--regions", "3", "--codebook", "words"]
SECURITY = ["--tls-cert", "c", "--tls-key", "k", "--tls-client-ca", "ca", "--tokens", "t", "--insecure"]


@pytest.mark.parametrize(
    "given", [[], ["--local-features", "both", "--regions", "3", "--codebook", "words", *SECURITY]]
)
def test_its_options_are_those_of_serve(given):
    parser = argparse.ArgumentParser()
    up.add_arguments(parser)
    options = up._serve_args(parser.parse_args(given))
    told = argparse.ArgumentParser()
    serve.add_arguments(told)
    config = serve.config_of(told.parse_args(["--store", "store", *options]))
    assert config.local_features == ("both" if given else "keypoints")
    assert config.regions == (3 if given else 0)
    assert str(config.codebook) == ("words" if given else "None")
    files = (config.tls_cert, config.tls_key, config.tls_client_ca, config.tokens)
    assert [str(file) for file in files] == (["c", "k", "ca", "t"] if given else ["None"] * 4)
    assert config.insecure == bool(given)
