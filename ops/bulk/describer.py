"""Describes pictures in a process of its own, and makes of each the record that the server would make."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.config import ServerConfig
from landseer.ensemble.errors import InferenceFailed
from landseer.ensemble.index.codebooks import codebooks_of
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.ingest.indexing import outputs_of, record_of
from landseer.ensemble.keypoints.compact import CompactKeypoints
from landseer.ensemble.keypoints.extractor import frame_of
from landseer.ensemble.keypoints.quantiser import Quantiser
from landseer.ensemble.keypoints.rootsift import extract
from landseer.ensemble.pictures.decoders import Decoders, memory_of
from landseer.ensemble.pictures.pictures import Prepared, prepare
from landseer.ensemble.search.describe import DescribedPicture
from landseer.ensemble.store.record import Record
from landseer.ops.backend.inprocess import full_graph, read_profile
from landseer.ops.errors import OpsError


@dataclasses.dataclass(frozen=True, kw_only=True)
class DescribingOrder:
    """What a describer needs to know."""

    repository: Path
    """Folder of the exported models, on each machine."""
    profile: Profile
    """That these must have."""
    config: ServerConfig
    """Says what is stored, and which pictures are too large."""
    codebook: str = ""
    """Fingerprint of that for keypoints; empty without keypoints."""
    threads: int = 1
    """Of the models."""


class PictureDescriber:
    """The models, keypoints and decoders. For one thread."""

    def __init__(self, order: DescribingOrder) -> None:
        """Load the models. OpsError if they are not those of the order."""
        import cv2
        import faiss

        config, profile = order.config, order.profile
        if read_profile(order.repository) != profile:
            raise OpsError(
                f"{order.repository} has other models on this machine than where the run was started; "
                "copy the same folder to each machine"
            )
        cv2.setNumThreads(order.threads)
        faiss.omp_set_num_threads(order.threads)
        codebook = codebooks_of(config).keypoints
        if (codebook.fingerprint if codebook else "") != order.codebook:
            raise OpsError(
                f"{config.codebook or 'the codebook'} is another one on this machine than where the run was started; "
                "copy the same file to each machine, and install the same release"
            )
        self._quantiser = None if codebook is None else Quantiser(codebook)
        self._config, self._profile = config, profile
        outputs = outputs_of(profile, deep=config.deep, patches=config.keypoints)
        self._graph = full_graph(order.repository, profile, outputs, threads=order.threads)
        self._decoders = Decoders(memory=memory_of(config.limits), seconds=config.decode_s)
        self._decoders.start()

    def describe(self, id: str, image: bytes) -> Record:
        """Return the record of a picture, without metadata. InvalidInput; InferenceFailed; OpsError."""
        prepared = self.decode(image)
        return self.record(id, self.infer(prepared), self.keypoints(prepared.pixels))

    def decode(self, image: bytes) -> Prepared:
        """Return the pixels and the thumbnail of a picture. InvalidInput."""
        return self._decoders.run(
            prepare, image, profile=self._profile, limits=self._config.limits, thumbnail=self._config.thumbnails
        )

    def infer(self, prepared: Prepared) -> DescribedPicture:
        """Run the models. InferenceFailed; OpsError."""
        tensors = self._graph.describe(prepared.pixels[None])
        for name, tensor in tensors.items():
            if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
                raise InferenceFailed(f"the models returned values in `{name}` that are not finite")
        return DescribedPicture(prepared=prepared, tensors=tensors)

    def keypoints(self, pixels: NDArray[np.uint8]) -> CompactKeypoints | None:
        """Return the keypoints of a picture [H, W, 3], RGB, the models' input; None if they are not stored."""
        return None if self._quantiser is None else self._quantiser.compact(extract(pixels), frame_of(pixels))

    def record(self, id: str, found: DescribedPicture, keypoints: CompactKeypoints | None) -> Record:
        """Return the record of a described picture, without metadata."""
        return dataclasses.replace(
            record_of(id, {}, found, self._profile.version),
            locals=found.local_features,
            keypoints=keypoints,
            patches=found.patches,
        )

    def close(self) -> None:
        """End the decoders."""
        self._decoders.close()
