"""The Pareto front: stored bits against KL to the dense model."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from reports.comparisons import BITS, KL, comparisons
from reports.figures.drawing import Drawing
from reports.figures.ink import HOLLOW, INK, MARKERS, PALETTE
from reports.material import Material
from reports.tables import Table
from reports.wording import Caption
from suite.files import file_name


def drawings(material: Material) -> list[Drawing]:
    """A figure for each comparison that has two points of KL against size."""
    found = [(table, points) for table in comparisons(material.rows) if (points := front_frame(table)) is not None]
    return [
        Drawing(
            file_name(f"front-{table.name}"),
            "Size against quality",
            Caption("front", table.caption.facts),
            points,
            _draw,
        )
        for table, points in found
    ]


def front_frame(table: Table) -> pd.DataFrame | None:
    """The table's entries by stored bits and KL; None below two points.

    Entries that compress some layers alone have no place in it: their bits are of those layers.
    """
    if KL not in table.numbers:
        return None
    points = table.frame[[not (entry.dense or entry.first.layers) for entry in table.entries]]
    points = points[points[KL] > 0].dropna(subset=[BITS])
    return points if len(points) > 1 else None


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
