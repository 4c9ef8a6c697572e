"""The plots of a report. They need matplotlib, which the extra `train` installs."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from landseer.ops.errors import OpsError
from landseer.ops.evaluate.regimes import By, Regime
from landseer.ops.evaluate.sweep import Point

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a4fb5", "#8c6d31")
"""Safe for colour-blind readers (Okabe and Ito), and two more."""
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
STROKES = ("-", ":", "-.")
INK, SOFT, PAPER = "#22211f", "#6d6a64", "#fffefb"
STYLE: Any = {
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": "#c9c4ba",
    "axes.labelcolor": SOFT,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#ece8e0",
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
}
AXES: dict[By, str] = {"positives": "right answers of the query", "ap": "AP without expansion, %"}


DPI = 170


def check_installed(option: str) -> None:
    """Raise OpsError if matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise OpsError(f"{option} draws with matplotlib, which is not installed; pip install 'landseer[train]'")


def sweep_png(points: Sequence[Point]) -> bytes:
    """Draw mAP by number of neighbours, a panel for each system and protocol. Dashed: no expansion."""
    panels = list(dict.fromkeys((point.system, point.protocol) for point in points))
    families = list(dict.fromkeys(point.method.family for point in points))

    def draw(axes: Any, panel: tuple[str, str]) -> None:
        shown = [point for point in points if (point.system, point.protocol) == panel]
        axes.axhline(100 * shown[0].base, color=SOFT, linestyle="--", linewidth=1, label="none", zorder=2)
        for place, family in enumerate(families):
            line = [(point.method.neighbours, 100 * point.map) for point in shown if point.method.family == family]
            axes.plot(*zip(*line, strict=True), label=family, **_line(place))
        ticks = sorted({point.method.neighbours for point in shown})
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set(xlabel="neighbours", ylabel="mAP, %")

    return _png(panels, draw, width=4.6)


def regimes_png(found: Sequence[Regime]) -> bytes:
    """Draw the gain over no expansion by number of positives and by AP, two panels for each system and protocol."""
    panels = list(dict.fromkeys((one.system, one.protocol, one.by) for one in found))
    methods = list(dict.fromkeys(one.method for one in found))

    def draw(axes: Any, panel: tuple[str, str, By]) -> None:
        shown = [one for one in found if (one.system, one.protocol, one.by) == panel]
        ranges = sorted({(one.low, one.high): one.queries for one in shown}.items())
        axes.axhline(0, color=SOFT, linestyle="--", linewidth=1, zorder=2)
        for place, method in enumerate(methods):
            gains = {(one.low, one.high): 100 * one.gain.value for one in shown if one.method == method}
            at = [number for number, (ends, _) in enumerate(ranges) if ends in gains]
            axes.plot(at, [gains[ranges[number][0]] for number in at], label=method, **_line(place))
        labels = [f"{_range(*ends, panel[2])}\nn={queries:,}" for ends, queries in ranges]
        axes.set_xticks(range(len(ranges)), labels)
        axes.set_xlim(-0.4, len(ranges) - 0.6)
        axes.set(xlabel=AXES[panel[2]], ylabel="mAP gain, points")

    return _png(panels, draw, width=4.6)


def trade_png(curves: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str, title: str) -> bytes:
    """Draw curves in one panel. curves: points (x, y) by name; x, y: what the axes show; y is logarithmic."""

    def draw(axes: Any, panel: tuple[str, str]) -> None:
        for place, (name, points) in enumerate(curves.items()):
            axes.plot(*zip(*sorted(points), strict=True), label=name, **_line(place))
        axes.set_yscale("log")
        axes.set(xlabel=x, ylabel=y)
        axes.text(0, 1.02, title, transform=axes.transAxes, fontsize=10)

    return _png([("", "")], draw, width=5.0)


def _range(low: float, high: float, by: By) -> str:
    if by == "ap":
        return f"{100 * low:.0f} to {100 * high:.0f}"
    return f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"


def _line(place: int) -> dict[str, Any]:
    """Return the look of a line: colour and marker, and from the ninth line on a different stroke."""
    turn, place = divmod(place, len(COLOURS))
    looks = {"color": COLOURS[place], "marker": MARKS[place], "linestyle": STROKES[turn % len(STROKES)]}
    return {**looks, "markersize": 4.5, "linewidth": 1.5}


def _png(panels: Sequence[Any], draw: Any, *, width: float) -> bytes:
    """Return a grid of panels, two per row, with one legend below."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        across = min(2, len(panels))
        down = -(-len(panels) // across)
        figure = Figure(figsize=(width * across + (0 if across > 1 else 2), 3.0 * down + 0.5), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(down, across, squeeze=False).flat
        for axes, panel in zip(grid, panels, strict=False):
            draw(axes, panel)
            axes.set_title(", ".join(_titles(panels, panel)))
        for axes in list(grid)[len(panels) :]:
            axes.set_visible(False)
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4 if across > 1 else 3))
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=DPI)
    return out.getvalue()


def _titles(panels: Sequence[tuple[str, ...]], panel: tuple[str, ...]) -> Iterator[str]:
    """Yield the system and the protocol of a panel, each only if panels differ in it."""
    for place in range(2):
        if len({one[place] for one in panels}) > 1:
            yield panel[place]
