from __future__ import annotations

import pytest

from landseer.client.cli import main
from landseer.ensemble.security.tokens import TokenFile, read


def test_a_token_is_printed_once_and_works(tmp_path, capsys):
    path = tmp_path / "tokens.json"
    rates = ["--requests-per-s", "5", "--bytes-per-s", "2MiB"]
    assert main(["token", "website", "--tokens", str(path), "--role", "write", *rates]) == 0
    told = capsys.readouterr()
    [secret] = told.out.splitlines()
    assert secret not in told.err + path.read_text()
    token = TokenFile(path).find(secret)
    assert (token.name, token.role, token.requests_per_s, token.bytes_per_s) == ("website", "write", 5.0, 2 * 2**20)
    assert main(["token", "other", "--tokens", str(path)]) == 0
    assert [(one.name, one.role) for one in read(path)] == [("website", "write"), ("other", "search")]
    assert main(["token", "website", "--tokens", str(path), "--remove"]) == 0
    assert [one.name for one in read(path)] == ["other"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["one"], "has a token one; choose another name, or --remove it first"),
        (["two", "--remove"], "has no token two; it has one"),
        (["a b"], "got name 'a b'; expected up to 64 letters"),
        (["two", "--requests-per-s", "-1"], "expected a number above 0"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path, capsys, words, told):
    path = tmp_path / "tokens.json"
    main(["token", "one", "--tokens", str(path)])
    before = path.read_bytes()
    assert main(["token", *words, "--tokens", str(path)]) == 1
    assert told in capsys.readouterr().err
    assert path.read_bytes() == before
