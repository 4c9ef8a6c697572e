"""docs/reports/very-same-thing.md: text and tables, complete or not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from landseer.client.readable import plural
from landseer.client.scores import SURE
from landseer.ensemble.asmk.inverted_file import STALE
from landseer.ensemble.asmk.postings import MOST as LISTS
from landseer.ops.bench.report_parts import QUIET, interval, table
from landseer.ops.bench.statistics import estimate
from landseer.ops.evaluate.figures import Estimate
from landseer.ops.research.cells import estimate_cells, mean_cells
from landseer.ops.research.very_same_data import THINGS
from landseer.ops.research.very_same_figures import (
    TOTAL,
    Baseline,
    LibraryFigures,
    Measured,
    SetFigures,
    VerifiedHits,
    added,
    milliseconds,
    verified_hits,
    waited,
    wrong_hits,
)
from landseer.ops.research.very_same_index import Rates
from landseer.ops.research.very_same_search import DEFAULT, FEW, GLOBAL, SHORT_LIST
from landseer.ops.research.very_same_words import BATCH, LEAST, MOST, SHARE, ScaledWords

STAGES = ("describe", "keypoints", "words", "rerank", "research", "via")
"""Stages of the default search whose times are told; the last two only of searches with a verified hit."""
SHOWN = 5
"""Wrong hits that are named for each data set."""
NONE = "-"
Floats = NDArray[np.float64]

READ = f"""\
- Every search sends the picture; a query that is indexed itself is dropped from its own hits. One caller, without
  concurrency. A search returns {SHORT_LIST} hits, so its first ones are those of a request without options; right
  answers after them count as not found, in every row.
- *First hit right*: how often the first hit is right, percent. mAP: mean average precision. Intervals are 95% bootstrap
  intervals over things: all queries of a thing are drawn together. Where there are too few things, there is none. An
  interval from 100 to 100 only says that there was no failure to draw: with n things, up to 3 / n may still fail.
- *ms*: the median total time that the service reports for such a search.
- `sift` is the baseline without our models (docs/evaluate.md): every reference is matched. Its time leaves out
  finding the keypoints of the query."""
TIMES = f"""\
One caller sends each query twice, one right after the other and each way first in turn: by default, and with the global
descriptor alone (first stage `global`, no re-ranking), for {FEW} hits. By the caller's clock, medians; the difference
is paired, with its 95% interval. Stages: medians of the default, ms, by the service's clock. Keypoints are found while
Triton describes; words are searched beside the global search."""
NAMED = """\
By the data set a hit is wrong if it is not named as an answer, but it may truly be in the picture: photographs of
covers by Palm show neighbouring covers, and photographs taken on one desk share what lies on it. Look at those named
below."""


def markdown(head: str, measured: Measured, missing: Mapping[str, str], *, seed: int) -> str:
    """Return the report on what is known so far. missing: steps without results, with the reason; seed: of intervals.

    Each section is left out while it is empty.
    """
    sections = (
        ("Not measured", _missing(missing)),
        ("Finding the very same thing", _retrieval(measured.sets, seed)),
        ("Time of a search", _latency(measured.sets, seed)),
        ("Time of verification", _verification(measured.sets)),
        ("What a probability is worth", _calibration(measured.sets)),
        ("Indexing", _indexing(measured, seed)),
        ("Store and memory", _stores(measured.libraries)),
        ("Words at scale", _scale(measured)),
    )
    return "\n\n".join([head, *(f"## {title}\n\n{text}" for title, text in sections if text)]) + "\n"


def _missing(missing: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {why}" for name, why in missing.items())


def _retrieval(sets: Iterable[SetFigures], seed: int) -> str:
    parts = [_of_set(one, seed) for one in sets if one.found]
    return "\n\n".join([READ, *parts]) if parts else ""


def _of_set(one: SetFigures, seed: int) -> str:
    """Return the tables of a data set."""
    title = f"### {one.sought.kind.capitalize()}: `{one.sought.spec}`\n\n{one.sought.data.summary()}."
    rows = [_figures(one, name, seed) for name in one.found]
    parts = [title]
    if one.baseline is not None:
        rows.append(_baseline_figures(one.baseline, seed))
        parts += [_differences(one, one.baseline, seed)]
    parts.insert(1, table(("search", "queries", "first hit right", "mAP", "ms"), rows))
    return "\n\n".join(parts)


def _figures(one: SetFigures, name: str, seed: int) -> Sequence[str]:
    figures, classes, found = one.figures(name), one.sought.data.classes(), one.found[name]
    first, average = (_mean(values, classes, seed) for values in (figures.precisions[:, 0], figures.aps))
    return name, f"{len(found):,}", first, average, f"{np.median(milliseconds(found, TOTAL)):.0f}"


def _baseline_figures(baseline: Baseline, seed: int) -> Sequence[str]:
    figures, classes = baseline.figures, baseline.data.classes()
    first, average = (_mean(values, classes, seed) for values in (figures.precisions[:, 0], figures.aps))
    return "`sift`", f"{len(baseline.data.queries):,}", first, average, f"{baseline.milliseconds:,.0f}"


def _differences(one: SetFigures, baseline: Baseline, seed: int) -> str:
    """Return the table of differences to the baseline, on its queries."""
    classes, rows = baseline.data.classes(), []
    for name in one.found:
        gains = [_mean(values, classes, seed, sign="+") for values in one.against(name, baseline)]
        rows.append((name, f"{len(classes):,}", *gains))
    return "Against `sift`, paired, on its queries:\n\n" + table(
        ("search", "queries", "first hit right, difference", "mAP, difference"), rows
    )


def _mean(values: Floats, classes: NDArray[np.int64], seed: int, *, sign: str = "") -> str:
    return estimate_cells(Estimate.of(values, classes, seed=seed), sign=sign)[0]


def _latency(sets: Iterable[SetFigures], seed: int) -> str:
    known = [one for one in sets if one.timed]
    if not known:
        return ""
    head = ("data", "searches", "default ms", "global ms", "default - global ms", *STAGES)
    return "\n\n".join([TIMES, table(head, [_times(one, seed) for one in known]), *_noises(known)])


def _times(one: SetFigures, seed: int) -> Sequence[str]:
    default, plain = one.timed[DEFAULT.name], one.timed[GLOBAL.name]
    stages = [_median(milliseconds(default, name)) for name in STAGES]
    waits = [_median(waited(found)) for found in (default, plain)]
    return _named(one), f"2 x {len(default):,}", *waits, interval(added(one.timed, seed=seed), 1), *stages


def _noises(sets: Iterable[SetFigures]) -> Iterator[str]:
    """Yield a warning if other programs were busy."""
    busy = max(one.others for one in sets)
    if busy > QUIET:
        yield (
            f"**The machine was not quiet**: other programs used up to {busy:.0%} of its cores meanwhile. Differences "
            "suffer\nless than absolute times."
        )


def _verification(sets: Iterable[SetFigures]) -> str:
    known = [one for one in sets if one.timed]
    if not known:
        return ""
    head = ("data", "candidates", "searches", "median ms", "p95 ms")
    return (
        "The stage `rerank` of the default searches above, by the service's clock: reading the candidates' keypoints "
        "from the\nstore, matching them and finding the maps.\n\n" + table(head, [_verified(one) for one in known])
    )


def _verified(one: SetFigures) -> Sequence[str]:
    spent = milliseconds(one.timed[DEFAULT.name], "rerank")
    candidates = min(SHORT_LIST, len(one.sought.data.references))
    p95 = f"{np.quantile(spent, 0.95):.1f}" if len(spent) else NONE
    return _named(one), f"{candidates}", f"{len(spent):,}", _median(spent), p95


def _calibration(sets: Iterable[SetFigures]) -> str:
    known = [one for one in sets if DEFAULT.name in one.found]
    if not known:
        return ""
    head = (
        "data",
        "verified hits",
        f"of them {SURE:g} or more",
        "of those right (precision)",
        "right hits verified",
        f"of those {SURE:g} or more (recall)",
    )
    hits = [(one, verified_hits(one.found[DEFAULT.name], one.sought.data)) for one in known]
    return "\n\n".join(
        [
            f"Of the verified hits of the default, upright queries, those with a probability of {SURE:g} or more: how "
            "many are right. And\nof the right ones in the short list, how many have such a probability. Intervals "
            "are over things.",
            table(head, [_sure(one, some) for one, some in hits]),
            NAMED,
            *(_wrong(one) for one in known if wrong_hits(one.found[DEFAULT.name], one.sought.data)),
        ]
    )


def _sure(one: SetFigures, hits: VerifiedHits) -> Sequence[str]:
    sure, right = hits.sure, hits.right
    return (
        _named(one),
        f"{len(right):,}",
        f"{np.count_nonzero(sure):,}",
        _share(right[sure], hits.classes[sure]),
        f"{np.count_nonzero(right):,}",
        _share(sure[right], hits.classes[right]),
    )


def _share(values: NDArray[np.bool_], classes: NDArray[np.int64]) -> str:
    return mean_cells(values.astype(np.float64), classes)[0] if len(values) else NONE


def _wrong(one: SetFigures) -> str:
    wrong = wrong_hits(one.found[DEFAULT.name], one.sought.data)
    named = [
        f"- `{hit.query}` found `{hit.hit}`: {hit.inliers} inliers, probability {hit.probability:.2f}"
        for hit in wrong[:SHOWN]
    ]
    head = f"{plural(len(wrong), 'such hit')} in `{one.sought.spec}`{', the surest' if len(wrong) > SHOWN else ''}:"
    return "\n".join([head, "", *named])


def _indexing(measured: Measured, seed: int) -> str:
    parts = []
    if measured.libraries:
        rows = [
            (f"{one.indexed.pictures:,}", f"{one.indexed.seconds:.1f}", f"{one.indexed.rate:.2f}")
            for one in measured.libraries
        ]
        head = ("pictures", "seconds", "pictures per second")
        parts.append("Each library, with the default settings, into an empty store:\n\n" + table(head, rows))
    if measured.rates is not None:
        parts.append(_rates(measured.rates, seed))
    return "\n\n".join(parts)


def _rates(rates: Rates, seed: int) -> str:
    kept, plain, ratio = (interval(estimate(x, seed=seed), 3) for x in (rates.keypoints, rates.none, rates.ratios))
    rounds = plural(len(rates.ratios), "round")
    return (
        f"Two services on one Triton index the same {rates.chunk} pictures in turns, {rounds} after a warm-up round. "
        "Medians and\ntheir 95% intervals:\n\n"
        + table(
            ("`--local-features`", "pictures per second", "ratio"),
            [("keypoints", kept, ratio), ("none", plain, "1 (baseline)")],
        )
    )


def _stores(libraries: Iterable[LibraryFigures]) -> str:
    rows = [_store(one) for one in libraries]
    head = (
        "pictures",
        "keypoints, bytes a picture",
        "words in memory, bytes a picture",
        "whole store, bytes a picture",
    )
    note = (
        "The inverted file has a list for each of its words, used or not, so with few pictures each of them costs more."
    )
    return f"{table(head, rows)}\n\n{note}" if rows else ""


def _store(one: LibraryFigures) -> Sequence[str]:
    stats = one.stats
    return (
        f"{stats.pictures:,}",
        _each(stats.keypoints.bytes, stats.keypoints.pictures),
        _each(stats.visual_words.bytes, stats.visual_words.pictures),
        _each(stats.store_bytes, stats.pictures),
    )


def _each(size: int, pictures: int) -> str:
    return f"{size / pictures:,.0f}" if pictures else NONE


def _scale(measured: Measured) -> str:
    if not measured.words:
        return ""
    head = ("pictures", "memory GiB", "bytes a picture", "most while building GiB", "median ms", "p95 ms", "first ms")
    return "\n\n".join(
        [
            f"Generated pictures of {LEAST} to {MOST:,} keypoints, each drawn from {measured.pool}, in the inverted "
            "file of a service, in\nthis process and a thread a core; searched for the words of real query pictures, "
            f"{SHORT_LIST} hits. *First*: the first search, which\nweights all words, as one does again after "
            f"{STALE:.1%} of the pictures changed. *Most while building*: additions of\n{BATCH:,} are merged into "
            f"lists of at most {LISTS:,} pictures, which needs both copies of one for a moment. At most {SHARE:.0%}\n"
            "of the machine's memory, and what was available, could be used.",
            table(head, [_scaled(one) for one in measured.words]),
            *(_unfit(one) for one in measured.words if not one.fits),
        ]
    )


def _scaled(one: ScaledWords) -> Sequence[str]:
    size, peak = (f"{value / 2**30:.2f}" for value in (one.bytes, one.peak))
    times = [f"{1e3 * np.quantile(one.seconds, share):.1f}" if one.fits else NONE for share in (0.5, 0.95)]
    first = f"{1e3 * one.first:.0f}" if one.fits else NONE
    return f"{one.pictures:,}", size, _each(one.bytes, one.pictures), peak, *times, first


def _unfit(one: ScaledWords) -> str:
    return (
        f"**{one.asked:,} did not fit**: memory ended after {one.pictures:,} were added. The last row shows what there "
        "was then."
    )


def _named(one: SetFigures) -> str:
    return f"`{one.sought.spec}`{' (by class)' if one.sought.kind == THINGS else ''}"


def _median(values: Floats) -> str:
    return f"{np.median(values):.1f}" if len(values) else NONE
