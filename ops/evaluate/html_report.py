"""The report: one self-contained HTML page, with its plots as PNG files beside it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from string import Template

from landseer.client.readable import plural
from landseer.ops.evaluate import plots
from landseer.ops.evaluate.contact_sheet import sheet, text, worst
from landseer.ops.evaluate.figures import Estimate, MethodRow
from landseer.ops.evaluate.results import Results, between
from landseer.ops.files import write_text

FILE, SWEEP, REGIMES = "report.html", "sweep.png", "regimes.png"
SCREEN = 110
"""Pixels on the page per inch of a plot."""


def write_report(results: Results, folder: Path) -> Path:
    """Write report.html, and sweep.png and regimes.png if there is something to draw. Returns the page's path."""
    figures = {}
    if results.points:
        figures[SWEEP] = plots.sweep_png(results.points)
    if results.regimes:
        figures[REGIMES] = plots.regimes_png(results.regimes)
    for name in (SWEEP, REGIMES):
        (folder / name).unlink(missing_ok=True)  # So that no plot of an older report stays.
    for name, data in figures.items():
        (folder / name).write_bytes(data)
    write_text(folder / FILE, render(results, figures))
    return folder / FILE


def render(results: Results, figures: dict[str, bytes], *, made: datetime | None = None) -> str:
    """Return the page. figures: PNG by SWEEP and REGIMES."""
    template = resources.files("landseer.ops.evaluate").joinpath("report.html").read_text(encoding="utf-8")
    chosen = worst(results.rows)
    return Template(template).substitute(
        title=text(f"Landseer: evaluation of {results.dataset.name}"),
        heading=text(results.dataset.name),
        summary=_summary(results, made or datetime.now(timezone.utc)),
        notes="\n".join(f'<p class="note" role="note">{note}</p>' for note in _notes(results)),
        table=_table(results),
        sweep=_section("How many neighbours", SWEEP, figures, _SWEEP, "Lines of mAP by number of neighbours"),
        regimes=_section("Where expansion gains", REGIMES, figures, _REGIMES, "Lines of gain by kind of query"),
        failing=_named(chosen, results),
        failures=sheet(chosen, results.dataset),
    )


_SWEEP = "mAP by the number of neighbours that are used (nQE). Dashed: no expansion."
_REGIMES = (
    "Mean gain over no expansion, by the number of right answers of a query and by its average precision without "
    "expansion; n is the number of queries. Queries with a low average precision can gain more, those with a high one "
    "can lose more: compare methods within a range, not ranges."
)


def _summary(results: Results, made: datetime) -> str:
    systems = "; ".join(text(about.title) for about in results.systems)
    return f"{results.dataset.summary()}. {systems}. {made:%-d %B %Y, %H:%M} {made.tzname() or ''}"


def _notes(results: Results) -> Iterator[str]:
    for about in results.systems:
        if untrained := results.untrained(about):
            yield f"<strong>Never trained: {text(', '.join(untrained))}</strong> ({text(about.name)})."
        yield from (text(f"{about.name}: {note}.") for note in about.notes)
    if results.dataset.synthetic:
        yield (
            f"<strong>{plural(results.dataset.synthetic, 'distractor')} are synthetic</strong>: not pictures, but "
            "vectors drawn from a Gaussian with the mean and covariance of the references. Real ones may be harder."
        )
    if results.few_classes:
        yield f"{text(results.few_classes)}."
    if results.dataset.skipped:
        yield f"{plural(len(results.dataset.skipped), 'picture')} could not be read and were left out."


def _named(row: MethodRow, results: Results) -> str:
    graded = f", {row.protocol}" if len(results.dataset.protocols) > 1 else ""
    return text(f"{row.method} of {row.system}{graded}")


def _table(results: Results) -> str:
    several, graded = len(results.systems) > 1, len(results.dataset.protocols) > 1
    names = [name for name, shown in (("models", several), ("method", True), ("protocol", graded)) if shown]
    heads = "".join(f'<th scope="col" class="name">{name}</th>' for name in names)
    for name in ("mAP", "mP@10", "recall@1", "gain over none"):
        heads += f'<th scope="col">{name}</th><th scope="col">interval over queries</th>'
    best = {(row.system, row.protocol): 0.0 for row in results.rows}
    for row in results.rows:
        best[row.system, row.protocol] = max(best[row.system, row.protocol], row.figures.map)
    lines = []
    for row in results.rows:
        told = {"models": row.system, "method": str(row.method), "protocol": row.protocol}
        first = "".join(f'<td class="name">{text(told[name])}</td>' for name in names)
        mark = ' class="best"' if row.figures.map == best[row.system, row.protocol] else ""
        lines.append(f"<tr{mark}>{first}{_figures(row)}</tr>")
    body = "\n".join(lines)
    return f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _figures(row: MethodRow) -> str:
    plain = "".join(_cell(one) for one in (row.map, row.mp10, row.recall_at_1))
    return plain + ("<td></td><td></td>" if row.gain is None else _cell(row.gain, sign="+", kind=_verdict(row.gain)))


def _cell(one: Estimate, *, sign: str = "", kind: str = "") -> str:
    value = f"{100 * one.value:{sign}.1f}"
    primary, second = (between(ends, sign=sign) for ends in (one.over_classes, one.over_queries))
    return f'<td class="{kind}"><b>{value}</b><span>{primary}</span></td><td class="soft">{second}</td>'


def _verdict(gain: Estimate) -> str:
    """Return whether the interval over classes lies above or below zero."""
    if gain.over_classes is None:
        return ""
    low, high = gain.over_classes
    return "gained" if low > 0 else "lost" if high < 0 else ""


def _section(title: str, name: str, figures: dict[str, bytes], caption: str, alt: str) -> str:
    if name not in figures:
        return ""
    png = figures[name]
    data, pixels = base64.b64encode(png).decode("ascii"), int.from_bytes(png[16:20], "big")  # of PNG's first chunk
    width = SCREEN * pixels // plots.DPI
    return (
        f'<section><h2>{title}</h2><p class="soft">{caption}</p>'
        f'<img class="plot" width="{width}" src="data:image/png;base64,{data}" alt="{alt}"></section>'
    )
