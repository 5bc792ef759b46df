"""Calibration curves: quality by how many tokens a method was calibrated on."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from reports.alike import by_model, by_protocol
from reports.budgets import Budget, budget_of
from reports.columns import KL
from reports.compare import Metric
from reports.entries import Entry, entries
from reports.facts import evaluation, facts
from reports.figures.drawing import Drawing
from reports.figures.ink import (
    AXES,
    HOLLOW,
    INK,
    LINES,
    RUINED,
    dense_line,
    dress,
    legend_below,
    log_if_wide,
    looks,
)
from reports.figures.naming import distinct
from reports.material import Material
from reports.naming import protocol_file
from reports.statistics import interval_over_seeds
from reports.wording import Caption
from suite.files import file_name
from suite.results import Row

SERIES = ["method", "source", "length"]
FEW, MOST_TICKS = 6, 5  # token counts that can all be ticks; ticks of more
NEAR = 3.0  # times the noise floor: curves that come no nearer are drawn without it
LEAST = 0.3  # of the lowest mean, or the highest of it: where an axis cuts off a band
ACROSS = 3  # panels side by side


def drawings(material: Material) -> list[Drawing]:
    """Of each model and protocol under which a method was calibrated on several numbers of tokens two figures.

    One is of KL, one of perplexity, where rows have them.
    """
    scored = [row for row in material.rows if row.measures == "perplexity"]
    models = by_model(scored)
    found = [
        Drawing(
            file_name(f"curves-{measure.split()[0].lower()}-{rows[0].model}-{protocol_file(rows[0])}"),
            f"Calibration tokens against {measure.split()[0]}",
            Caption("curves", facts(rows) | {"evaluation": evaluation(rows[0]), "noise": _noise(rows, measure)}),
            data,
            _draw,
        )
        for model in models
        for rows in by_protocol(model)
        for measure in AXES
        if len(data := curve_frame(rows, measure))
    ]
    return distinct(found)


def curve_frame(rows: Sequence[Row], measure: str = KL) -> pd.DataFrame:
    """A line for each method and budget, the same model and protocol in all rows; empty without a curve.

    `mean` is of the measure, KL in nats per token or perplexity (by logarithms), over seeds that have it;
    `low` and `high` are the ends of its 95 % interval over seeds, NaN for a single one. `dense` is the dense
    model's perplexity, or for KL the noise floor that was measured on it: NaN if there is none. Models that are
    RUINED are no points.
    """
    used = [
        (entry, budget)
        for entry in entries([row for row in rows if row.quality and not row.layers])
        if (budget := budget_of(entry.first.calibration)) and _values(entry, measure)
    ]
    several = len({budget.rest for _, budget in used}) > 1
    every = [_line(entry, budget, measure, several) for entry, budget in used]
    lines = pd.DataFrame([line for line in every if line["mean"] < RUINED])
    if not len(lines) or lines.groupby(SERIES)["tokens"].nunique().max() < 2:
        return pd.DataFrame()
    floor = Metric("kl").floor(rows)[0] or math.nan
    return lines.assign(measure=measure, dense=floor if measure == KL else _dense_perplexity(rows))


def _values(entry: Entry, measure: str) -> list[float]:
    """Of each seed that has it the KL, or the logarithm of the perplexity."""
    qualities = [row.quality for row in entry.ok if row.quality]
    if measure == KL:
        return [quality.kl_mean for quality in qualities if quality.kl_mean is not None]
    return [math.log(quality.perplexity) for quality in qualities]


def _line(entry: Entry, budget: Budget, measure: str, several: bool) -> dict[str, Any]:
    metric, values = Metric("kl" if measure == KL else "perplexity"), _values(entry, measure)
    mean, half = fmean(values), interval_over_seeds(values)
    ends = {"mean": mean, "low": mean - half, "high": mean + half}
    return {
        "model": entry.first.model,
        "protocol": entry.first.protocol_name,
        "method": entry.label,
        "source": f"{budget.text}, {budget.rest}" if several else budget.text,
        "length": budget.length,
        "sequences": budget.sequences,
        "tokens": budget.tokens,
        "seeds": len(values),
        **{name: metric.value(end) for name, end in ends.items()},
    }


def _dense_perplexity(rows: Sequence[Row]) -> float:
    found = [row.quality.perplexity for row in rows if row.quality and Entry((row,)).dense]
    return found[0] if found else math.nan


def _noise(rows: Sequence[Row], measure: str) -> str:
    """Of the KL `0.00012 (bfloat16)`; nothing if it was not measured."""
    if measure != KL:
        return ""
    floor, change = Metric("kl").floor(rows)
    return f"{floor:.2g} ({change})" if change else ""


def _draw(data: pd.DataFrame) -> Figure:
    """A panel for each source, as wide as the range of tokens that it has."""
    sources = dict(list(data.groupby("source", sort=False)))
    across, down = min(len(sources), ACROSS), -(-len(sources) // ACROSS)
    octaves = [1.5 + math.log2(own["tokens"].max() / own["tokens"].min()) for own in sources.values()]
    figure = Figure(figsize=(3.0 + 3.0 * across, 1.3 + 3.0 * down), layout="constrained")
    panels = figure.subplots(
        down, across, sharey=True, squeeze=False, width_ratios=octaves if down == 1 else None
    ).ravel()
    for axes, (source, own) in zip(panels, sources.items(), strict=False):
        dress(axes)
        axes.set_title(str(source), fontsize=10)
        axes.set_xlabel("calibration tokens")
        _draw_panel(axes, own, data)
    for axes in panels[len(sources) :]:
        axes.set_visible(False)
    for axes in panels[::across]:
        axes.set_ylabel(AXES[data["measure"].iloc[0]])
    log_if_wide(panels[0], data["mean"])
    legend_below(figure)
    return figure


def _draw_panel(axes: Axes, own: pd.DataFrame, data: pd.DataFrame) -> None:
    """A line for each method and length of sequences; looks are the same in all panels."""
    methods, lengths = looks(data["method"]), sorted(data["length"].unique())
    least, most = LEAST * data["mean"].min(), data["mean"].max() / LEAST
    for (method, _, length), line in own.sort_values("tokens", kind="stable").groupby(SERIES, sort=False):
        look = methods[str(method)] | ({"linestyle": LINES[lengths.index(length)]} if len(lengths) > 1 else {})
        axes.plot(line["tokens"], line["mean"], label=method, **HOLLOW | look | {"markersize": 6})
        low, high = line["low"].clip(lower=least), line["high"].clip(upper=most)
        if len(line) == 1:
            axes.vlines(line["tokens"], low, high, color=look["color"])
        else:
            axes.fill_between(line["tokens"], low, high, color=look["color"], alpha=0.13, linewidth=0)
    for index, length in enumerate(lengths):
        if len(lengths) > 1:
            axes.plot([], [], color=INK, linestyle=LINES[index], label=f"sequences of {length:,} tokens")
    _by_octaves(axes, own["tokens"])
    dense, by_kl = data["dense"].iloc[0], data["measure"].iloc[0] == KL
    if not math.isnan(dense) and (not by_kl or data["mean"].min() < NEAR * dense):
        dense_line(axes, dense, "noise floor" if by_kl else "dense")


def _by_octaves(axes: Axes, tokens: pd.Series) -> None:
    """Tokens by powers of two, half an octave of room to both sides."""
    counts = sorted(tokens.unique())
    axes.set_xscale("log", base=2)
    axes.set_xlim(counts[0] / math.sqrt(2), counts[-1] * math.sqrt(2))
    axes.xaxis.set_major_locator(
        FixedLocator(counts) if len(counts) <= FEW else LogLocator(base=2, numticks=MOST_TICKS)
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tokens, _: f"{tokens:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
