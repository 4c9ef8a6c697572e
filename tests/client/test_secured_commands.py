"""Commands against a server with TLS, its token and its certificate in options or in the environment."""

from __future__ import annotations

import argparse
import importlib

import grpc
import pytest
from authorities import Authority

from landseer.client.cli import COMMANDS, main
from landseer.client.commands import connection
from landseer.ops.run.ports import LOOPBACK, free_port

CALLERS = ("index", "search", "get", "delete", "stats", "evaluate", "top")
"""Commands that call a server."""


@pytest.fixture
def secured(fake, tmp_path, monkeypatch):
    """The fake with TLS, for clients with a certificate; notes the metadata of calls."""
    authority = Authority(tmp_path / "authority")
    server, ours = authority.issue("server"), authority.issue("client")
    seen = []
    real = type(fake)._seen
    monkeypatch.setattr(
        type(fake), "_seen", lambda self, *call: seen.append(dict(call[2].invocation_metadata())) or real(self, *call)
    )
    made = type(fake)(f"{LOOPBACK}:{free_port()}")
    credentials = grpc.ssl_server_credentials(
        [(server.key.read_bytes(), server.cert.read_bytes())], authority.cert.read_bytes(), require_client_auth=True
    )
    monkeypatch.setattr(made, "_bind", lambda end: made._server.add_secure_port(made.address, credentials))
    made.start()
    (tmp_path / "token").write_text("landseer_secret\n")
    files = {"tls-ca": authority.cert, "tls-cert": ours.cert, "tls-key": ours.key, "token-file": tmp_path / "token"}
    yield made.address, files, seen
    made.stop()


@pytest.mark.parametrize("by", ["options", "environment"])
def test_commands_show_their_token_and_their_certificate(secured, monkeypatch, capsys, by):
    address, files, seen = secured
    words = []
    for name, path in files.items():
        if by == "options":
            words += [f"--{name}", str(path)]
        else:
            monkeypatch.setenv(f"LANDSEER_{name.upper().replace('-', '_')}", str(path))
    assert main(["stats", "--server", address, "--json", *words]) == 0
    assert seen[0]["authorization"] == "Bearer landseer_secret"
    assert "landseer_secret" not in "".join(capsys.readouterr())


def test_a_missing_option_is_told_in_one_line(secured, capsys):
    address, files, _ = secured
    assert main(["stats", "--server", address, "--token-file", str(files["token-file"])]) == 1
    assert "if it speaks TLS, add --tls-ca" in capsys.readouterr().err
    assert main(["stats", "--server", address, "--tls-cert", str(files["tls-cert"])]) == 1
    assert "give both --tls-cert and --tls-key" in capsys.readouterr().err


@pytest.mark.parametrize("name", CALLERS)
def test_every_command_that_calls_a_server_has_the_options(name):
    parser = argparse.ArgumentParser()
    importlib.import_module(COMMANDS[name].module).add_arguments(parser)
    options = {option for action in parser._actions for option in action.option_strings}
    assert {"--tls-ca", "--tls-cert", "--tls-key", "--token-file", "--insecure"} <= options


def test_the_commands_make_their_client_in_one_place(tmp_path):
    parser = argparse.ArgumentParser()
    connection.add_credentials(parser)
    given = parser.parse_args(["--tls-ca", "system", "--token-file", str(tmp_path / "t"), "--insecure"])
    credentials = connection.credentials_of(given)
    assert (credentials.tls_ca, credentials.token_file, credentials.insecure) == ("system", tmp_path / "t", True)
