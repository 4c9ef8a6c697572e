"""Which addresses stay on this machine."""

from __future__ import annotations

import ipaddress
import re


def is_loopback(host: str) -> bool:
    """Return whether a host, a name or an IP address, is this machine's loopback."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


def stays_here(target: str) -> bool:
    """Return whether every address of a gRPC target is on this machine: loopback, or a Unix socket."""
    scheme, _, rest = target.partition(":")
    if scheme in ("unix", "unix-abstract"):
        return True
    if scheme in ("dns", "ipv4", "ipv6"):
        target = rest.rpartition("/")[2]
    return all(is_loopback(_host(address)) for address in target.split(","))


def _host(address: str) -> str:
    found = re.fullmatch(r"\[([^\]]*)\](?::\d+)?|([^:]*)(?::\d+)?", address)
    return (found[1] or found[2] or "") if found else address
