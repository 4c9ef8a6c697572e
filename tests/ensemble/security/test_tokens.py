from __future__ import annotations

import json
import os
import stat

import pytest

from landseer.ensemble.security import tokens
from landseer.ensemble.security.rates import Rate
from landseer.ensemble.security.tokens import ADMIN, SEARCH, WRITE, TokenFile


def test_a_secret_is_found_and_stored_nowhere(tmp_path):
    (one, secret), (other, another) = tokens.make("one", SEARCH), tokens.make("other", WRITE)
    tokens.write(tmp_path / "tokens.json", (one, other))
    written = (tmp_path / "tokens.json").read_text()
    assert secret not in written and secret.removeprefix("landseer_") not in written
    assert stat.S_IMODE((tmp_path / "tokens.json").stat().st_mode) == 0o600
    file = TokenFile(tmp_path / "tokens.json")
    assert (file.find(secret), file.find(another)) == (one, other)
    for wrong in ("", secret[:-1], secret.upper(), f"{secret}x", "landseer_é\ud800", "x" * 10**6):
        assert file.find(wrong) is None
    assert len(secret) == len("landseer_") + 43
    assert one.salt != other.salt


def test_every_token_is_compared_whichever_is_given(tmp_path, monkeypatch):
    made = [tokens.make(str(number), SEARCH) for number in range(5)]
    tokens.write(tmp_path / "tokens.json", tuple(token for token, _ in made))
    file, compared = TokenFile(tmp_path / "tokens.json"), []
    real = tokens.hmac.compare_digest
    monkeypatch.setattr(tokens.hmac, "compare_digest", lambda a, b: compared.append(a) or real(a, b))
    for secret in (made[0][1], made[4][1], "wrong"):
        compared.clear()
        file.find(secret)
        assert len(compared) == 5


def test_a_role_may_do_what_those_before_it_may():
    may = {role: [other for other in tokens.ROLES if tokens.make("a", role)[0].may(other)] for role in tokens.ROLES}
    assert may == {SEARCH: [SEARCH], WRITE: [SEARCH, WRITE], ADMIN: [SEARCH, WRITE, ADMIN]}


def test_a_changed_file_is_read_and_a_broken_one_leaves_the_former(tmp_path, caplog):
    path = tmp_path / "tokens.json"
    (one, first), (two, second) = tokens.make("one", SEARCH), tokens.make("two", SEARCH)
    tokens.write(path, (one,))
    file = TokenFile(path)
    path.write_text('{"tokens": [')
    assert file.find(first) == file.find(first) == one
    assert len([record for record in caplog.records if "the former stay in use" in record.message]) == 1
    path.unlink()
    assert file.find(first) == one
    tokens.write(path, (two,))
    assert (file.find(first), file.find(second)) == (None, two)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"role": "root"}, "got role 'root'; expected one of search, write, admin"),
        ({"name": "a\nb"}, "got name"),
        ({"salt": "00"}, "expected 32 hexadecimal digits as salt"),
        ({"sha256": "XY"}, "expected 64 hexadecimal digits as sha256"),
        ({"requests_per_s": 0}, "expected a number above 0"),
        ({"bytes_per_s": "5MiB"}, "expected a number above 0"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_file_of_something_else_is_refused_with_the_reason(tmp_path, changed, told):
    path = tmp_path / "tokens.json"
    tokens.write(path, (tokens.make("one", SEARCH)[0],))
    entry = json.loads(path.read_text())["tokens"][0]
    path.write_text(json.dumps({"tokens": [{**entry, **changed}]}))
    with pytest.raises(ValueError, match=told):
        TokenFile(path)


def test_two_tokens_of_one_name_are_refused(tmp_path):
    tokens.write(tmp_path / "t", (tokens.make("one", SEARCH)[0], tokens.make("one", WRITE)[0]))
    with pytest.raises(ValueError, match="two tokens of the name one"):
        TokenFile(tmp_path / "t")


def test_a_missing_file_names_the_command(tmp_path):
    with pytest.raises(ValueError, match="`landseer token` makes one"):
        TokenFile(tmp_path / "gone")


def test_a_link_that_is_turned_counts_as_a_change(tmp_path):
    """As Kubernetes replaces a mounted secret."""
    (one, first), (two, second) = tokens.make("one", SEARCH), tokens.make("two", SEARCH)
    tokens.write(tmp_path / "1", (one,))
    tokens.write(tmp_path / "2", (two,))
    (tmp_path / "now").symlink_to("1")
    file = TokenFile(tmp_path / "now")
    assert file.find(first) == one
    (tmp_path / "next").symlink_to("2")
    os.replace(tmp_path / "next", tmp_path / "now")  # noqa: PTH105 - Path.replace would do the same
    assert file.find(second) == two


def test_a_rate_allows_bursts_and_recovers_with_time():
    now = [0.0]
    rate = Rate(2.0, lambda: now[0])
    for _ in range(4):  # two seconds' worth
        assert rate.wait_s() == 0
        rate.use(1)
    assert rate.wait_s() == pytest.approx(0.5)
    now[0] += 0.5
    assert rate.wait_s() == 0
    rate.use(9)  # more than there is: the debt is paid with time
    assert rate.wait_s() == pytest.approx(4.5)
    now[0] += 1e6
    assert rate.wait_s() == 0
    rate.use(4)
    assert rate.wait_s() > 0
