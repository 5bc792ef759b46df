"""The Pareto front: stored bits against KL to the dense model, and against perplexity."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports.alike import by_model, by_protocol
from reports.budgets import of_largest
from reports.columns import BITS, KL, PERPLEXITY
from reports.compare import pattern
from reports.comparisons import comparisons
from reports.figures.drawing import Drawing
from reports.figures.ink import (
    AXES,
    HOLLOW,
    INK,
    MANY,
    RUINED,
    dense_line,
    empty,
    lay_out,
    legend_below,
    log_if_wide,
    looks,
)
from reports.figures.naming import distinct, shortened
from reports.figures.placing import name_points, room_for, short_names
from reports.marks import OFF_BUDGET
from reports.material import Material
from reports.naming import protocol_file
from reports.tables import Table
from reports.wording import Caption
from suite.files import file_name
from suite.results import Row

LOW, HIGH, NAMED = 4.2, 6.0, 0.38  # inches: of the figure, and of it for each point's name


def drawings(material: Material) -> list[Drawing]:
    """For each model and protocol a figure of KL against size and one of perplexity, where there are two points.

    Of several calibration budgets the largest: the others are points of a curve.
    """
    scored = [row for row in material.rows if row.measures == "perplexity"]
    models = by_model(scored)
    return distinct([drawing for model in models for rows in by_protocol(model) for drawing in _of_one(rows)])


def _of_one(every_budget: Sequence[Row]) -> Iterator[Drawing]:
    rows, budget = of_largest(every_budget)
    for table in comparisons(rows):
        methods = looks(each.first.title for each in table.entries if not each.dense)
        for measure in AXES:
            points = front_frame(table, measure)
            if len(points) < 2:
                continue
            off_budget = "yes" if points["off budget"].any() else ""
            kind = measure.split()[0]
            yield Drawing(
                file_name(f"front-{kind.lower()}-{rows[0].model}-{protocol_file(rows[0])}"),
                f"Size against {kind}",
                Caption("front", {**table.caption.facts, "off_budget": off_budget, "budget": budget}),
                points,
                partial(_draw, measure=measure, looks=methods),
            )


def front_frame(table: Table, measure: str = KL) -> pd.DataFrame:
    """A line for each entry: its stored bits, the measure, KL or perplexity, and whether it is on the front.

    `±` is the table's, `pattern` the N:M one, `dense` the dense model's perplexity. Entries that compress some
    layers alone have no place in it: their bits are of those layers. Nor have models that are RUINED.
    """
    column = measure if measure == KL else f"{measure} {table.entries[0].first.protocol_name}"
    if column not in table.numbers:
        return pd.DataFrame()
    first = [entry.first for entry in table.entries]
    lines = pd.DataFrame(
        {
            "method": [row.title for row in first],
            "name": short_names(table.entries),
            "pattern": [pattern(row) or "" for row in first],
            "seeds": [entry.seeds(entry.ok) for entry in table.entries],
            "off budget": [entry.off_budget is not None for entry in table.entries],
            BITS: table.numbers[BITS],
            measure: table.numbers[column],
            "±": table.half_widths[column],
        }
    )
    dense = np.array([entry.dense for entry in table.entries])
    whole = np.array([not row.layers for row in first])
    drawable = lines[measure].between(0, RUINED, inclusive="neither")
    points = lines[~dense & whole & drawable].dropna(subset=[BITS])
    best = pareto_front(points[~points["off budget"]], BITS, measure)
    known = lines.loc[dense, measure].max() if measure == PERPLEXITY else math.nan
    return pd.DataFrame(points.assign(dense=known, front=points.index.isin(best.index)))


def pareto_front(points: pd.DataFrame, size: str = BITS, loss: str = KL) -> pd.DataFrame:
    """The lines that no other one beats in both columns, smallest first."""
    points = points.sort_values([size, loss])
    best_so_far = points[loss].cummin().shift(fill_value=float("inf"))
    return points[points[loss] < best_so_far]


def _draw(points: pd.DataFrame, measure: str, looks: Mapping[str, Mapping[str, Any]]) -> Figure:
    height = min(max(LOW, NAMED * len(points)), HIGH)
    figure, axes = empty("stored bits per weight", AXES[measure], (6.0, height))
    front = points[points["front"]].sort_values(BITS)
    axes.step(front[BITS], front[measure], where="post", color=INK, alpha=0.4, linewidth=1)
    for (method, nm, off), own in points.groupby(["method", points["pattern"] != "", "off budget"], sort=False):
        look = {**HOLLOW, **looks[str(method)], "linestyle": "", "fillstyle": "full" if nm else "none"}
        label = f"{method}{' N:M' if nm else ''}{f' {OFF_BUDGET}' if off else ''}"
        drawn = axes.errorbar(
            own[BITS], own[measure], own["±"], alpha=0.4 if off else 1, capsize=3, label=label, **look
        )
        drawn.lines[0].set_rasterized(len(points) > MANY)
    dense = points["dense"].iloc[0]
    if not math.isnan(dense):
        dense_line(axes, dense)
    axes.margins(0.06, 0.1)
    log_if_wide(axes, points[measure])
    short = shortened(list(points["name"]))
    names = [
        f"{name} {OFF_BUDGET}" if off else name for name, off in zip(short, points["off budget"], strict=True)
    ]
    if room_for(names):
        steps = np.repeat(front[[BITS, measure]].to_numpy(), 2, axis=0)
        lines = [np.column_stack([steps[1:, 0], steps[:-1, 1]])]  # right, then down
        lay_out(figure)
        if not math.isnan(dense):
            lines.append(np.array([(end, dense) for end in axes.get_xlim()]))
        name_points(axes, points[[BITS, measure]].to_numpy(), names, lines)
    else:
        legend_below(figure)
    return figure
