"""`landseer search URL`, with a real HTTP server on loopback."""

from __future__ import annotations

import http.server
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from authorities import Authority

from landseer.client import web_picture
from landseer.client.errors import UnusableInput
from landseer.client.web_picture import fetch_picture
from landseer.ops.run.ports import LOOPBACK, free_port

ELSEWHERE = {
    "file": "file:///etc/passwd",
    "plain": "http://127.0.0.1:9/a",
    "passwords": "http://name:secret@127.0.0.1:9/a",
}
JPEG = b"\xff\xd8\xff\xe0 and more"


class Site(http.server.BaseHTTPRequestHandler):
    """Answers by the path; /N redirects to /N-1."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        Site.asked.append((self.path, self.headers["User-Agent"]))
        name = self.path.lstrip("/").partition("?")[0]
        if name.isdigit():
            self._answer(302, Location=f"/{int(name) - 1}" if int(name) else "/picture")
        elif name in ELSEWHERE:
            self._answer(301, Location=ELSEWHERE[name])
        elif name == "page":
            self._answer(200, b"<html>", **{"Content-Type": "text/html; charset=utf-8"})
        elif name == "short":
            self._answer(200, JPEG, length=len(JPEG) + 1000)
        elif name == "huge":
            self._answer(200, JPEG, length=web_picture.MOST_BYTES + 1)
        elif name == "endless":
            self._chunks(JPEG + bytes(1 << 16), pause_s=0.0)
        elif name == "drip":
            self._chunks(JPEG, pause_s=0.02)
        elif name == "silent":
            time.sleep(15.0)
        elif name == "gone":
            self._answer(404)
        else:
            self._answer(200, JPEG)

    def _answer(self, code: int, body: bytes = b"", *, length: int | None = None, **headers: str) -> None:
        self.send_response(code)
        for key, value in {"Content-Length": str(len(body) if length is None else length), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def _chunks(self, part: bytes, *, pause_s: float) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        end = time.monotonic() + 15.0
        while time.monotonic() < end:
            try:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            except OSError:
                break
            time.sleep(pause_s)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def serving(certificate: ssl.SSLContext | None = None) -> Iterator[int]:
    server = http.server.ThreadingHTTPServer((LOOPBACK, 0), Site)
    server.daemon_threads = True
    if certificate:
        server.socket = certificate.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    yield from serving()


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    Site.asked.clear()


def test_search_fetches_an_address_and_sends_the_picture(run, fake, port: int, tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    address = f"HTTP://localhost:{port}/4?a=b//c"
    status, _, err = run("search", address, "--box", "1,2,3,4", "--html", str(page))
    assert (status, err) == (0, "")
    assert fake.requests["Search"][0].image == JPEG
    assert Site.asked[0] == ("/4?a=b//c", "landseer") and Site.asked[-1][0] == "/picture"
    assert address in page.read_text(encoding="utf-8")


def test_other_characters_than_ascii_are_quoted(port: int) -> None:
    assert fetch_picture(f"http://{LOOPBACK}:{port}/Köln am%20Rhein.jpg?q=ä b#c", timeout=20) == JPEG
    assert Site.asked[0][0] == "/K%C3%B6ln%20am%20Rhein.jpg?q=%C3%A4%20b"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gone", "its server answers 404 Not Found; check the address"),
        ("page", "got text/html, expected a picture; give the address of the picture, not of a page with it"),
        ("6", "it redirects more than 5 times"),
        ("file", "it redirects to file:///etc/passwd, which is not followed"),
        ("short", "it broke off 1000 B before its end; try again"),
        ("huge", "it has 256.0 MiB; expected a picture of at most 256.0 MiB"),
        ("passwords", "it has a name or password"),
    ],
)
def test_what_cannot_be_fetched_says_why(run, fake, port: int, name: str, said: str) -> None:
    status, out, err = run("search", f"http://{LOOPBACK}:{port}/{name}")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert f"/{name}: " in err and said in err
    assert not fake.requests["Search"]


def test_a_picture_that_never_ends_is_cut(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_picture, "MOST_BYTES", 1 << 20)
    with pytest.raises(UnusableInput, match=r"it has more than 1\.0 MiB; expected one picture"):
        fetch_picture(f"http://{LOOPBACK}:{port}/endless", timeout=20)


@pytest.mark.parametrize("name", ["drip", "silent"])
def test_the_timeout_bounds_all_of_it(port: int, name: str) -> None:
    began = time.monotonic()
    with pytest.raises(UnusableInput, match=r"set a longer --timeout"):
        fetch_picture(f"http://{LOOPBACK}:{port}/{name}", timeout=0.3)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (f"http://{LOOPBACK}:{{closed}}/a", "Connection refused"),
        ("https://name:secret@example.org/a.jpg", "it has a name or password, which this command does not send"),
        ("http:///a.jpg", "it names no host"),
        ("http://example.org:99999/a.jpg", "out of range"),
    ],
)
def test_addresses_that_lead_nowhere(run, address: str, said: str) -> None:
    status, _, err = run("search", address.format(closed=free_port()))
    assert status == 1 and said in err and "secret" not in err


def test_tls_is_checked_and_never_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    pair, context = authority.issue("web"), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    for port in serving(context):
        with pytest.raises(UnusableInput, match="its certificate is not trusted"):
            fetch_picture(f"https://{LOOPBACK}:{port}/picture", timeout=20)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.cert))
        assert fetch_picture(f"https://{LOOPBACK}:{port}/picture", timeout=20) == JPEG
        with pytest.raises(UnusableInput, match=r"it redirects to http://127\.0\.0\.1:9/a, which"):
            fetch_picture(f"https://{LOOPBACK}:{port}/plain", timeout=20)
