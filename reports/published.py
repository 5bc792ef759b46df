"""Published figures, and ours beside them: rows of a recipe that reproduces a table, in, a data frame out.

A figure belongs to a row of the same table, model, method, settings, statistics and protocol, its length included,
with all items of a task. To any other row belongs none: nothing is compared with another measurement's figure.
The figures are in published.csv, each with its source and how sure its reading is. `tolerance_percent` allows for
what a repetition cannot hold fast: 0.5 for the dense model's perplexity (half precision, the printed figure's
rounding), 1 without calibration (also ties between weights), 3 with it (another draw of tokens: two papers'
figures for Wanda 2:4 on Llama-2-7B, 11.02 and 11.35, are that far apart), and up to 5 for accuracies, whose
harness was an older one.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import pandas as pd

from reports.entries import Entry, entries, grouped
from suite.results import Row

FIGURES = Path(__file__).with_name("published.csv")
PERPLEXITY, ACCURACY, STORED = "perplexity", "acc", "stored bits/weight"

Verdict = Literal["within", "outside", "not measured", "no published figure"]


@dataclass(frozen=True)
class Figure:
    """A line of published.csv. An accuracy is in percent; of several protocols, joined by +, it is their mean."""

    preset: str
    model: str
    method: str
    variant: str
    statistics: str
    protocol: str
    metric: str
    value: float
    tolerance_percent: float
    calibration: str
    title: str
    arxiv_id: str
    table: str
    confidence: str
    note: str

    @property
    def citation(self) -> str:
        """Title, arXiv identifier, table, and how sure the reading is where it is less than high."""
        doubt = "" if self.confidence == "high" else f" (confidence of the reading: {self.confidence})"
        return f"{self.title}, arXiv:{self.arxiv_id}, {self.table}{doubt}"

    @property
    def protocols(self) -> list[str]:
        """Names of the protocols that the figure is of."""
        return self.protocol.split("+")

    def of(self, row: Row) -> bool:
        """Whether the figure is of this row's cell; a copy of the model elsewhere is known by its name."""
        same = (self.method, self.variant, self.statistics) == (row.method, row.variant, row.statistics_mode)
        return same and row.layers is None and _last_name(self.model) == _last_name(row.model)


@dataclass(frozen=True)
class Preset:
    """A published table that `reproduce` can name."""

    name: str
    citation: str
    models: tuple[str, ...]


@dataclass(frozen=True)
class Beside:
    """What an entry scored under one protocol, one number for each seed, and the figure published for it."""

    entry: Entry
    protocol: str
    metric: str
    values: tuple[float, ...]
    figure: Figure | None

    @property
    def ours(self) -> float:
        """The mean over seeds, of a perplexity's logarithm its exp; NaN if nothing was measured."""
        if not self.values:
            return math.nan
        if self.metric == PERPLEXITY:
            return math.exp(fmean(map(math.log, self.values)))
        return fmean(self.values)

    @property
    def difference_percent(self) -> float:
        """Ours less the published figure, in percent of the latter; NaN without one of them."""
        return 100 * (self.ours / self.figure.value - 1) if self.figure else math.nan

    @property
    def verdict(self) -> Verdict:
        """Whether the difference is within the figure's tolerance."""
        if self.figure is None:
            return "no published figure"
        if not self.values:
            return "not measured"
        return "within" if abs(self.difference_percent) <= self.figure.tolerance_percent else "outside"


@cache
def figures() -> tuple[Figure, ...]:
    """All of published.csv."""
    with FIGURES.open(encoding="utf-8", newline="") as file:
        lines: list[dict[str, Any]] = list(csv.DictReader(file))
    numbers = ("value", "tolerance_percent")
    return tuple(Figure(**line | {name: float(line[name]) for name in numbers}) for line in lines)


def presets() -> list[Preset]:
    """The published tables, with the models that they have figures for."""
    return [_preset(found) for found in grouped(figures(), lambda figure: figure.preset)]


def besides(rows: Sequence[Row]) -> list[Beside]:
    """Each entry of rows that reproduce a table, under each protocol, beside its figure; entries in order."""
    found: list[Beside] = []
    for same in grouped([row for row in rows if row.reproduces], lambda row: row.reproduces):
        table = [figure for figure in figures() if figure.preset == same[0].reproduces]
        for entry in entries(same):
            found += _of_entry(entry, [figure for figure in table if figure.of(entry.first)])
    return found


def published_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """One line for each entry and protocol of rows that reproduce a table; empty without such rows."""
    return pd.DataFrame([_line(each) for each in besides(rows)])


def _preset(found: Sequence[Figure]) -> Preset:
    first, tables = found[0], dict.fromkeys(figure.table for figure in found)
    models = tuple(dict.fromkeys(figure.model for figure in found))
    return Preset(first.preset, f"{first.title}, arXiv:{first.arxiv_id}, {', '.join(tables)}", models)


def _of_entry(entry: Entry, table: Sequence[Figure]) -> list[Beside]:
    """First what figures are published for, then all else that was measured."""
    measures = {scored_as(row): PERPLEXITY if row.measures == "perplexity" else ACCURACY for row in entry.rows}
    known = [figure for figure in table if measures.keys() >= set(figure.protocols)]
    told = {name for figure in known for name in figure.protocols}
    asked: list[tuple[str, str, Figure | None]] = [(each.protocol, each.metric, each) for each in known]
    asked += [(name, metric, None) for name, metric in measures.items() if name not in told]
    return [Beside(entry, name, metric, _scores(entry, name, metric), figure) for name, metric, figure in asked]


def _scores(entry: Entry, protocol: str, metric: str) -> tuple[float, ...]:
    """The mean over the protocols, for each seed that has them all."""
    names = set(protocol.split("+"))
    seeds = grouped([row for row in entry.ok if scored_as(row) in names], lambda row: row.seed)
    scores = [
        {scored_as(row): score for row in seed if (score := _score(row, metric)) is not None} for seed in seeds
    ]
    return tuple(fmean(each.values()) for each in scores if each.keys() == names)


def _score(row: Row, metric: str) -> float | None:
    if metric == STORED:
        return row.size.stored_bits_per_weight if row.size else None
    if metric == PERPLEXITY and row.quality:
        return row.quality.perplexity
    share = row.task.metrics.get(metric) if row.task else None
    return None if share is None else 100 * share


def scored_as(row: Row) -> str:
    """The protocol's name, which says itself how many windows were left out; of a task how many items."""
    cut = row.task and row.task.scored_items < row.task.items_in_task
    return f"{row.protocol_name} (first {row.task.scored_items} items)" if row.task and cut else row.protocol_name


def _last_name(model: str) -> str:
    """`llama-2-7b-hf` of a hub name with its revision, or of a directory."""
    return model.partition("@")[0].rstrip("/").rpartition("/")[2].lower()


def _line(each: Beside) -> dict[str, Any]:
    row, figure = each.entry.first, each.figure
    return {
        "preset": row.reproduces,
        "model": row.model,
        "method": row.method,
        "variant": row.variant,
        "statistics": row.statistics_mode,
        "calibration": row.calibration,
        "seeds": len(each.values),
        "protocol": each.protocol,
        "metric": each.metric,
        "ours": each.ours,
        "published": figure.value if figure else math.nan,
        "difference_percent": each.difference_percent,
        "tolerance_percent": figure.tolerance_percent if figure else math.nan,
        "verdict": each.verdict,
        "published_calibration": figure.calibration if figure else None,
        "citation": figure.citation if figure else None,
        "note": figure.note if figure else None,
    }
