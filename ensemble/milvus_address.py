"""The address of a Milvus collection, as `landseer serve --engine` takes it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FORM = re.compile(r"(milvuss?)://([^\s/@:\[\]]+):(\d{1,5})/([A-Za-z_]\w{0,254})", re.ASCII)
_SCHEMES = ("milvus:", "milvuss:")


@dataclass(frozen=True, kw_only=True)
class MilvusAddress:
    """Where a collection of Milvus is."""

    host: str
    port: int
    collection: str
    """Its name, in the default database."""
    tls: bool

    def __str__(self) -> str:
        return f"{self.host}:{self.port}/{self.collection}"


def milvus_address(engine: str) -> MilvusAddress | None:
    """Return the address that an engine's name is; None for an engine within the process. ValueError if malformed."""
    if not engine.startswith(_SCHEMES):
        return None
    match = _FORM.fullmatch(engine)
    if match is None or int(match[3]) > 65535:
        # Not quoted in whole: it may have a password, which an address must not.
        raise ValueError(
            f"engine {engine.partition(':')[0]}:... is malformed; expected milvus://HOST:PORT/COLLECTION, "
            "or milvuss:// for TLS, such as milvus://127.0.0.1:19530/pictures; a collection of letters, digits and _, "
            "and the token in a file (--milvus-token)"
        )
    return MilvusAddress(host=match[2], port=int(match[3]), collection=match[4], tls=match[1] == "milvuss")
