"""What a running orchestrator was told, in one frozen value."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

MIB = 2**20
RAW, AUGMENTED = "raw", "augmented"
_UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "KB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The largest picture taken.

    Decoding takes about 4 bytes a pixel, and as much again for unusual kinds. Pillow's own limit of 178,956,970 pixels
    stands above `max_pixels`.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 100_000_000


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Built once, by `serve.py` or by a test, and passed down. ValueError if a value cannot work."""

    store: Path
    """Folder of the store; made if it is not there."""
    listen: str = "127.0.0.1:7070"
    """HOST:PORT of the gRPC services; port 0 takes a free one."""
    triton: str = "127.0.0.1:8001"
    """HOST:PORT of Triton's gRPC endpoint."""
    metrics: str | None = "127.0.0.1:7071"
    """HOST:PORT of `/metrics`; None serves none."""
    vectors: str = RAW
    """What is searched: `raw` descriptors, or `augmented` ones, of `landseer augment`."""
    engine: str = "faiss-exact"
    """A key of `index.engines.ENGINES`."""
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Threads that decode pictures of queries, and as many again for pictures to index."""
    limits: Limits = field(default_factory=Limits)
    """The largest picture taken."""
    max_top_k: int = 1000
    """Most hits of one search."""
    store_limit_bytes: int = 16 * 2**30
    """Most bytes that the store may take on disk."""
    thumbnails: bool = True
    """Whether indexed pictures keep a small JPEG, for `explain` and Get."""
    local_features: bool = False
    """Whether indexed pictures keep their local features, for spatial verification and words; 68 KiB a picture."""
    regions: int = 0
    """Most boxes of an indexed picture whose crops are described again, for R-ASMK; needs `local_features`."""
    codebook: Path | None = None
    """File of `landseer codebook`, for searches by visual words; needs `local_features`."""
    kernel: str = ""
    """Similarity of pictures by their words, a key of `asmk.kernel.KERNELS`; empty: r-asmk with regions, else asmk."""
    bulk_in_flight: int = 16
    """Pictures of one UpsertMany stream that are worked on at a time; two of Triton's full batches."""
    in_flight: int = 8
    """Pictures that are with Triton at a time, one of its full batches. What waits beyond them can be dropped."""
    waiting: int = 64
    """Queries that may wait for their turn; one more is answered RESOURCE_EXHAUSTED at once."""
    poll_s: float = 0.5
    """Pause between two looks at Triton's readiness. With `poll_timeout_s` it bounds how late a loss is seen."""
    poll_timeout_s: float = 1.4
    """How long one such look may take before Triton counts as lost."""
    inference_timeout_s: float = 60.0
    """Longest wait for one inference when the caller set no deadline."""
    answer_reserve_s: float = 0.05
    """What optional stages must leave of the deadline, for reading the hits and sending them."""
    drain_s: float = 10.0
    """How long requests in flight may finish after SIGTERM."""

    def __post_init__(self) -> None:
        for name in ("threads", "max_top_k", "store_limit_bytes", "bulk_in_flight", "in_flight"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name.replace('_', '-')} is {getattr(self, name)}; it must be at least 1")
        if self.vectors not in (RAW, AUGMENTED):
            raise ValueError(f"vectors is {self.vectors!r}; it must be {RAW} or {AUGMENTED}")
        if self.codebook is not None and not self.local_features:
            raise ValueError("codebook needs local-features: words are made of what local features pictures keep")
        if self.regions < 0 or (self.regions and not self.local_features):
            raise ValueError(f"regions is {self.regions}; it must be at least 0, and needs local-features above that")
        for address in (self.listen, self.triton, *((self.metrics,) if self.metrics else ())):
            split_address(address)

    @property
    def words_kernel(self) -> str:
        """`kernel`, or what follows from the regions."""
        return self.kernel or ("r-asmk" if self.regions else "asmk")

    @property
    def max_message_bytes(self) -> int:
        """Largest request that gRPC takes.

        Above the picture limit on purpose: a picture that is somewhat too large reaches us and gets an error that
        names the field, where gRPC itself would only say RESOURCE_EXHAUSTED.
        """
        return max(64 * MIB, 2 * self.limits.max_bytes + MIB)

    @property
    def max_answer_bytes(self) -> int:
        """Largest answer: every hit with 64 KiB of metadata and as much again of explanation."""
        return 16 * MIB + self.max_top_k * 128 * 2**10


def split_address(address: str) -> tuple[str, int]:
    """Split HOST:PORT; an IPv6 host stands in brackets. ValueError if it is not of that form."""
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\s]+)):(\d{1,5})", address)
    if match is None or int(match[3]) > 65535:
        raise ValueError(f"{address!r} is not HOST:PORT, such as 127.0.0.1:7070 or [::1]:7070")
    return match[1] or match[2], int(match[3])


def parse_bytes(text: str) -> int:
    """Read a size such as `16GiB`, `500 MB` or `1048576`. ValueError if it is not one."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise ValueError(f"{text!r} is not a size; write a number and KiB, MiB, GiB or TiB, such as 16GiB")
    number: str = match[1]
    return int(float(number) * unit)
