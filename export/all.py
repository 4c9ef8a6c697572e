"""`python export/all.py`: export every graph, check it, and write its configuration and a manifest."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and Path(sys.path[0]).name == "export":
    # Python puts a script's folder first on the path, where its files would shadow other packages' modules.
    del sys.path[0]

import argparse
import dataclasses
import importlib.util
from typing import TYPE_CHECKING

from landseer.ensemble.inference.contracts import (
    DEFAULT_DETECTOR,
    DETECTOR_INPUTS,
    MAX_SIDE,
    MIN_SIDE,
    SIDE_MULTIPLE,
    Sizes,
    graphs,
)

if TYPE_CHECKING:
    from landseer.export.build import Wanted
    from landseer.export.exporter import ExportOptions

GRAPHS = tuple(graphs(Sizes(channels=1)))
TRAIN = "pip install 'landseer[train]'"
OF_TRAINING = ("pytorch_metric_learning", "matplotlib")
"""Modules that only training needs. They are imported late, some of them after an epoch."""


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but not None and False."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    from landseer.export.build import HEAD, OF_ANY_HEAD, PATCHES
    from landseer.export.models.heads import HEADS
    from landseer.export.models.trunks import BACKBONES, DEFAULT_BACKBONE, IMAGENET
    from landseer.export.to_onnx import OPSETS

    p = argparse.ArgumentParser(
        prog="export/all.py",
        description="Export the served graphs to ONNX with their Triton configurations, and check each against torch.",
        formatter_class=_HelpFormatter,
    )
    backbone = f"network to export (default: {DEFAULT_BACKBONE}; with --weights, or for cider, {IMAGENET})"
    p.add_argument("--backbone", choices=tuple(BACKBONES), help=backbone)
    p.add_argument("--weights", type=Path, metavar="FILE", help="state dict, or best.safetensors from landseer train")
    p.add_argument(
        "--stride",
        choices=("auto", "v1", "v1.5"),
        default="auto",
        help="which ResNet --weights are of; auto tells by their BatchNorm statistics",
    )
    p.add_argument("--descriptor", choices=tuple(HEADS), help="head (default: two-map if trained parts fit, else gem)")
    p.add_argument("--parts", type=Path, metavar="FILE", help="your own trained parts; --train writes them here")
    p.add_argument("--train", metavar="DATA", help=f"train the parts first, then export with them; needs {TRAIN}")
    p.add_argument("--section", choices=(HEAD, *OF_ANY_HEAD, PATCHES), help="train only this part, into --parts")
    p.add_argument("--whitening", metavar="DATASET:ms", help="a learned whitening stored in the checkpoint --weights")
    p.add_argument("--detector", choices=tuple(DETECTOR_INPUTS), default=DEFAULT_DETECTOR, help="box detector")
    p.add_argument("--detector-weights", type=Path, metavar="FILE", help="detector weights, from landseer train")
    lattqe = "trained LAttQE (default: what ships for the default descriptor; for others random weights)"
    p.add_argument("--lattqe", type=Path, metavar="FILE", help=lattqe)
    p.add_argument("--long-side", type=_long_side, default=640, metavar="PX", help="longer side of resized pictures")
    p.add_argument(
        "--only",
        action="append",
        choices=GRAPHS,
        metavar="NAME",
        help=f"only this graph (repeatable): {', '.join(GRAPHS)}",
    )
    p.add_argument("--opset", type=int, choices=OPSETS, default=OPSETS[0], help="ONNX opset")
    p.add_argument("--out", type=Path, default=Path("model_repository"), metavar="DIR", help="Triton's repository")
    p.add_argument("--version", type=_version, default="1", metavar="N", help="version folder to write")
    p.add_argument("--dry-run", action="store_true", help="list what would be written without writing it")
    _add_tensorrt(p.add_argument_group("TensorRT (docs/tensorrt.md)"))
    return p


def _add_tensorrt(p: argparse._ArgumentGroup) -> None:
    p.add_argument("--tensorrt", action="store_true", help="build an engine for every graph, for this machine's GPU")
    p.add_argument(
        "--timing-cache", type=Path, metavar="FILE", help="file that keeps kernel timings, for faster rebuilds"
    )
    p.add_argument("--version-compatible", action="store_true", help="let later TensorRT 10 releases load the engines")
    p.add_argument("--workspace-gib", type=_gib, default=4.0, metavar="N", help="scratch memory limit of a layer")
    p.add_argument("--picture-sizes", type=Path, metavar="CSV", help="picture sizes to tune for: height,width,count")


def main(argv: list[str] | None = None) -> int:
    """Run the export. Returns the exit status: 0, 1 for a failure, 2 for a wrong command line."""
    args = parser().parse_args(argv)
    if args.section and not (args.train and args.parts):
        parser().error("--section needs --train DATA and --parts FILE")
    from landseer.export.build import DEFAULT, Wanted, default_backbone
    from landseer.export.exporter import ExportError, ExportOptions, export

    wanted = Wanted(
        backbone=args.backbone or default_backbone(args.weights, args.descriptor),
        weights=args.weights,
        stride=args.stride,
        long_side=args.long_side,
        version=args.version,
        descriptor=args.descriptor,
        parts=args.parts,
        whitening=args.whitening,
        detector=args.detector,
        detector_weights=args.detector_weights,
        lattqe=args.lattqe,
    )
    only = tuple(args.only or GRAPHS)
    options = ExportOptions(wanted=wanted, only=only, opset=args.opset, out=args.out, dry_run=args.dry_run)
    try:
        if args.train and args.dry_run:
            print(f"would train {args.section or wanted.descriptor or DEFAULT} on {args.train} first")
            # The file of parts does not exist yet.
            options = dataclasses.replace(options, wanted=dataclasses.replace(wanted, parts=None))
        elif args.train:
            _check_extra()
            wanted = _trained(wanted, args)
            options = dataclasses.replace(options, wanted=wanted)
        if args.tensorrt:
            return _export_engines(options, args)
        export(options)
        _drop_stale_engines(options)
    except ExportError as error:
        print(f"export: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("export: stopped; the repository is unchanged, and --train resumes where it stopped", file=sys.stderr)
        return 130
    return 0


def _trained(wanted: Wanted, args: argparse.Namespace) -> Wanted:
    import shlex

    from landseer.client.commands.output import console
    from landseer.export.exporter import ExportError
    from landseer.export.training.command import TrainOptions, train_parts
    from landseer.export.training.errors import Stopped, TrainingError

    out = args.parts or Path("var/train/parts") / f"{wanted.backbone}.safetensors"
    command = shlex.join(["python", "export/all.py", *sys.argv[1:]])
    try:
        parts = train_parts(
            TrainOptions(wanted=wanted, data=args.train, out=out, section=args.section, command=command),
            console(sys.stderr, pipe_width=None),
        )
    except Stopped:
        raise KeyboardInterrupt from None
    except TrainingError as error:
        raise ExportError(str(error)) from error
    return dataclasses.replace(wanted, parts=parts)


def _check_extra() -> None:
    """ExportError before anything is computed, if a module of the extra `train` is missing."""
    from landseer.export.exporter import ExportError

    missing = [name for name in OF_TRAINING if importlib.util.find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise ExportError(f"--train needs {' and '.join(missing)}, which {verb} not installed; {TRAIN}")


def _export_engines(options: ExportOptions, args: argparse.Namespace) -> int:
    from landseer.export.tensorrt.builder import BuilderSettings
    from landseer.export.tensorrt.device import MissingError
    from landseer.export.tensorrt.engine_exporter import EngineOptions, export_engines

    settings = BuilderSettings(
        workspace_gib=args.workspace_gib, version_compatible=args.version_compatible, timing_cache=args.timing_cache
    )
    try:
        export_engines(options, EngineOptions(settings=settings, picture_sizes=args.picture_sizes))
    except MissingError as error:
        print(f"export: error: {error}", file=sys.stderr)
        return 2
    return 0


def _drop_stale_engines(options: ExportOptions) -> None:
    from landseer.export.exporter import ExportError
    from landseer.export.tensorrt.errors import BuildError
    from landseer.export.tensorrt.record import drop_stale

    try:
        dropped = [] if options.dry_run else drop_stale(options.out)
    except BuildError as error:
        raise ExportError(str(error)) from error
    for name in dropped:
        print(f"export: removed the engine of {name}, because its graph changed; rebuild it with --tensorrt")


def _gib(text: str) -> float:
    gib = float(text)
    if not 0 < gib <= 1024:
        raise argparse.ArgumentTypeError(f"{text}: expected more than 0 GiB and at most 1024")
    return gib


def _version(text: str) -> str:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a version: expected a whole number from 1")
    return str(int(text))


def _long_side(text: str) -> int:
    side = int(text)
    if not MIN_SIDE <= side <= MAX_SIDE or side % SIDE_MULTIPLE:
        raise argparse.ArgumentTypeError(f"{side} is not a multiple of {SIDE_MULTIPLE} from {MIN_SIDE} to {MAX_SIDE}")
    return side


if __name__ == "__main__":
    sys.exit(main())
