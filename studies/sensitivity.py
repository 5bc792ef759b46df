"""One linear compressed at a time: what its own error says of what the model loses.

The relative error of a layer's output is what methods minimise and what audits print; the absolute one also knows
how large the output is. If either ranks the layers as the KL does, mixed precision can be planned without a run of
the model for each layer.
"""

import math
import re
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import pandas as pd

from reports.compare import Metric
from reports.entries import Entry, grouped
from studies.conclusion import Conclusion
from studies.contrast import METRIC, kl, stored_bits
from studies.ranks import explained, rank_correlation
from studies.study import SETTINGS, Scale, frame, subject
from suite.results import Row

NAME = "sensitivity"
QUESTION = "Does a layer's own error say what compressing it does to the model?"
MINUTES = 6
METHODS: dict[Scale, tuple[str, ...]] = {"small": ("nowag-vq",), "paper": ("nowag-p", "nowag-vq")}
BLOCKS = 5  # at small scale, spread over the depth
RELATIVE, ABSOLUTE = "relative error", "absolute error"
PROXIES = {RELATIVE: "output_error", ABSOLUTE: "output_loss"}  # a column and the audit's name for it
KL = "KL nats/token"
NAMED = 3  # layers that a sentence names


def recipe(scale: Scale, model: str | None) -> dict[str, Any]:
    """One cell for each linear: of five blocks at small scale, of all at paper scale."""
    chosen = subject(scale, model)
    blocks = range(chosen.blocks) if scale == "paper" else _spread(chosen.blocks, BLOCKS)
    names = chosen.layout.names(blocks)
    methods = {method: SETTINGS[scale][method] | {"layers": [*names]} for method in METHODS[scale]}
    return frame(NAME, scale, model) | {"methods": {"dense": {}} | methods}


def conclude(rows: Sequence[Row]) -> Conclusion:
    """Layers by their KL, how each error ranks them, and what explains the differences."""
    parts = grouped([row for row in rows if row.layers], lambda row: Entry((row,)).label_without_layers)
    layers = {Entry(tuple(part)).label_without_layers: _layers(part) for part in parts}
    ranks = [line for method, table in layers.items() for line in _ranks(method, table)]
    sentences = [sentence for method, table in layers.items() for sentence in _in_words(method, table)]
    tables = {"rank correlation": pd.DataFrame(ranks)} if ranks else {}
    return Conclusion(
        (*map(_rank_in_words, ranks), *sentences),
        tables | {f"layers {method}": table for method, table in layers.items()},
    )


def _spread(blocks: int, count: int) -> list[int]:
    """At most `count` blocks from the first to the last, evenly."""
    steps = min(count, blocks) - 1
    return [round(step * (blocks - 1) / max(1, steps)) for step in range(steps + 1)]


def _layers(rows: Sequence[Row]) -> pd.DataFrame:
    """A line for each linear, means over seeds, the most sensitive first."""
    table = pd.DataFrame([_line(part) for part in grouped(rows, lambda row: row.layers)])
    return table.sort_values(KL, ascending=False, ignore_index=True)


def _line(rows: Sequence[Row]) -> dict[str, Any]:
    layer = rows[0].layers or ""
    place = re.search(r"\.(\d+)\.([\w.]+)$", layer)
    return {
        "layer": layer,
        "kind": place[2] if place else layer,
        "block": int(place[1]) if place else None,
        **{column: fmean(_noted(row, name) for row in rows) for column, name in PROXIES.items()},
        KL: kl(rows),
        "stored bits/weight": stored_bits(rows),
        "beyond noise": "yes" if all(kl([row]) > Metric(METRIC).floor([row])[0] for row in rows) else "no",
    }


def _noted(row: Row, name: str) -> float:
    """The mean of an audit's note over the cell's layers; NaN where the method notes none."""
    note = row.audit.get(name)
    return float(note["mean"]) if note else math.nan


def _ranks(method: str, table: pd.DataFrame) -> list[dict[str, Any]]:
    known = {column: table.dropna(subset=[column]) for column in PROXIES}
    return [
        {
            "method": method,
            "ranked by": column,
            "layers": len(part),
            **rank_correlation(list(part[column]), list(part[KL])),
        }
        for column, part in known.items()
        if len(part)
    ]


def _rank_in_words(line: dict[str, Any]) -> str:
    rho, tau = (
        f"{line[name]:.2f} [{line[f'{name} low']:.2f}, {line[f'{name} high']:.2f}]" for name in ("rho", "tau")
    )
    return (
        f"{line['method']}: the {line['ranked by']} ranks {line['layers']} layers as the KL does with "
        f"Spearman's rho {rho} and Kendall's tau {tau} (95 %, bootstrap over layers)."
    )


def _in_words(method: str, table: pd.DataFrame) -> list[str]:
    named = [f"{layer} ({value:.2g})" for layer, value in zip(table["layer"], table[KL], strict=True)]
    kind, block = (explained(list(table[KL]), list(table[by])) for by in ("kind", "block"))
    hidden = int((table["beyond noise"] == "no").sum())
    return [
        f"{method}: most sensitive (KL) {', '.join(named[:NAMED])}; least {', '.join(named[-NAMED:])}.",
        f"{method}: of the variance of log KL the kind of linear explains {100 * kind:.0f} % and the block "
        f"{100 * block:.0f} % (adjusted R²); {hidden} of {len(table)} layers are within the noise floor.",
    ]
