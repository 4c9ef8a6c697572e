"""`python export/all.py`: write every served graph, checked, with its configuration and a manifest."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and Path(sys.path[0]).name == "export":
    # A script's folder comes first on the path; its files must not shadow other packages' modules.
    del sys.path[0]

import argparse

from landseer.ensemble.contracts import MAX_SIDE, MIN_SIDE, SIDE_MULTIPLE, Sizes, graphs

GRAPHS = tuple(graphs(Sizes(channels=1)))


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    from landseer.export.models.trunks import BACKBONES
    from landseer.export.to_onnx import OPSETS

    p = argparse.ArgumentParser(
        prog="export/all.py",
        description="Write the served graphs as ONNX with their Triton configurations, each checked against torch.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.add_argument("--backbone", choices=tuple(BACKBONES), default="efficientnet_lite0")
    p.add_argument("--weights", type=Path, metavar="FILE", help="state dict for the backbone, instead of its own")
    p.add_argument("--stride", choices=("auto", "v1", "v1.5"), default="auto", help="which ResNet the weights are of")
    p.add_argument("--long-side", type=_long_side, default=640, help="pixels that pictures are resized to")
    p.add_argument("--only", action="append", choices=GRAPHS, metavar="NAME", help=f"one of {', '.join(GRAPHS)}")
    p.add_argument("--opset", type=int, choices=OPSETS, default=OPSETS[0])
    p.add_argument("--out", type=Path, default=Path("model_repository"), metavar="DIR", help="Triton's repository")
    p.add_argument("--version", type=_version, default="1", metavar="N", help="version folder to write")
    p.add_argument("--dry-run", action="store_true", help="say what would be written, and write nothing")
    return p


def main(argv: list[str] | None = None) -> int:
    """Run the export. Returns the exit status: 0, 1 for a failure, 2 for a wrong command line."""
    args = parser().parse_args(argv)
    from landseer.export.exporter import ExportError, Options, export

    options = Options(
        backbone=args.backbone,
        weights=args.weights,
        stride=args.stride,
        long_side=args.long_side,
        only=tuple(args.only or GRAPHS),
        opset=args.opset,
        out=args.out,
        version=args.version,
        dry_run=args.dry_run,
    )
    try:
        export(options)
    except ExportError as error:
        print(f"export: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("export: stopped; what was there before is untouched", file=sys.stderr)
        return 130
    return 0


def _version(text: str) -> str:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no version: Triton's versions are whole numbers from 1")
    return str(int(text))


def _long_side(text: str) -> int:
    side = int(text)
    if not MIN_SIDE <= side <= MAX_SIDE or side % SIDE_MULTIPLE:
        raise argparse.ArgumentTypeError(f"{side} is not a multiple of {SIDE_MULTIPLE} from {MIN_SIDE} to {MAX_SIDE}")
    return side


if __name__ == "__main__":
    sys.exit(main())
