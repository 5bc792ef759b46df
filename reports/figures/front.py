"""The Pareto front: stored bits against KL to the dense model, and against perplexity."""

import math
from collections.abc import Hashable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports.columns import BITS, KL, PERPLEXITY
from reports.compare import pattern
from reports.comparisons import comparisons
from reports.entries import grouped
from reports.figures.drawing import Drawing
from reports.figures.ink import AXES, HOLLOW, INK, MANY, dense_line, empty, legend_below, log_if_wide, looks
from reports.figures.placing import name_points, room_for, short_names
from reports.marks import OFF_BUDGET
from reports.material import Material
from reports.tables import Table
from reports.wording import Caption
from suite.files import file_name

BUDGETS = 3  # of a model and protocol that get a figure


def drawings(material: Material) -> list[Drawing]:
    """For each comparison a figure of KL against size and one of perplexity, wherever there are two points.

    Of a model and protocol with many calibration budgets those of most tokens: the others are points of a curve.
    """
    measured = [table for table in comparisons(material.rows) if table.entries[0].first.measures == "perplexity"]
    return [
        _drawing(table, measure, points, len(same))
        for same in grouped(measured, _scored)
        for table in sorted(same, key=_tokens, reverse=True)[:BUDGETS]
        for measure in AXES
        if len(points := front_frame(table, measure)) > 1
    ]


def _scored(table: Table) -> Hashable:
    row = table.entries[0].first
    return row.model_fingerprint, row.protocol_id, row.evaluated_tokens


def _tokens(table: Table) -> int:
    return max(entry.first.calibration_tokens for entry in table.entries)


def _drawing(table: Table, measure: str, points: pd.DataFrame, budgets: int) -> Drawing:
    kind = measure.split()[0]
    own = {
        "off_budget": "yes" if points["off budget"].any() else "",
        "budgets": str(budgets) if budgets > BUDGETS else "",
    }
    return Drawing(
        file_name(f"front-{kind.lower()}-{table.name.removeprefix('comparison-')}"),
        f"Size against {kind}",
        Caption("front", {**table.caption.facts, **own}),
        points,
        partial(_draw, measure=measure, looks=looks(each.first.title for each in table.entries if not each.dense)),
    )


def front_frame(table: Table, measure: str = KL) -> pd.DataFrame:
    """A line for each entry: its stored bits, the measure, KL or perplexity, and whether it is on the front.

    `±` is the table's, `pattern` the N:M one, `dense` the dense model's perplexity. Entries that compress some
    layers alone have no place in it: their bits are of those layers.
    """
    column = measure if measure == KL else f"{measure} {table.entries[0].first.protocol_name}"
    if column not in table.numbers:
        return pd.DataFrame()
    first = [entry.first for entry in table.entries]
    lines = pd.DataFrame(
        {
            "method": [row.title for row in first],
            "name": [
                name + (f" {OFF_BUDGET}" if entry.off_budget else "")
                for name, entry in zip(short_names(table.entries), table.entries, strict=True)
            ],
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
    points = lines[~dense & whole & (lines[measure] > 0)].dropna(subset=[BITS, measure])
    best = pareto_front(points[~points["off budget"]], BITS, measure)
    known = lines.loc[dense, measure].max() if measure == PERPLEXITY else math.nan
    return pd.DataFrame(points.assign(dense=known, front=points.index.isin(best.index)))


def pareto_front(points: pd.DataFrame, size: str = BITS, loss: str = KL) -> pd.DataFrame:
    """The lines that no other one beats in both columns, smallest first."""
    points = points.sort_values([size, loss])
    best_so_far = points[loss].cummin().shift(fill_value=float("inf"))
    return points[points[loss] < best_so_far]


def _draw(points: pd.DataFrame, measure: str, looks: Mapping[str, Mapping[str, Any]]) -> Figure:
    figure, axes = empty("stored bits per weight", AXES[measure])
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
    if room_for(list(points["name"])):
        steps = np.repeat(front[[BITS, measure]].to_numpy(), 2, axis=0)
        steps = np.column_stack([steps[1:, 0], steps[:-1, 1]])  # right, then down
        name_points(axes, points[[BITS, measure]].to_numpy(), list(points["name"]), steps)
    else:
        legend_below(figure)
    return figure
