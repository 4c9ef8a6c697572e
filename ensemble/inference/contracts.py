"""The tensors of every served graph, and Triton's ensembles of them, declared once.

`export` names and checks its ONNX graphs by this table and generates each `config.pbtxt` from it; the orchestrator
takes tensor names from it. Dimensions leave out the batch, which is always the first axis; -1 is any length.

"Ensemble" here means Triton's: models that Triton runs one after the other within one request. The package
`landseer.ensemble` is the orchestrator, which calls them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DType = Literal["uint8", "int32", "bool", "float16", "float32"]

MIN_SIDE = 64
"""Shortest side of a picture that `backbone` takes, in pixels; the orchestrator enlarges smaller pictures."""
MAX_SIDE = 1600
"""Longest side of a picture that `backbone` takes, in pixels."""
SIDE_MULTIPLE = 32
"""The orchestrator rounds sides to this many pixels, the stride of the trunks: few shapes, so requests batch."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes that depend on the backbone, and the papers' hyper-parameters."""

    channels: int
    """C, channels of the trunk's last feature map; also D of the global descriptor: 1280 (Lite0), 2048 (ResNets)."""
    reduced: int = 512
    """P, values of a co-attention vector after PCA (Hu and Bors 2020)."""
    locals: int = 500
    """N, local features kept over all scales (Hu and Bors 2020)."""
    local: int = 128
    """Values of a local descriptor after PCA (Hu and Bors 2020; Teichmann et al. 2019)."""
    patches: int = 0
    """Patches kept over all scales: features of the middle of the trunk, as signs. 0 if no projection was learned."""
    clusters: int = 10
    """K, clusters of a picture (Hu and Bors 2020)."""
    boxes: int = 8
    """M, most boxes the detector returns."""
    neighbours: int = 64
    """Most neighbours LAttQE takes: its number of positions (Gordo et al. 2020, nQE)."""
    candidates: int = 1000
    """Most candidates in one co-attention request."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One input or output, without its batch axis."""

    name: str
    dtype: DType
    dims: tuple[int, ...]
    bounds: tuple[tuple[int, int], ...] = ()
    """Minimum and maximum length of each axis, if the graph cannot take every length."""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A graph that Triton serves."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch: int
    half_precision: bool
    """Whether it may run in bf16 if the parity check passes; index arithmetic and k-means stay in fp32."""

    def output(self, name: str) -> Tensor:
        """Return the output called `name`; KeyError if there is none."""
        return {tensor.name: tensor for tensor in self.outputs}[name]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One graph of an ensemble. Tensors keep their names throughout, so only the connected ones are listed."""

    graph: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """A Triton ensemble: graphs that Triton runs one after the other within one request."""

    name: str
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]


IMAGE = Tensor(
    name="image",
    dtype="uint8",
    dims=(-1, -1, 3),
    bounds=((MIN_SIDE, MAX_SIDE), (MIN_SIDE, MAX_SIDE), (3, 3)),
)
"""RGB pixels [H, W, 3]."""


RELAYED = "landseer_relayed"
"""Among the extensions that the server names where `ops/run/relay.py` stands before it: no inference is cancelled."""

ATTENTION = Tensor(name="attention", dtype="float32", dims=(-1, -1))
"""In [0, 1], on the feature map of scale 1."""
IMAGE_SIZE = Tensor(name="image_size", dtype="int32", dims=(2,))
"""Height, width of `image`."""

PATCH_BITS = 128
"""Signs of a patch."""
PATCH_OUTPUTS = ("patch_codes", "patch_count", "patch_positions", "patch_scales")
"""The outputs of `backbone` and of the ensembles that make up patches, if `Sizes.patches` is above 0."""

DEFAULT_DETECTOR = "attention"
DETECTOR_INPUTS: dict[str, tuple[Tensor, ...]] = {
    DEFAULT_DETECTOR: (ATTENTION, IMAGE_SIZE),
    "rpn": (IMAGE,),
    "ssdlite": (IMAGE,),
    "faster_rcnn": (IMAGE,),
}
"""Inputs by kind of detector: the backbone's attention, or the picture itself."""


def graphs(sizes: Sizes, detector: str = DEFAULT_DETECTOR) -> dict[str, Graph]:
    """Return every graph's contract by name, for a backbone of the given sizes and a key of `DETECTOR_INPUTS`."""
    boxes = _detector(sizes, DETECTOR_INPUTS[detector])
    every = (_backbone(sizes), boxes, _cluster(sizes), _lattqe(sizes), _coattention(sizes))
    return {graph.name: graph for graph in every}


def ensembles(detector: str = DEFAULT_DETECTOR, *, patches: bool = False) -> dict[str, Ensemble]:
    """Return the two ensembles over one backbone: `describe` for queries, `describe_full` for indexing.

    detector: a key of `DETECTOR_INPUTS`. One that takes the picture runs in parallel with the backbone; the outputs
    have the same names. patches: whether the backbone has `PATCH_OUTPUTS`.
    """
    query = ("descriptor", "query_vector", *(PATCH_OUTPUTS if patches else ()))
    maps = ("attention", "image_size")
    local = ("local_features", "local_count", "local_positions", "local_scales", "local_norms", "local_descriptors")
    boxes = ("boxes", "box_scores", "box_count")
    clusters = ("clusters", "cluster_count", "assignments")
    full = (
        Step(graph="backbone", inputs=("image",), outputs=query + maps + local),
        Step(graph="detector", inputs=tuple(tensor.name for tensor in DETECTOR_INPUTS[detector]), outputs=boxes),
        Step(graph="cluster", inputs=("local_features", "local_count", "local_norms"), outputs=clusters),
    )
    brief = Step(graph="backbone", inputs=("image",), outputs=query)
    return {
        "describe": Ensemble(name="describe", steps=(brief,), outputs=query),
        "describe_full": Ensemble(name="describe_full", steps=full, outputs=(*query, *maps, *local, *boxes, *clusters)),
    }


def _backbone(s: Sizes) -> Graph:
    return Graph(
        name="backbone",
        inputs=(IMAGE,),
        outputs=(
            Tensor(name="descriptor", dtype="float32", dims=(s.channels,)),
            Tensor(name="query_vector", dtype="float32", dims=(s.reduced,)),
            # Raw local features before whitening, strongest first, zero beyond local_count.
            Tensor(name="local_features", dtype="float32", dims=(s.locals, s.channels)),
            Tensor(name="local_count", dtype="int32", dims=(1,)),
            # x, y of each feature's centre in pixels of `image`.
            Tensor(name="local_positions", dtype="float32", dims=(s.locals, 2)),
            # Factor by which `image` was resized for each feature.
            Tensor(name="local_scales", dtype="float32", dims=(s.locals,)),
            Tensor(name="local_norms", dtype="float32", dims=(s.locals,)),
            # Local features projected for search, L2-normalised, in the order of local_features, zero beyond the count.
            Tensor(name="local_descriptors", dtype="float16", dims=(s.locals, s.local)),
            ATTENTION,
            IMAGE_SIZE,
            *(_patches(s) if s.patches else ()),
        ),
        max_batch=8,
        half_precision=True,
    )


def _patches(s: Sizes) -> tuple[Tensor, ...]:
    return (
        # Signs of the projected features, packed as by numpy.packbits; strongest first, zero beyond patch_count.
        Tensor(name="patch_codes", dtype="uint8", dims=(s.patches, PATCH_BITS // 8)),
        Tensor(name="patch_count", dtype="int32", dims=(1,)),
        # x, y of each patch's centre in pixels of `image`.
        Tensor(name="patch_positions", dtype="float32", dims=(s.patches, 2)),
        # Factor by which `image` was resized for each patch.
        Tensor(name="patch_scales", dtype="float32", dims=(s.patches,)),
    )


def _detector(s: Sizes, inputs: tuple[Tensor, ...]) -> Graph:
    return Graph(
        name="detector",
        inputs=inputs,
        outputs=(
            # x0, y0, x1, y1 in pixels of `image`, best first, zero beyond box_count.
            Tensor(name="boxes", dtype="float32", dims=(s.boxes, 4)),
            Tensor(name="box_scores", dtype="float32", dims=(s.boxes,)),
            Tensor(name="box_count", dtype="int32", dims=(1,)),
        ),
        max_batch=8,
        half_precision=False,
    )


def _cluster(s: Sizes) -> Graph:
    return Graph(
        name="cluster",
        inputs=(
            Tensor(name="local_features", dtype="float32", dims=(s.locals, s.channels)),
            Tensor(name="local_count", dtype="int32", dims=(1,)),
            Tensor(name="local_norms", dtype="float32", dims=(s.locals,)),
        ),
        outputs=(
            # L2-normalised, zero beyond cluster_count.
            Tensor(name="clusters", dtype="float16", dims=(s.clusters, s.reduced)),
            Tensor(name="cluster_count", dtype="int32", dims=(1,)),
            # Cluster of each local feature, -1 for padding.
            Tensor(name="assignments", dtype="int32", dims=(s.locals,)),
        ),
        max_batch=8,
        half_precision=False,
    )


def _lattqe(s: Sizes) -> Graph:
    k = ((1, s.neighbours),)
    return Graph(
        name="lattqe",
        inputs=(
            Tensor(name="query", dtype="float32", dims=(s.channels,)),
            Tensor(name="neighbours", dtype="float32", dims=(-1, s.channels), bounds=(*k, (s.channels, s.channels))),
            # True where a neighbour is real, False where it is padding.
            Tensor(name="neighbour_mask", dtype="bool", dims=(-1,), bounds=k),
        ),
        outputs=(
            Tensor(name="expanded", dtype="float32", dims=(s.channels,)),
            # Weight of the query (always 1), then of each neighbour; 0 for padding.
            Tensor(name="weights", dtype="float32", dims=(-1,)),
            # Probability that each neighbour shows the same thing; 0 for padding.
            Tensor(name="relevance", dtype="float32", dims=(-1,)),
        ),
        max_batch=16,
        half_precision=True,
    )


def _coattention(s: Sizes) -> Graph:
    c = (1, s.candidates)
    return Graph(
        name="coattention",
        inputs=(
            Tensor(name="query_vector", dtype="float32", dims=(s.reduced,)),
            Tensor(
                name="candidate_clusters",
                dtype="float16",
                dims=(-1, s.clusters, s.reduced),
                bounds=(c, (s.clusters, s.clusters), (s.reduced, s.reduced)),
            ),
            Tensor(name="candidate_counts", dtype="int32", dims=(-1,), bounds=(c,)),
        ),
        outputs=(
            # Cosine of the query with the attended sum of each candidate's clusters; -1 without any cluster.
            Tensor(name="scores", dtype="float32", dims=(-1,)),
            # Softmaxed weights over clusters; 0 beyond candidate_counts.
            Tensor(name="cluster_weights", dtype="float32", dims=(-1, s.clusters)),
        ),
        max_batch=4,
        half_precision=False,
    )
