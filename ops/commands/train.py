"""`landseer train`: train descriptors and detectors on photographs."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from landseer.export.datasets.specs import SPECS
from landseer.ops.arguments import positive, seed
from landseer.ops.commands.ending import INTERRUPTED, failed

METHODS = {
    "cider": "CiDeR in one stage: ArcFace, margin 0.3, batches of similar aspect ratio",
    "cider-ft": "CiDeR in two stages: the trunk by classification, then the head",
    "triplet": "DIR: R-MAC by triplets with hard mining; accumulates the gradients of 16 batches",
    "contrastive": "GeM by pairs with mined negatives, at most one per class",
    "supcon": "GeM by supervised contrastive learning within the batch",
    "rpn": "DIR's region proposals, on a frozen trunk",
    "ssdlite": "Detect-to-Retrieve's single-shot detector",
    "faster_rcnn": "Detect-to-Retrieve's two-stage detector",
    "lattqe": "query expansion on the descriptors that an export serves; takes fewer options, and export/all.py's",
    "instance": "the last blocks of a trunk, to tell look-alikes apart; takes fewer options",
    "coattention": "co-attention's reduction, on pairs of views and of drawn flat targets; takes fewer options",
}
FOR_A_TRUNK = ("rpn", "lattqe", "coattention")
"""Methods that train something for a trunk as it is, by default the one that is served."""
_FEW = ("out", "backbone", "weights", "epochs", "seed", "resume", "dry_run")
OF_LATTQE = ("descriptor", "parts", "whitening")
"""Those of `export/all.py` that say what it serves."""
TAKES = {
    "lattqe": (*_FEW, "stride", *OF_LATTQE),
    "coattention": (*_FEW, "rate", "pool", "device", "log_every"),
    "instance": (*_FEW, "rate", "log_every", "checkpoint_every", "stride"),
}
"""The options of the methods that take fewer; the others take all but `OF_LATTQE`. Any other is an error, so that none
is silently ignored."""
_MORE = f"""\
methods:
{chr(10).join(f"  {name:<13} {what}" for name, what in METHODS.items())}

data sets:
{SPECS}

Training validates on held-out classes, before the first step and after each epoch, and keeps the best weights in
DIR/best.safetensors. The detectors use the boxes of the data set if it has them (boxes:, revisitop:), and otherwise
paste photographs into each other, or drawn flat targets (covers, posters, pages) into photographs: --paste targets.

You can interrupt it at any time, even with kill -9: the same command with --resume continues, and on a CPU ends with
bit-identical weights."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _MORE
    parser.add_argument("method", choices=METHODS, metavar="METHOD", help="what to train, see below")
    parser.add_argument("data", metavar="DATA", help="data set, see below")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="output folder for weights, curves, state and card"
    )
    parser.add_argument(
        "--backbone",
        metavar="NAME",
        help="backbone to train (default: that of --weights, or efficientnet_lite0), or to train something for "
        "(rpn, lattqe, coattention; default: that of --weights, or the default of export/all.py)",
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="initial weights of the backbone or detector")
    parser.add_argument(
        "--stride",
        choices=("auto", "v1", "v1.5"),
        default="auto",
        help="which ResNet --weights are of; auto tells by their BatchNorm statistics (default %(default)s)",
    )
    parser.add_argument("--parts", type=Path, metavar="FILE", help="lattqe: trained parts, as for export/all.py")
    parser.add_argument("--descriptor", metavar="NAME", help="lattqe: head, as for export/all.py")
    parser.add_argument("--whitening", metavar="DATASET:ms", help="lattqe: as for export/all.py")
    parser.add_argument(
        "--validate",
        default="0.2",
        metavar="SHARE|DATA",
        help="share of the classes to hold out, or a data set (default %(default)s)",
    )
    parser.add_argument(
        "--validate-most",
        type=positive,
        default=1000,
        metavar="N",
        help="maximum number of validation photographs (default %(default)s)",
    )
    parser.add_argument("--epochs", type=positive, metavar="N", help="epochs per stage (default: the method's)")
    parser.add_argument(
        "--batch", type=positive, metavar="N", help="photographs or tuples per batch (default: the method's)"
    )
    parser.add_argument("--accumulate", type=positive, metavar="N", help="batches per step (default: the method's)")
    parser.add_argument("--rate", type=_rate, metavar="X", help="learning rate (default: the method's)")
    parser.add_argument("--tuples", type=positive, metavar="N", help="tuples mined per epoch (default: the method's)")
    parser.add_argument(
        "--pool", type=positive, metavar="N", help="photographs to mine from; coattention: to see twice"
    )
    parser.add_argument(
        "--paste",
        choices=("photographs", "targets"),
        help="what a detector learns to find where DATA has no boxes: photographs pasted into each other (default), or "
        "drawn flat targets, small in the photographs",
    )
    parser.add_argument(
        "--side", type=_side, default=640, metavar="PX", help="longer side of the pictures (default %(default)s)"
    )
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to train (default %(default)s)"
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="random seed (default %(default)s)")
    parser.add_argument(
        "--checkpoint-every",
        type=positive,
        default=200,
        metavar="N",
        help="steps between checkpoints (default %(default)s)",
    )
    parser.add_argument(
        "--log-every", type=positive, default=10, metavar="N", help="steps per row of the curves (default %(default)s)"
    )
    parser.add_argument("--resume", action="store_true", help="resume the training in --out")
    parser.add_argument("--dry-run", action="store_true", help="only print what would be done")
    parser.add_argument(
        "--try-steps",
        type=positive,
        metavar="N",
        help="with --dry-run: take N steps, keep nothing, and print how long the training and how much memory it takes",
    )


def run(args: argparse.Namespace) -> int:
    """Train. Returns 0; 1 with one line on stderr if it fails; 130 after Ctrl-C."""
    # Imported here because torch loads slowly, and `landseer --help` must stay fast.
    import cv2
    import torch

    from landseer.client.commands.output import console
    from landseer.export.datasets.errors import DatasetError
    from landseer.export.models.torch_file import WeightsError
    from landseer.export.training.errors import Stopped, TrainingError
    from landseer.ops.errors import OpsError
    from landseer.ops.train import train_coattention, train_instance, training
    from landseer.ops.train import train_lattqe as lattqe

    # One thread prepares pictures; torch uses all cores.
    cv2.setNumThreads(1)
    command = _command(args)
    try:
        own = {"lattqe": lattqe.run, "coattention": train_coattention.run, "instance": train_instance.run}
        run_method = own.get(args.method, training.run_training)
        run_method(training.TrainingOptions(command=command, **_options(args)), console(sys.stderr, pipe_width=None))
    except (TrainingError, DatasetError, WeightsError, OpsError, OSError) as error:
        return failed("train", str(error))
    except torch.OutOfMemoryError:
        return failed("train", "the GPU is out of memory; lower --batch (and raise --accumulate), or --side")
    except Stopped as stopped:
        again = command if args.resume else f"{command} --resume"
        return failed("train", f"{stopped}; resume with:\n  {again}", INTERRUPTED)
    return 0


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments. TrainingError for an unknown backbone, or an option that the method does not take."""
    from landseer.export.build import default_backbone
    from landseer.export.models.heads import HEADS
    from landseer.export.models.trunks import BACKBONES, IMAGENET
    from landseer.export.training.errors import TrainingError

    for_a_trunk = args.method in FOR_A_TRUNK or args.weights
    by_default = default_backbone(args.weights, args.descriptor) if for_a_trunk else IMAGENET
    backbone = args.backbone or by_default
    if backbone not in BACKBONES:
        raise TrainingError(f"got backbone {backbone}; expected one of {', '.join(BACKBONES)}")
    if args.descriptor and args.descriptor not in HEADS:
        raise TrainingError(f"got descriptor {args.descriptor}; expected one of {', '.join(HEADS)}")
    if args.try_steps and not args.dry_run:
        raise TrainingError("got --try-steps without --dry-run; add --dry-run, as nothing of these steps is kept")
    _check_taken(args)
    return vars(args) | {"backbone": backbone}


def _check_taken(args: argparse.Namespace) -> None:
    """TrainingError for an option that the method does not take."""
    from landseer.export.training.errors import TrainingError

    takes, given = TAKES.get(args.method), _given(args)
    if takes and (foreign := [_option(name) for name in given if name not in takes]):
        known = ", ".join(map(_option, takes))
        raise TrainingError(f"got {', '.join(foreign)} for {args.method}, which takes only {known}; remove the others")
    if not takes and (foreign := [_option(name) for name in given if name in OF_LATTQE]):
        raise TrainingError(f"got {', '.join(foreign)} for {args.method}; only lattqe takes them: remove them")


def _command(args: argparse.Namespace) -> str:
    """Return the command line of these arguments, without defaults."""
    words = ["landseer", "train", args.method, args.data]
    for name, value in _given(args).items():
        words += [_option(name)] if value is True else [_option(name), str(value)]
    return shlex.join(words)


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options that differ from their defaults."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = {name: value for name, value in vars(args).items() if name not in ("method", "data")}
    return {name: value for name, value in options.items() if value != parser.get_default(name)}


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a number above 0")
    return value


def _side(text: str) -> int:
    value = positive(text)
    if not 64 <= value <= 1600:
        raise argparse.ArgumentTypeError(f"got {value}; expected 64 to 1600 pixels")
    return value
