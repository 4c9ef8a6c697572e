"""Fetches a picture from the web for `landseer search URL`.

The client fetches it, never the server: a server that opens addresses for its callers would open those of its own
network, too.
"""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from landseer.client.errors import UnusableInput
from landseer.client.picture_content import HEAD, format_of
from landseer.client.queries import utf8
from landseer.client.readable import size

MOST_BYTES = 256 << 20
"""Of one picture. Servers refuse pictures long before that."""
MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_AT_ONCE = 1 << 16
_HEADERS = {"User-Agent": "landseer", "Accept": "image/*", "Accept-Encoding": "identity"}
_KEPT = "%/:=&?~+!$,;'@()*[]"
"""Characters of an address that need no quoting, or are quoted already."""


def is_address(text: str, *schemes: str) -> bool:
    """Return whether a text is the address of something on the web, and no path. schemes: http and https if none."""
    return text.lower().startswith(tuple(f"{scheme}://" for scheme in schemes or ("http", "https")))


def fetch_picture(address: str, *, timeout: float) -> bytes:
    """Return the picture at an address, within `timeout` seconds in all. Proxies are those of the environment.

    Raises UnusableInput, with the reason, if it cannot be had, is no picture or is larger than MOST_BYTES.
    """
    fetching = _Fetching(_ascii(address), timeout)
    # A sender who drips keeps every read alive, and names are looked up without a limit. So the caller does not wait
    # for the thread longer than it should take.
    thread = threading.Thread(target=fetching.run, name="landseer-fetch", daemon=True)
    thread.start()
    thread.join(timeout)
    if fetching.error is not None:
        raise UnusableInput(f"cannot fetch {address}: {fetching.error}")
    if fetching.picture is None:
        raise UnusableInput(f"cannot fetch {address}: it took more than {timeout:g} s; set a longer --timeout")
    return fetching.picture


class _Fetching:
    """Fetches in a thread. When that has ended, either `picture` or `error` is set."""

    def __init__(self, address: str, timeout: float) -> None:
        self.picture: bytes | None = None
        self.error: str | None = None
        self._address = address
        self._timeout = timeout
        self._end = time.monotonic() + timeout

    def run(self) -> None:
        """Fetch it."""
        try:
            self.picture = self._followed()
        except HTTPError as error:
            self.error = f"its server answers {error.code} {error.reason}; check the address"
        except UnusableInput as error:  # of an address that it redirects to
            self.error = str(error)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.error = _why(error)

    def _followed(self) -> bytes:
        opener, address = _opener(), self._address
        for _ in range(1 + MOST_REDIRECTS):
            try:
                with opener.open(request.Request(address, headers=_HEADERS), timeout=self._timeout) as answer:
                    return self._read(answer)
            except HTTPError as error:
                there = _next(address, error)
                if there is None:
                    raise
                error.close()
                address = there
        raise ValueError(f"it redirects more than {MOST_REDIRECTS} times")

    def _read(self, answer: http.client.HTTPResponse) -> bytes:
        if answer.length is not None and answer.length > MOST_BYTES:
            raise ValueError(f"it has {size(answer.length)}; expected a picture of at most {size(MOST_BYTES)}")
        read = bytearray()
        while part := answer.read1(_AT_ONCE):
            read += part
            if len(read) > MOST_BYTES:
                raise ValueError(f"it has more than {size(MOST_BYTES)}; expected one picture")
            if time.monotonic() > self._end:
                raise TimeoutError
        if answer.length:
            raise ValueError(f"it broke off {size(answer.length)} before its end; try again")
        if not format_of(bytes(read[:HEAD])):
            kind = answer.headers.get_content_type() if read else "nothing"
            raise ValueError(f"got {kind}, expected a picture; give the address of the picture, not of a page with it")
        return bytes(read)


def _next(address: str, answer: HTTPError) -> str | None:
    """Return where an answer redirects to, None if it does not. ValueError for what must not be followed."""
    location = answer.headers.get("Location") if answer.code in _REDIRECTS else None
    if not location:
        return None
    # Python reads headers as Latin-1, and what servers send beside ASCII is UTF-8.
    there = urljoin(address, location.encode("latin-1", "replace").decode("utf-8", "replace"))
    if not is_address(there) or (is_address(address, "https") and not is_address(there, "https")):
        raise ValueError(f"it redirects to {there}, which is not followed; if you trust that, give it instead")
    return _ascii(there)


def _opener() -> request.OpenerDirector:
    """Return an opener for http and https alone that does not follow redirects: urllib's own also opens files."""
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.HTTPHandler(),
        request.HTTPSHandler(),
        request.HTTPErrorProcessor(),
        request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _ascii(address: str) -> str:
    """Return an address as it is sent, with other characters than ASCII quoted. UnusableInput for an unfit one."""
    try:
        parts = urlsplit(utf8("the address", address))
        host, port = parts.hostname, parts.port
        if not host:
            raise ValueError("it names no host")
        if parts.username is not None:
            raise ValueError("it has a name or password, which this command does not send")
        host = host if host.isascii() else host.encode("idna").decode()
    except ValueError as error:
        shown = address.rpartition("@")[2] if "@" in address else address
        raise UnusableInput(f"cannot fetch {shown}: {error}; download it and give the file") from None
    place = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    return urlunsplit((parts.scheme, place, quote(parts.path, safe=_KEPT), quote(parts.query, safe=_KEPT), ""))


def _why(error: Exception) -> str:
    """Return what went wrong, for people."""
    why = error.reason if isinstance(error, URLError) else error
    if isinstance(why, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {why.verify_message}"
    if isinstance(why, TimeoutError):
        return "its server does not answer in time; set a longer --timeout"
    if isinstance(why, OSError):
        return why.strerror or str(why) or type(why).__name__
    return str(why) or type(why).__name__
