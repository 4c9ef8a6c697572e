"""`landseer train`: trains descriptors and detectors on photographs."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from landseer.export.datasets.specs import SPECS
from landseer.ops.arguments import positive, seed

INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""
METHODS = {
    "cider": "CiDeR in one stage: ArcFace, margin 0.3, batches of similar aspect ratio",
    "cider-ft": "CiDeR in two: the trunk by classification, then the head on it",
    "triplet": "DIR: R-MAC by triplets, mined hard, gradients of 16 batches to a step",
    "contrastive": "GeM by pairs with mined negatives, at most one a class",
    "supcon": "GeM by views of the same class against the others of the batch",
    "rpn": "DIR's region proposals, on a trunk that stays as it is",
    "ssdlite": "Detect-to-Retrieve's single-shot detector",
    "faster_rcnn": "Detect-to-Retrieve's two-stage detector",
    "lattqe": "query expansion on the backbone's descriptors; has fewer options",
}
OF_LATTQE = ("out", "backbone", "weights", "epochs", "seed", "resume", "dry_run")
"""The options that LAttQE's training takes. Its recipe has no others, and none is passed over in silence."""
_MORE = f"""\
methods:
{chr(10).join(f"  {name:<13} {what}" for name, what in METHODS.items())}

data sets:
{SPECS}

Validated on classes that are never trained on, before the first step and after each epoch; the weights that did best
are in DIR/best.safetensors. The detectors use the boxes of a data set that has them (boxes:, revisitop:), and paste
photographs into each other where there are none.

Stop it at any time, even with kill -9: the same command with --resume goes on and, on a CPU, ends with the same
weights to the bit."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _MORE
    parser.add_argument("method", choices=METHODS, metavar="METHOD", help="what to train, see below")
    parser.add_argument("data", metavar="DATA", help="the data set, see below")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for weights, curves, state and card")
    parser.add_argument("--backbone", default="efficientnet_lite0", metavar="NAME", help="default %(default)s")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="of the backbone or detector, to start from")
    parser.add_argument(
        "--validate",
        default="0.2",
        metavar="SHARE|DATA",
        help="classes to hold out, or a data set (default %(default)s)",
    )
    parser.add_argument(
        "--validate-most", type=positive, default=1000, metavar="N", help="photographs of them (default %(default)s)"
    )
    parser.add_argument("--epochs", type=positive, metavar="N", help="of each stage (the method's)")
    parser.add_argument("--batch", type=positive, metavar="N", help="photographs or tuples (the method's)")
    parser.add_argument("--accumulate", type=positive, metavar="N", help="batches to a step (the method's)")
    parser.add_argument("--rate", type=_rate, metavar="X", help="learning rate (the method's)")
    parser.add_argument("--tuples", type=positive, metavar="N", help="mined for an epoch (the method's)")
    parser.add_argument("--pool", type=positive, metavar="N", help="photographs to mine from (the method's)")
    parser.add_argument("--side", type=_side, default=640, metavar="PX", help="longer side (default %(default)s)")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default %(default)s")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of all chance (default %(default)s)")
    parser.add_argument(
        "--checkpoint-every", type=positive, default=200, metavar="N", help="steps (default %(default)s)"
    )
    parser.add_argument(
        "--log-every", type=positive, default=10, metavar="N", help="steps to a row of the curves (default %(default)s)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the training that is in --out")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")


def run(args: argparse.Namespace) -> int:
    """Train. 0; 1 with one line on stderr if it cannot be done; 130 and how to go on after Ctrl-C."""
    # torch loads with it; `landseer --help` should not wait for it.
    import cv2
    import torch

    from landseer.client.commands.output import console
    from landseer.export.datasets.errors import DatasetError
    from landseer.export.models.torch_file import WeightsError
    from landseer.export.training.errors import Stopped, TrainingError
    from landseer.ops.errors import OpsError
    from landseer.ops.train import train_lattqe as lattqe
    from landseer.ops.train import training

    # Pictures are made ready by one thread beside torch's, which has all cores.
    cv2.setNumThreads(1)
    command = _command(args)
    try:
        run_method = lattqe.run if args.method == "lattqe" else training.run_training
        run_method(training.TrainingOptions(command=command, **_options(args)), console(sys.stderr, pipe_width=None))
    except (TrainingError, DatasetError, WeightsError, OpsError, OSError) as error:
        print(f"landseer train: {error}", file=sys.stderr)
        return 1
    except torch.OutOfMemoryError:
        print(
            "landseer train: the GPU's memory is full; lower --batch (and raise --accumulate), or --side",
            file=sys.stderr,
        )
        return 1
    except Stopped as stopped:
        again = command if args.resume else f"{command} --resume"
        print(f"landseer train: {stopped}; go on with:\n  {again}", file=sys.stderr)
        return INTERRUPTED
    return 0


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments, the backbone checked against those there are."""
    from landseer.export.models.trunks import BACKBONES
    from landseer.export.training.errors import TrainingError

    if args.backbone not in BACKBONES:
        raise TrainingError(f"got backbone {args.backbone}; expected one of {', '.join(BACKBONES)}")
    foreign = [_option(name) for name in _given(args) if name not in OF_LATTQE] if args.method == "lattqe" else []
    if foreign:
        takes = ", ".join(map(_option, OF_LATTQE))
        raise TrainingError(f"got {', '.join(foreign)} for lattqe, which takes {takes} alone; leave the others out")
    return dict(vars(args))


def _command(args: argparse.Namespace) -> str:
    """Return the command line that these arguments are of, defaults left out."""
    words = ["landseer", "train", args.method, args.data]
    for name, value in _given(args).items():
        words += [_option(name)] if value is True else [_option(name), str(value)]
    return shlex.join(words)


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options that are not as they are by default."""
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
