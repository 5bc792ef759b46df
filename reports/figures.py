"""Figures as SVG text that takes its ink from the page, so that it reads on light and on dark."""

import io
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from reports.comparisons import BITS, KL
from reports.tables import Table

INK = "#010203"  # stands for the page's text colour until the SVG is written
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")  # Okabe and Ito
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's font
    "svg.hashsalt": "reports",  # the same rows give the same bytes
    "text.parse_math": False,  # a $ in a name is a $
    "font.size": 12,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
HOLLOW: dict[str, Any] = {
    "fillstyle": "none",
    "markersize": 9,
    "markeredgewidth": 2,
}  # neighbours stay visible
MARKERS = "osD^vPX*"  # with the colours: 56 methods before a pair repeats


def pareto(table: Table) -> str | None:
    """KL to the dense model against stored bits, the front as a line, as an <svg>; None below two points.

    Entries that compress some layers alone have no place in it: their bits are of those layers.
    """
    if KL not in table.numbers:
        return None
    points = table.frame[[not (entry.dense or entry.first.layers) for entry in table.entries]]
    points = points[points[KL] > 0].dropna(subset=[BITS])
    if len(points) < 2:
        return None
    with rc_context(STYLE):
        return svg(_draw(points))


def pareto_front(points: pd.DataFrame) -> pd.DataFrame:
    """The entries that no other one beats in both stored bits and KL, cheapest first."""
    points = points.sort_values([BITS, KL])
    best_so_far = points[KL].cummin().shift(fill_value=float("inf"))
    return points[points[KL] < best_so_far]


def _draw(points: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(6.0, 4.6), layout="constrained")
    axes = figure.add_subplot()
    front = pareto_front(points)
    axes.step(front[BITS], front[KL], where="post", color=INK, alpha=0.4, linewidth=1)
    for index, (title, own) in enumerate(points.groupby("method", sort=False)):
        marker, color = MARKERS[index % len(MARKERS)], PALETTE[index % len(PALETTE)]
        axes.plot(own[BITS], own[KL], marker, color=color, label=str(title), **HOLLOW)
    axes.set(xlabel="stored bits per weight", ylabel="KL to the dense model, nats per token")
    if points[KL].max() > 8 * points[KL].min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(color=INK, alpha=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def svg(figure: Figure) -> str:
    """A figure drawn in STYLE, as an <svg> in the page's ink."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawn = buffer.getvalue()
    return drawn[drawn.index("<svg") :].replace(INK, "currentColor")
