"""Figures as SVG text that takes its ink from the page, so that it reads on light and on dark."""

import io
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from reports.tables import DENSE, pareto_front

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


def pareto(frame: pd.DataFrame) -> str | None:
    """KL to the dense model against stored bits, the front as a line, as an <svg>; None below two points."""
    rows = frame[(frame["status"] == "ok") & (frame["method"] != DENSE)]
    rows = rows[rows["kl_mean_nats"] > 0].dropna(subset=["stored_bits_per_weight"])
    if len(rows) < 2:
        return None
    with rc_context(STYLE):
        return _svg(_draw(rows))


def _draw(rows: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(6.0, 4.6), layout="constrained")
    axes = figure.add_subplot()
    front = pareto_front(rows)
    x, y = "stored_bits_per_weight", "kl_mean_nats"
    axes.step(front[x], front[y], where="post", color=INK, alpha=0.4, linewidth=1)
    for index, (title, points) in enumerate(rows.groupby("title", sort=False)):
        marker, color = MARKERS[index % len(MARKERS)], PALETTE[index % len(PALETTE)]
        axes.plot(points[x], points[y], marker, color=color, label=str(title), **HOLLOW)
    axes.set(xlabel="stored bits per weight", ylabel="KL to the dense model, nats per token")
    if rows["kl_mean_nats"].max() > 8 * rows["kl_mean_nats"].min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(color=INK, alpha=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawn = buffer.getvalue()
    return drawn[drawn.index("<svg") :].replace(INK, "currentColor")
