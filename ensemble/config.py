"""The configuration of an orchestrator, in one frozen value."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from landseer.client.addresses import is_loopback
from landseer.ensemble.cores import cores
from landseer.ensemble.filters.kinds import IndexedField
from landseer.ensemble.milvus_address import milvus_address
from landseer.ensemble.postgres_address import PostgresAddress

MIB = 2**20
RAW, AUGMENTED = "raw", "augmented"
KEYPOINTS, DEEP, BOTH, NONE = "keypoints", "deep", "both", "none"
LOCAL_FEATURES = (KEYPOINTS, DEEP, BOTH, NONE)
"""Which local features of indexed pictures are stored: RootSIFT keypoints with patches, deep ones, or both."""
_UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "KB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The largest picture accepted. ValueError for a limit below 1.

    Decoding takes about 4 bytes per pixel, twice that for unusual formats.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 100_000_000
    """Pixels to decode."""

    @property
    def max_reduced_pixels(self) -> int:
        """Pixels of a JPEG that is reduced while it is decoded, to half its width and height or less."""
        return 4 * self.max_pixels

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name.replace('max_', 'max-image-')} is {getattr(self, name)}; expected at least 1")


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Built once, by `serve.py` or a test, and passed down. ValueError for an invalid value."""

    store: Path | PostgresAddress
    """Folder of the store, created if missing; or the database of one that several orchestrators share."""
    listen: str = "127.0.0.1:7070"
    """HOST:PORT of the gRPC services; port 0 picks a free port."""
    triton: str = "127.0.0.1:8001"
    """HOST:PORT of Triton's gRPC endpoint."""
    metrics: str | None = "127.0.0.1:7071"
    """HOST:PORT of `/metrics`; None disables it."""
    vectors: str = RAW
    """Which vectors are searched: `raw` descriptors, or the `augmented` ones written by `landseer augment`."""
    engine: str = "faiss-exact"
    """A key of `index.engines.ENGINES`, or the address of a collection of Milvus (`milvus_address`)."""
    milvus_token: Path | None = None
    """File with what Milvus asks for: `user:password`, or an API key. None for a Milvus that asks for nothing."""
    milvus_ca: Path | None = None
    """PEM file of the authorities that sign Milvus' certificate; None for those of the system."""
    index: str = ""
    """How the main index is built and searched, as FACTORY[:EFFORT[:RESCORED]] (`index.setting_choice`); empty for the
    setting that `landseer tune-index` wrote, or else the default for the number of pictures."""
    versions_from: int = 20_000
    """Pictures from which on the main index is kept in files, as versions, and changes lie beside it."""
    versions_kept: int = 2
    """Index versions that are kept: the one that serves, and those before it."""
    merge_share: float = 0.05
    """Share of the main index that may have changed before a new version is built."""
    threads: int = field(default_factory=cores)
    """Threads that decode query pictures, and as many again for pictures to index."""
    limits: Limits = field(default_factory=Limits)
    """The largest picture accepted."""
    decode_processes: bool = True
    """Whether pictures are decoded in processes of their own, so that one that crashes the decoder fails alone."""
    decode_s: float = 10.0
    """Most seconds of processor time to decode a picture, in such a process."""
    max_top_k: int = 1000
    """Most hits per search."""
    store_limit_bytes: int = 16 * 2**30
    """Most bytes the store may take on disk."""
    network_store: bool = False
    """Whether the store may be on a file system of another machine or a program: NFS, SMB, FUSE."""
    thumbnails: bool = True
    """Whether to store a small JPEG of each indexed picture, for `explain` and Get."""
    local_features: str = KEYPOINTS
    """One of `LOCAL_FEATURES`: for visual words and spatial verification. Keypoints and patches take 32 KiB per
    picture, deep local features 68 KiB."""
    regions: int = 0
    """Most boxes of an indexed picture to describe again as crops, for R-ASMK; needs deep local features."""
    codebook: Path | None = None
    """File written by `landseer codebook`; None for the codebook of keypoints that ships."""
    kernel: str = ""
    """Similarity by visual words, a key of `asmk.kernel.KERNELS`; empty means how-idf for keypoints; for deep local
    features r-asmk with regions, else asmk."""
    index_fields: tuple[IndexedField, ...] = ()
    """Fields of the metadata that are kept in memory, so that filters by them take milliseconds."""
    bulk_in_flight: int = 16
    """Pictures of one UpsertMany stream processed at a time: two full batches of Triton's."""
    in_flight: int = 8
    """Pictures processed by Triton at a time: one full batch. Requests that wait beyond that can still be dropped."""
    waiting: int = 64
    """Queries that may wait for Triton beside those that it processes; the next one gets RESOURCE_EXHAUSTED at once."""
    refuse_after_s: float = 1.5
    """A search that would be answered later than this gets RESOURCE_EXHAUSTED at once; so does one that would be
    answered after its deadline. Three times the objective for a search; a third of it counts in an overload."""
    calls: int = 256
    """Most calls open at a time; the next one gets RESOURCE_EXHAUSTED before its message is read."""
    bytes_in_flight: int = 256 * MIB
    """Bytes of requests that are being answered, beyond which one with a picture gets RESOURCE_EXHAUSTED; from half as
    many on, streams wait. They take up to four times that in memory."""
    poll_s: float = 0.5
    """Seconds from one readiness check of Triton to the next, or longer if a check takes longer."""
    poll_timeout_s: float = 1.4
    """How long a readiness check waits for an answer."""
    poll_misses: int = 3
    """Checks in a row without an answer after which Triton counts as unavailable, unless it answered an inference
    meanwhile. A Triton that is gone is noticed after `poll_misses` times `poll_s`, one that hangs after `poll_misses`
    times `poll_timeout_s`, and `poll_s` at most."""
    inference_timeout_s: float = 60.0
    """Timeout of one inference if the caller set no deadline."""
    answer_reserve_s: float = 0.05
    """Time that optional stages must leave before the deadline, for reading and sending the hits."""
    tls_cert: Path | None = None
    """PEM file of the certificate, for gRPC and metrics; None serves plain text."""
    tls_key: Path | None = None
    """PEM file of its key."""
    tls_client_ca: Path | None = None
    """PEM file of the authorities whose certificates clients must have; None asks for none."""
    tokens: Path | None = None
    """File written by `landseer token`; None lets everybody call everything."""
    insecure: bool = False
    """Whether addresses that other machines can reach may lack TLS or tokens."""
    ready_file: Path | None = None
    """File that is there, and written at each readiness check, while the server is SERVING: for probes that have no
    certificate. None writes none."""
    drain_s: float = 10.0
    """How long requests in flight may take to finish after SIGTERM."""

    def __post_init__(self) -> None:
        for name in (
            "threads",
            "max_top_k",
            "store_limit_bytes",
            "bulk_in_flight",
            "in_flight",
            "poll_misses",
            "calls",
            "bytes_in_flight",
            "versions_from",
            "versions_kept",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name.replace('_', '-')} is {getattr(self, name)}; expected at least 1")
        if self.waiting < 0:
            raise ValueError(f"queue is {self.waiting}; expected 0 or more queries that wait for Triton")
        # Written so that NaN fails, too.
        for name in ("poll_s", "poll_timeout_s", "inference_timeout_s", "refuse_after_s", "decode_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name.replace('_', '-')} is {getattr(self, name)}; expected seconds above 0")
        for name in ("answer_reserve_s", "drain_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name.replace('_', '-')} is {getattr(self, name)}; expected 0 seconds or more")
        self._check_index()
        if self.local_features not in LOCAL_FEATURES:
            raise ValueError(f"local-features is {self.local_features!r}; expected one of {', '.join(LOCAL_FEATURES)}")
        if self.codebook is not None and self.local_features == NONE:
            raise ValueError("codebook needs local features, and local-features is none; choose keypoints or deep")
        if self.regions < 0 or (self.regions and not self.deep):
            raise ValueError(
                f"regions is {self.regions}; expected 0, or more together with local-features {DEEP} or {BOTH}"
            )
        for address in (self.listen, self.triton, *((self.metrics,) if self.metrics else ())):
            split_address(address)
        self._check_fields()
        self._check_milvus()
        self._check_shared()
        self._check_security()

    def _check_index(self) -> None:
        if not 0 < self.merge_share <= 1:
            raise ValueError(f"merge-share is {self.merge_share}; expected a share above 0, and 1 at most")
        if self.vectors not in (RAW, AUGMENTED):
            raise ValueError(f"vectors is {self.vectors!r}; expected {RAW} or {AUGMENTED}")

    def _check_fields(self) -> None:
        names = [field.name for field in self.index_fields]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"index-field {twice[0]} is given {names.count(twice[0])} times; expected once")

    def _check_milvus(self) -> None:
        address = milvus_address(self.engine)
        if address is None or address.tls:
            return
        if self.milvus_ca is not None:
            raise ValueError(
                f"milvus-ca is for TLS, and the engine is {self.engine}; write milvuss://, or leave it out"
            )
        if self.milvus_token is not None and not is_loopback(address.host) and not self.insecure:
            raise ValueError(
                f"engine is {self.engine}, which would send --milvus-token in plain text to another machine; "
                "write milvuss:// for TLS, or pass --insecure on a network of your own"
            )

    def _check_shared(self) -> None:
        if not isinstance(self.store, PostgresAddress):
            return
        if milvus_address(self.engine) is None:
            raise ValueError(
                f"store is {self.store}, which several servers may share, and the engine {self.engine} would know only "
                "what this one writes; give --engine milvus://HOST:PORT/COLLECTION, or a folder as --store"
            )
        if self.vectors != RAW:
            raise ValueError(f"vectors is {self.vectors}; a store in a database has {RAW} ones only")

    def _check_security(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("a certificate needs its key: give both --tls-cert and --tls-key, or neither")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls-client-ca asks clients for certificates, which needs --tls-cert and --tls-key")
        if self.insecure:
            return
        no_tls, no_callers = self.tls_cert is None, self.tokens is None and self.tls_client_ca is None
        if not is_loopback(split_address(self.listen)[0]) and (no_tls or no_callers):
            lacks = " and ".join((["TLS"] if no_tls else []) + (["tokens"] if no_callers else []))
            raise ValueError(
                f"listen is {self.listen}, which other machines can reach, without {lacks}: whoever does may read, "
                "add and delete pictures, or listen in. Give --tls-cert and --tls-key, and --tokens (`landseer token` "
                "makes them; docs/security.md shows each step), or listen on 127.0.0.1, or pass --insecure on a "
                "network of your own"
            )
        if self.metrics is not None and not is_loopback(split_address(self.metrics)[0]) and no_tls:
            raise ValueError(
                f"metrics is {self.metrics}, which other machines can reach, without TLS: give --tls-cert and "
                "--tls-key (docs/security.md), or an address on 127.0.0.1, or --insecure on a network of your own"
            )

    @property
    def folder(self) -> Path:
        """Of the store. RuntimeError for a store in a database, which has none."""
        if isinstance(self.store, PostgresAddress):
            raise RuntimeError(f"{self.store} has no folder")
        return self.store

    @property
    def keypoints(self) -> bool:
        """Whether keypoints are stored."""
        return self.local_features in (KEYPOINTS, BOTH)

    @property
    def deep(self) -> bool:
        """Whether deep local features are stored."""
        return self.local_features in (DEEP, BOTH)

    @property
    def max_message_bytes(self) -> int:
        """Largest request that gRPC accepts.

        Above the picture limit on purpose: a picture that is somewhat too large still reaches us and gets an error that
        names the field; gRPC itself would only say RESOURCE_EXHAUSTED.
        """
        return max(64 * MIB, 2 * self.limits.max_bytes + MIB)

    @property
    def max_answer_bytes(self) -> int:
        """Largest answer: each hit with 64 KiB of metadata and 64 KiB of explanation."""
        return 16 * MIB + self.max_top_k * 128 * 2**10


def split_address(address: str) -> tuple[str, int]:
    """Split HOST:PORT; an IPv6 host is in brackets. ValueError for another form."""
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\s]+)):(\d{1,5})", address)
    if match is None or int(match[3]) > 65535:
        raise ValueError(f"got address {address!r}; expected HOST:PORT, such as 127.0.0.1:7070 or [::1]:7070")
    return match[1] or match[2], int(match[3])


def parse_bytes(text: str) -> int:
    """Read a size such as `16GiB`, `500 MB` or `1048576`. ValueError if it is not one."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise ValueError(f"got size {text!r}; expected a number with KiB, MiB, GiB or TiB, such as 16GiB")
    number: str = match[1]
    return int(float(number) * unit)
