"""Build the five modules of an export: trained parts where they exist, seeded stand-ins elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from landseer.ensemble.inference.contracts import DEFAULT_DETECTOR, SIDE_MULTIPLE, Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.export.detectors import DETECTORS, Detector
from landseer.export.detectors import SEED as DETECTOR_SEED
from landseer.export.lattqe_file import learned_on, read_lattqe, shipped_lattqe
from landseer.export.models.backbone import GLOBAL_SCALES, LOCAL_SCALES, Backbone
from landseer.export.models.checkpoints import Checkpoint, exponent
from landseer.export.models.cluster import Clustering
from landseer.export.models.coattention import CoAttention
from landseer.export.models.folding import learned_projection, network_projection
from landseer.export.models.heads import HEADS, GeMHead
from landseer.export.models.lattqe import ExpansionNetwork, LAttQE
from landseer.export.models.pooling import Projection
from landseer.export.models.state_dicts import fill
from landseer.export.models.torch_file import WeightsError
from landseer.export.models.trained import SUFFIX, Trained, backbone_of, check_trunk, read_tensors
from landseer.export.models.trunk import Loaded, Stride
from landseer.export.models.trunks import BACKBONES, DEFAULT_BACKBONE, IMAGENET
from landseer.export.parts import Parts, read_parts, shipped

HEAD_SEED, REDUCTION_SEED, LATTQE_SEED, LOCALS_SEED = 0, 1, 2, 3
LATTQE_WIDTH = 64
"""Of the seeded stand-in: 6 MB at D = 1280, where the paper's width, D, takes 120 MB of disk and memory for nothing."""
DEFAULT, WITHOUT_PARTS = "two-map", "gem"
"""The default descriptor if trained parts fit the trunk; otherwise GeM, which needs no training."""

OF_IMAGENET = ("cider",)
"""Descriptors whose trained parts ship for the trunk with ImageNet weights only."""
OF_ANY_HEAD = ("reduction", "locals")
"""Parts that depend on the trunk but not on the head."""
HEAD = "head"
"""What depends on the head: itself and the whitening."""
PATCHES = "patches"
"""Another one. It has no stand-in: without it, models have no patches."""
PATCH_COUNT = 388
"""Patches of a picture: what two pages of the store hold. 700 find no more (docs/research/fusion.md)."""
UNTRAINED = {
    "attention": f"seeded weights near the mean channel activation, seed {HEAD_SEED}",
    "whitening": "identity; for two-map random orthonormal rows",
    "reduction": f"random orthonormal rows, seed {REDUCTION_SEED}",
    "locals": f"random orthonormal rows, seed {LOCALS_SEED}",
    "regional whitening": "identity",
    "region proposals": f"random weights, seed {HEAD_SEED}",
    "detector": f"random weights, seed {DETECTOR_SEED}",
    "lattqe": f"random weights, seed {LATTQE_SEED}, {LATTQE_WIDTH} wide in place of the paper's D",
}
"""Parts that may be untrained, and their stand-ins."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Options for building the networks."""

    backbone: str
    weights: Path | None = None
    stride: Stride = "auto"
    long_side: int = 640
    version: str = "1"
    descriptor: str | None = None
    """A key of `HEADS`; None takes the best one with trained parts."""
    parts: Path | None = None
    """Your own trained parts; None takes the shipped ones if they fit the trunk."""
    whitening: str | None = None
    """Learned whitening stored in a public checkpoint, DATASET:ss or DATASET:ms."""
    detector: str = DEFAULT_DETECTOR
    """A key of `DETECTORS`."""
    detector_weights: Path | None = None
    """Weights for detectors that have any; None uses seeded ones."""
    lattqe: Path | None = None
    """A trained query expansion; None takes the shipped one beside shipped parts, or else a seeded one, marked
    untrained."""


@dataclass(frozen=True, kw_only=True)
class Networks:
    """All modules of one export, in evaluation mode, with their profile."""

    modules: dict[str, nn.Module]
    profile: Profile
    source: str
    """Where the weights came from, for people."""
    doubts: tuple[str, ...] = ()
    """What fits, but may not be meant, for people."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Descriptor:
    """What makes the descriptors of an export."""

    loaded: Loaded
    parts: Parts | None
    """All trained parts of the export that `build` takes; none of the head if that was trained with the trunk."""
    kind: str
    """Of head, a key of `HEADS`."""
    head: nn.Module
    whitening: nn.Module
    """Of the mean over scales."""

    @property
    def sha256(self) -> str:
        """Hash of all that decides what vectors a picture gets, but for the size it is described at."""
        modules = (self.loaded.trunk.features, self.loaded.variant), (self.head, self.kind), (self.whitening, "")
        parts = [fingerprint(module, variant) for module, variant in modules]
        return hashlib.sha256(" ".join([*parts, *map(str, self.scales)]).encode()).hexdigest()

    @property
    def scales(self) -> tuple[int, ...]:
        """The scales of a picture that the head pools, in units of 1/`SCALE_UNIT`."""
        return LOCAL_SCALES if HEADS[self.kind].all_scales else GLOBAL_SCALES


def build(wanted: Wanted) -> Networks:
    """Load the trunk and the heads. WeightsError if weights do not fit."""
    described = load_descriptor(wanted)
    loaded, parts, kind = described.loaded, described.parts, described.kind
    patches = _patches(parts)
    sizes = Sizes(channels=loaded.trunk.channels, patches=PATCH_COUNT if patches else 0)
    reduction = Projection.untrained(sizes.channels, sizes.reduced, seed=REDUCTION_SEED)
    local = Projection.untrained(sizes.channels, sizes.local, seed=LOCALS_SEED)
    if parts:
        parts.fill("reduction", reduction)
        parts.fill("locals", local)
    boxes_by = _boxes_by(wanted, loaded)
    lattqe = wanted.lattqe or _shipped_lattqe(kind, loaded, wanted)
    detector = DETECTORS[wanted.detector](loaded.trunk, wanted.detector_weights, sizes)
    modules: dict[str, nn.Module] = {
        "backbone": Backbone(
            trunk=loaded.trunk,
            sizes=sizes,
            head=described.head,
            scales=described.scales,
            whitening=described.whitening,
            reduction=reduction,
            locals=local,
            patches=patches,
            two_maps=HEADS[kind].two_maps,
        ),
        "detector": detector.module,
        "cluster": Clustering(sizes=sizes, reduction=reduction),
        "lattqe": _lattqe(lattqe, sizes),
        "coattention": CoAttention(sizes=sizes),
    }
    profile = Profile(
        backbone=wanted.backbone,
        descriptor=kind,
        weights_sha256=fingerprint(modules["backbone"], f"{loaded.variant} {kind}", without=("locals", PATCHES)),
        locals_sha256=fingerprint(local, trunk_sha256(loaded)),
        patches_sha256=fingerprint(patches, trunk_sha256(loaded)) if patches else "",
        sizes=sizes,
        detector=wanted.detector,
        detector_sha256=_detector_sha256(wanted.detector, detector),
        long_side=wanted.long_side,
        untrained=(*_untrained(kind, loaded, parts, detector), *(() if lattqe else ("lattqe",))),
        version=wanted.version,
    )
    source = f"{loaded.source}; {kind}, {_told(loaded, parts)}{boxes_by}"
    return Networks(
        modules={k: m.eval() for k, m in modules.items()},
        profile=profile,
        source=source,
        doubts=_doubts(wanted.lattqe, described),
    )


def load_descriptor(wanted: Wanted) -> Descriptor:
    """Load what describes pictures in an export, without all else. WeightsError if weights or parts do not fit."""
    loaded = BACKBONES[wanted.backbone].load(wanted.weights, wanted.stride)
    parts = find_parts(loaded, wanted)
    kind = wanted.descriptor or (parts.descriptor if parts else WITHOUT_PARTS)
    if loaded.trained is not None:
        kind, parts = _trained_kind(loaded.trained, wanted), parts.only(*OF_ANY_HEAD, PATCHES) if parts else None
    head, whitening = _head(kind, loaded, parts, wanted)
    return Descriptor(loaded=loaded, parts=parts, kind=kind, head=head.eval(), whitening=whitening)


def default_backbone(weights: Path | None, descriptor: str | None) -> str:
    """Return the backbone of a command that names none: that of a file of weights, or one with trained parts."""
    if weights is not None:
        return backbone_of(weights) or IMAGENET
    return IMAGENET if descriptor in OF_IMAGENET else DEFAULT_BACKBONE


def find_parts(loaded: Loaded, wanted: Wanted) -> Parts | None:
    """Return the trained parts to use: the requested ones, the shipped ones for this trunk, or None.

    What depends on the trunk alone, `OF_ANY_HEAD` and `PATCHES`, comes from the shipped ones if the others lack it. For
    a trunk that was trained together with its head, parts of any head will do: only these are used.
    """
    if wanted.parts is None and loaded.checkpoint is not None:
        return None
    files = {head: read_parts(path) for head, path in shipped(trunk_sha256(loaded)).items()}
    if wanted.parts is not None:
        return _with_shared(own_parts(wanted.parts, loaded, wanted.descriptor), files)
    if not files:
        return None
    of_none = replace(next(iter(files.values())).only(), descriptor=wanted.descriptor or WITHOUT_PARTS)
    return _with_shared(files.get(wanted.descriptor or DEFAULT, of_none), files)


def own_parts(path: Path, loaded: Loaded, descriptor: str | None) -> Parts:
    """Read parts of one's own, as they are. WeightsError if they are of another trunk or head."""
    trunk = trunk_sha256(loaded)
    if loaded.checkpoint is not None:
        raise WeightsError(f"{loaded.checkpoint.path} has its own descriptor; do not combine it with trained parts")
    parts = read_parts(path)
    if parts.trunk_sha256 != trunk:
        raise WeightsError(
            f"{path} was trained on other weights of {parts.backbone} ({parts.trunk_sha256[:16]}, not "
            f"{trunk[:16]}): pass the weights it was trained on with --weights, or train it again"
        )
    if loaded.trained is None and descriptor not in (None, parts.descriptor):
        raise WeightsError(f"{path} holds a {parts.descriptor} head; got --descriptor {descriptor}")
    return parts


def _with_shared(parts: Parts, files: Mapping[str, Parts]) -> Parts:
    """Return parts with what they lack of that which depends on the trunk alone. files: shipped for the trunk."""
    for other in files.values():
        parts = parts.beside(other.only(*OF_ANY_HEAD, PATCHES))
    return parts


def _trained_kind(trained: Trained, wanted: Wanted) -> str:
    kind = trained.descriptor(wanted.descriptor)
    if kind not in HEADS:
        raise WeightsError(f"{trained.path} holds a {kind} head; expected one of {', '.join(HEADS)}")
    return kind


def untrained_head(kind: str, channels: int, stride: int = SIDE_MULTIPLE) -> nn.Module:
    """Return a head with seeded weights, leaving torch's global random state unchanged. stride: of the trunk."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(HEAD_SEED)
        return HEADS[kind].make(channels, stride)


def trunk_sha256(loaded: Loaded) -> str:
    """Hash a trunk's weights and variant."""
    return fingerprint(loaded.trunk.features, loaded.variant)


def fingerprint(module: nn.Module, variant: str, *, without: tuple[str, ...] = ()) -> str:
    """Hash every weight that affects stored vectors. `variant` separates networks whose weights have the same names.

    without: names of child modules to leave out.
    """
    digest = hashlib.sha256(variant.encode())
    for name, value in sorted(module.state_dict().items()):
        if name.partition(".")[0] in without:
            continue
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _head(kind: str, loaded: Loaded, parts: Parts | None, wanted: Wanted) -> tuple[nn.Module, nn.Module]:
    """Return the head and the whitening applied after the mean over scales."""
    channels = loaded.trunk.channels
    if loaded.checkpoint is not None:
        return _of_others(loaded.checkpoint, channels, kind, wanted.whitening)
    if wanted.whitening is not None:
        raise WeightsError(
            f"got the learned whitening {wanted.whitening}, but {wanted.weights or wanted.backbone} is not a "
            "checkpoint of cnnimageretrieval-pytorch, and only those have learned whitening"
        )
    head = untrained_head(kind, channels, loaded.trunk.stride)
    whitening = HEADS[kind].whitening(channels, loaded.trunk.fine_channels)
    if loaded.trained is not None:
        loaded.trained.check_improved()
        fill(head, dict(loaded.trained.head), loaded.trained.path)
    elif parts:
        parts.fill("head", head)
        parts.fill("whitening", whitening)
    return head, whitening


def _of_others(checkpoint: Checkpoint, channels: int, kind: str, which: str | None) -> tuple[nn.Module, Projection]:
    """Return the checkpoint's GeM: its own whitening at each scale, a learned one after their mean."""
    if kind != "gem":
        raise WeightsError(f"{checkpoint.path} has its own GeM descriptor; got --descriptor {kind}")
    head = GeMHead(channels, p=exponent(checkpoint), projection=network_projection(checkpoint))
    if which is None:
        return head, Projection.untrained(channels, channels, seed=0)
    return head, learned_projection(checkpoint, which, size=channels)


def _patches(parts: Parts | None) -> Projection | None:
    found = parts.section(PATCHES) if parts else {}
    return Projection(found["mean"], found["matrix"]) if found else None


def _shipped_lattqe(kind: str, loaded: Loaded, wanted: Wanted) -> Path | None:
    """Return the network that learned on the descriptors that are exported, if it ships."""
    if wanted.parts is not None or loaded.trained is not None or loaded.checkpoint is not None:
        return None
    return shipped_lattqe(wanted.backbone, kind) if kind in shipped(trunk_sha256(loaded)) else None


def _doubts(lattqe: Path | None, described: Descriptor) -> tuple[str, ...]:
    """Tell if a LAttQE of one's own learned on other descriptors than are exported."""
    if lattqe is None or learned_on(lattqe) in ("", described.sha256):
        return ()
    return (
        f"{lattqe} learned on other descriptors than these, and may expand queries for the worse; train it on these: "
        "landseer train lattqe DATA, with the same options as this export",
    )


def _lattqe(trained: Path | None, sizes: Sizes) -> ExpansionNetwork:
    if trained is not None:
        return read_lattqe(trained, sizes)
    return LAttQE.untrained(sizes, seed=LATTQE_SEED, width=LATTQE_WIDTH)


def _detector_sha256(kind: str, detector: Detector) -> str:
    """Hash trained weights. Seeded ones are identified by kind alone, since rounding may differ between machines."""
    return "" if kind == DEFAULT_DETECTOR or detector.untrained else fingerprint(detector.module, kind)


def _untrained(kind: str, loaded: Loaded, parts: Parts | None, detector: Detector) -> tuple[str, ...]:
    """Return the parts that are still untrained, in the order of `UNTRAINED`."""
    # A head that learns no attention shows the mean activation, which is no stand-in for weights.
    possible = {"whitening", *OF_ANY_HEAD, *HEADS[kind].learned}
    possible |= {"detector"} if detector.untrained else set()
    done = set(parts.learned) if parts else set()
    if loaded.checkpoint is not None:
        done.add("whitening")
    if loaded.trained is not None:
        done |= {*HEADS[kind].learned, "whitening"} if HEADS[kind].learned else set()
    return tuple(part for part in UNTRAINED if part in possible - done)


def _told(loaded: Loaded, parts: Parts | None) -> str:
    learned = [*(["with the trunk"] if loaded.trained else []), *(parts.learned if parts else ())]
    return f"trained: {', '.join(learned)}" if learned else "untrained"


def _boxes_by(wanted: Wanted, loaded: Loaded) -> str:
    """Name a non-default detector and the origin of its weights.

    WeightsError for region proposals that were trained on another trunk.
    """
    if wanted.detector == DEFAULT_DETECTOR:
        return ""
    weights = wanted.detector_weights
    if weights is None:
        return f"; detector {wanted.detector}, untrained"
    about = read_tensors(weights)[1] if wanted.detector == "rpn" and weights.suffix == SUFFIX else {}
    note = check_trunk(about, weights, trunk_sha256(loaded)) if wanted.detector == "rpn" else ""
    return f"; detector {wanted.detector}, file {weights.name}{f', which {note}' if note else ''}"
