"""`landseer search`: find the indexed pictures that show the same thing as a picture."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from landseer.client.client import SearchClient
from landseer.client.commands import connection
from landseer.client.commands.connection import positive
from landseer.client.commands.fields import FIELDS_HELP, names
from landseer.client.commands.output import as_dict, cell, console, print_json, say, table, warn
from landseer.client.commands.spelling import as_indexed
from landseer.client.errors import UnusableInput
from landseer.client.hits_page import render
from landseer.client.queries import EXPANSIONS, FIRST_STAGES, RERANKINGS, grouping, read_picture, read_stdin
from landseer.client.query_picture import QueryPicture
from landseer.client.readable import duration
from landseer.client.scores import STAGES, copies_of, patches_of, sameness, score_of, searched, via_of
from landseer.client.web_picture import fetch_picture, is_address
from landseer.v1.common_pb2 import Box
from landseer.v1.search_pb2 import Expansion, Hit, Reranking, SearchResponse

_JSON = """\
  The fields of landseer.v1.SearchResponse (client/proto/landseer/v1/search.proto) without the thumbnails:
  {"hits": [{"id": "photos/a.jpg", "score": 0.93, "scores": {"global": 0.93}, "metadata": {...}, "width": 640,
             "verification": {"inliers": 42, "probability": 0.98, "outline": [{"x": 12.5, "y": 8.0}, ...],
                              "patches": 61}, "near_identical": ["photos/a-small.jpg"], ...}],
   "timings": [{"stage": "describe", "seconds": 0.06}], "index_size": 24, "degradations": [], "untrained": [], ...}"""

_STDIN = Path("-")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `landseer search`."""
    query = parser.add_mutually_exclusive_group(required=True)
    query.add_argument(
        "image",
        nargs="?",
        type=_source,
        metavar="IMAGE",
        help="the picture to search for: a file, an address (https://...), which is fetched from here, or - for "
        "standard input",
    )
    query.add_argument("--id", metavar="ID", help="search for an indexed picture instead")
    parser.add_argument("--box", type=_box, metavar="X,Y,W,H", help="search only for this region of IMAGE, in pixels")
    parser.add_argument("--top-k", type=positive, metavar="N", help="number of hits (default 10)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write an HTML page: hits, attention, matches")
    parser.add_argument(
        "--first-stage",
        choices=FIRST_STAGES,
        help="find candidates by the global descriptor, by visual words or by both (default: the server's choice)",
    )
    parser.add_argument(
        "--group-by",
        type=_grouping,
        metavar="HOW",
        help="near-identical: show copies of one photograph as one hit, and count those with --top-k; field:NAME: show "
        "the best hit of each value of a field of the metadata (default none)",
    )
    parser.add_argument(
        "--filter", default="", metavar="TEXT", help='search only pictures such as: place = "Ely" AND year > 1990'
    )
    parser.add_argument("--fields", type=names, default=[], metavar="NAMES", help=FIELDS_HELP)
    parser.add_argument(
        "--page-size",
        type=positive,
        default=0,
        metavar="N",
        help="show the --top-k hits N at a time: 1 to --top-k, which is 10 by default",
    )
    parser.add_argument("--page-token", default="", metavar="TOKEN", help="show the next page, as the one before said")
    _add_expansion(parser)
    _add_reranking(parser)
    connection.add_arguments(parser, json_help=_JSON)


def run(args: argparse.Namespace) -> int:
    """Search, print the hits and write the page."""
    _check(args)
    image = _image(args.image, args.timeout) if args.image else None
    answer, picture = connection.call(args, lambda client: _search(client, args, image))
    if args.html:
        name = "standard input" if args.image == _STDIN else str(args.image or args.id)
        args.html.write_text(render(answer, query=picture, query_name=name), encoding="utf-8")
    if args.json:
        print_json(as_dict(answer))
    else:
        _print(answer, args)
        _warn(answer)
        if args.html:
            say(f"wrote {args.html}")
    return 0


def _add_expansion(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("query expansion")
    group.add_argument(
        "--expansion",
        choices=EXPANSIONS,
        help="expand the query with its nearest neighbours, or with `verified` hits only; the default where keypoints "
        "verify the hits, except with `--first-stage words`, is verified hits on top of a trained lattqe; `none` "
        "searches once; lattqe needs a trained network",
    )
    group.add_argument(
        "--neighbours", type=positive, metavar="N", help="number of neighbours; the default depends on the method"
    )
    group.add_argument("--alpha", type=float, help="exponent of alphaqe (default 3)")
    group.add_argument("--allow-untrained", action="store_true", help="allow a model with random weights")


def _add_reranking(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("re-ranking")
    group.add_argument("--rerank", choices=RERANKINGS, help="re-rank the best hits (default: the server's choice)")
    group.add_argument(
        "--candidates", type=positive, metavar="N", help="number of hits to re-rank, up to 1000 (default 100)"
    )
    group.add_argument(
        "--shared-words",
        type=positive,
        metavar="N",
        help="re-rank only candidates that share at least N visual words with the query",
    )
    group.add_argument(
        "--weight", type=float, metavar="SHARE", help="weight of co-attention in the score, 0 to 1 (default 0.5)"
    )


def _check(args: argparse.Namespace) -> None:
    """Raise UnusableInput for options that would have no effect."""
    if args.box and not args.image:
        raise UnusableInput("--box needs IMAGE; it does not work with --id")
    if args.expansion in (None, "none") and args.neighbours:
        raise UnusableInput("--neighbours needs --expansion")
    if args.expansion != "lattqe" and args.allow_untrained:
        raise UnusableInput("--allow-untrained needs --expansion lattqe")
    if args.expansion != "alphaqe" and args.alpha is not None:
        raise UnusableInput("--alpha needs --expansion alphaqe")
    if args.rerank == "none" and (args.candidates or args.shared_words):
        raise UnusableInput("--candidates and --shared-words do not work with --rerank none")
    if args.rerank != "coattention" and args.weight is not None:
        raise UnusableInput("--weight needs --rerank coattention")
    if args.page_token and not args.page_size:
        raise UnusableInput("--page-token needs --page-size")
    if args.html and not args.html.absolute().parent.is_dir():
        raise UnusableInput(f"cannot write {args.html}: the folder {args.html.absolute().parent} does not exist")


def _source(text: str) -> Path | str:
    """Return the path of a picture, or its address as it is: a path would lose one of two slashes."""
    return text if is_address(text) else Path(text)


def _image(source: Path | str, timeout: float) -> bytes:
    if isinstance(source, str):
        return fetch_picture(source, timeout=timeout)
    return read_stdin() if source == _STDIN else read_picture(source)


async def _search(
    client: SearchClient, args: argparse.Namespace, image: bytes | None
) -> tuple[SearchResponse, QueryPicture | None]:
    if image is None:
        return await as_indexed(args.id, lambda id: _search_for(client, args, id))
    return await _search_for(client, args, image)


async def _search_for(
    client: SearchClient, args: argparse.Namespace, query: bytes | str
) -> tuple[SearchResponse, QueryPicture | None]:
    answer = await client.search(
        query,
        region=args.box,
        top_k=args.top_k,
        expansion=_expansion(args),
        reranking=_reranking(args),
        first_stage=args.first_stage,
        group_by=args.group_by,
        filter=args.filter,
        fields=args.fields,
        page_size=args.page_size,
        page_token=args.page_token,
        explain=args.html is not None,
    )
    if not args.html:
        return answer, None
    if isinstance(query, str):
        return answer, QueryPicture.of_indexed(await client.get(query))
    return answer, QueryPicture.of_query(answer, query)


def _expansion(args: argparse.Namespace) -> Expansion | None:
    if args.expansion is None:
        return None
    return Expansion(
        method=EXPANSIONS[args.expansion],
        neighbours=args.neighbours,
        allow_untrained=args.allow_untrained,
        alpha=args.alpha,
    )


def _reranking(args: argparse.Namespace) -> Reranking | None:
    if not (args.rerank or args.candidates or args.shared_words):
        return None
    return Reranking(
        method=RERANKINGS.get(args.rerank),
        candidates=args.candidates,
        weight=args.weight,
        require_shared_words=args.shared_words,
    )


def _print(answer: SearchResponse, args: argparse.Namespace) -> None:
    if answer.hits:
        console().print(_table(answer.hits, shown=[name for name in args.fields if name[0] != "-" and name[-1] != "*"]))
    else:
        say(f"no hits{_why_none(answer)}")
    stages = ", ".join(f"{timing.stage} {duration(timing.seconds)}" for timing in answer.timings)
    say(f"{searched(answer)} searched; {stages}", "dim")
    if answer.next_page_token:
        say(f"next page: the same with --page-token {answer.next_page_token}", "dim")


def _why_none(answer: SearchResponse) -> str:
    if not answer.index_size:
        return ": the index is empty; add pictures with `landseer index`"
    return ": the filter lets no picture through" if answer.HasField("matched") and not answer.matched else ""


def _table(hits: Sequence[Hit], *, shown: Sequence[str]) -> Table:
    ran = [stage for stage in STAGES if any(hit.scores.HasField(stage) for hit in hits)]
    verified = ["same"] if any(hit.HasField("verification") for hit in hits) else []
    patches = ["patches"] if any(hit.verification.patches for hit in hits) else []
    others = ["near-identical"] if any(hit.near_identical for hit in hits) else []
    others += ["in group"] if any(hit.grouped for hit in hits) else []
    via = ["via"] if any(map(via_of, hits)) else []
    columns = ["rank", "score", *verified, *(STAGES[stage] for stage in ran), *patches, *others]
    made = table(*((column, "right") for column in columns), *((name, "left") for name in ("id", *via, *shown)))
    for rank, hit in enumerate(hits, start=1):
        same = [sameness(hit) for _ in verified]
        scores = [score_of(hit, stage, digits=4) for stage in ran]
        agreeing = [patches_of(hit) for _ in patches]
        more = [copies_of(hit) for _ in others]
        values = [*(cell(via_of(hit)) for _ in via), *(cell(hit.metadata.get(name, "")) for name in shown)]
        made.add_row(str(rank), f"{hit.score:.4f}", *same, *scores, *agreeing, *more, cell(hit.id), *values)
    return made


def _warn(answer: SearchResponse) -> None:
    if answer.collection_changed:
        warn("pictures were indexed or deleted since the first page: hits may be missing, or come twice")
    for skipped in answer.degradations:
        warn(f"{skipped.stage} was skipped: {skipped.reason}")
    if answer.untrained:
        warn(f"results depend on models with random, untrained weights: {', '.join(answer.untrained)}")


def _grouping(text: str) -> str:
    try:
        grouping(text)
    except UnusableInput as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _box(text: str) -> Box:
    try:
        x, y, width, height = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected four numbers x,y,width,height") from None
    return Box(x=x, y=y, width=width, height=height)
