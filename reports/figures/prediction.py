"""Allocation: the KL and the perplexity that were predicted of a choice of options, against those measured."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from reports.alike import by_model, by_protocol
from reports.columns import KL, PERPLEXITY
from reports.facts import evaluation, facts
from reports.figures.drawing import Drawing
from reports.figures.ink import AXES, HOLLOW, INK, RUINED, empty, legend_below, log_if_wide, looks
from reports.figures.naming import distinct
from reports.material import Material
from reports.naming import protocol_file
from reports.wording import Caption
from suite.files import file_name
from suite.results import DENSE, Row

PREDICTED = "predicted"
MOST_NATS = 700.0  # that a float can be raised by
MEASURES = (KL, PERPLEXITY)


def drawings(material: Material) -> list[Drawing]:
    """Two figures for each model and protocol with an allocation: of KL and of perplexity."""
    found = [
        Drawing(
            file_name(f"prediction-{measure.split()[0].lower()}-{rows[0].model}-{protocol_file(rows[0])}"),
            f"Predicted against measured {measure.split()[0]}",
            Caption("prediction", facts(rows) | {"evaluation": evaluation(rows[0]), "off": _off(data, measure)}),
            data,
            partial(_draw, measure=measure),
        )
        for model in by_model([row for row in material.rows if row.quality])
        for rows in by_protocol(model)
        for measure in MEASURES
        if len(data := prediction_frame(rows, measure))
    ]
    return distinct(found)


def prediction_frame(rows: Sequence[Row], measure: str = KL) -> pd.DataFrame:
    """A line for each prediction that a row can be held against: of allocated models, and of their options alone.

    `predicted` and `measure` are KL in nats per token or perplexity, which is predicted from the dense model's.
    `by` is what errors were measured in, `weight` or `output`; `bits` are stored bits per weight.
    """
    dense = [row.quality.perplexity for row in rows if row.quality and row.method == DENSE]
    if measure == PERPLEXITY and not dense:
        return pd.DataFrame()
    measured = {row.cell_id: row for row in rows if row.quality}
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for row in measured.values():
        told = row.audit.get("stages", {}).get("allocation")
        if not told:
            continue
        base = dense[0] if measure == PERPLEXITY else None
        lines[row.cell_id, told["error"]] = _line(row, told, told["error"], base)
        for cell_id, option in told.get("uniform", {}).items():
            if cell_id in measured:
                key = cell_id, told["error"]
                lines.setdefault(key, _line(measured[cell_id], option, told["error"], base))
    return pd.DataFrame([line for line in lines.values() if line[measure] < RUINED and line[PREDICTED] < RUINED])


def _line(row: Row, told: Mapping[str, Any], by: str, dense: float | None) -> dict[str, Any]:
    """Of one row: KL, or perplexity where the dense model's is given."""
    line = {"method": row.label, "kind": row.title, "seed": row.seed, "by": by}
    line["bits"] = row.size.stored_bits_per_weight if row.size else math.nan
    if dense is None:
        return line | {PREDICTED: told["predicted_kl"], KL: row.quality.kl_mean if row.quality else math.nan}
    foretold = dense * math.exp(min(told["predicted_nll_increase"], MOST_NATS))
    return line | {PREDICTED: foretold, PERPLEXITY: row.quality.perplexity if row.quality else math.nan}


def _off(data: pd.DataFrame, measure: str) -> str:
    """By what factor predictions are off, at most, of allocated models by each error."""
    own = data[data["kind"] == "Allocated"]
    ratios = (own[PREDICTED] / own[measure]).groupby(own["by"])
    return "; ".join(f"by {by} error {found.min():.2f} to {found.max():.2f}" for by, found in ratios)


def _draw(data: pd.DataFrame, measure: str) -> Figure:
    figure, axes = empty(f"predicted {AXES[measure]}", AXES[measure])
    kinds = data["kind"] + ", by " + data["by"] + " error"
    looked = looks(kinds)
    for kind, own in data.groupby(kinds, sort=False):
        axes.plot(own[PREDICTED], own[measure], label=kind, **{**HOLLOW, **looked[str(kind)], "linestyle": ""})
    log_if_wide(axes, data[PREDICTED], "x")
    log_if_wide(axes, data[measure])
    ends = data[[PREDICTED, measure]].min().max(), data[[PREDICTED, measure]].max().min()
    axes.axline((ends[0], ends[0]), (ends[1] * 1.01, ends[1] * 1.01), color=INK, linewidth=0.8)
    legend_below(figure)
    return figure
