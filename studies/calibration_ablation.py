"""How many calibration tokens each method needs, from where, and how much the draw matters.

The variance of log KL is parted into draws and sources by a one-way random-effects analysis (Searle, Casella and
McCulloch 1992, "Variance Components", chapter 3): draws of one source and budget differ in the seed alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, variance
from typing import Any

import pandas as pd
from scipy import stats

from reports.budgets import Budget, budget_of
from reports.compare import verdicts_on
from reports.entries import Entry, grouped
from reports.statistics import interval_over_seeds
from studies.conclusion import Conclusion
from studies.contrast import METRIC, kl
from studies.study import SETTINGS, Scale, frame, subject
from suite.results import Row

NAME = "calibration-ablation"
QUESTION = "How many calibration tokens does each method need, and do source and draw matter?"
MINUTES = 100
METHODS = ("wanda", "sparsegpt", "nowag-p", "gptq", "awq", "cvxq", "quip-sharp", "qtip", "nowag-vq")
# Tokens at small scale: the same number in short and in long sequences, from the evaluation's source and another.
SMALL = [("boolq", 1, 256), ("boolq", 4, 256), ("boolq", 16, 256), ("boolq", 4, 1024), ("xsum", 16, 256)]
PAPER_SOURCES = ("c4", "redpajama", "wikitext2")
PAPER_SEQUENCES = tuple(2**power for power in range(9))
SHORT = 512  # tokens of the shorter sequences at paper scale


def recipe(scale: Scale, model: str | None) -> dict[str, Any]:
    """Every method that uses data; at paper scale all combinations of source, sequences, length and seed."""
    values = frame(NAME, scale, model)
    methods: dict[str, Any] = {"methods": {"dense": {}} | {method: SETTINGS[scale][method] for method in METHODS}}
    if scale == "small":
        heldout = {"source": "boolq", "split": "heldout", "windows": 8, "length": 256}
        return values | {"calibration": _budgets(SMALL), "evaluation": [heldout], "seeds": [0, 1, 2]} | methods
    lengths = dict.fromkeys((SHORT, subject(scale, model).length))
    cross = [(source, n, length) for source in PAPER_SOURCES for length in lengths for n in PAPER_SEQUENCES]
    return values | {"calibration": _budgets(cross), "seeds": [0, 1, 2, 3, 4]} | methods


def _budgets(drawn: Sequence[tuple[str, int, int]]) -> list[dict[str, Any]]:
    return [{"source": source, "sequences": n, "length": length} for source, n, length in drawn]


@dataclass(frozen=True)
class Point:
    """One method on one budget: its rows over seeds."""

    rows: Sequence[Row]

    @property
    def method(self) -> str:
        """`Wanda 50% (sequential)`."""
        return Entry(tuple(self.rows)).label

    @cached_property
    def budget(self) -> Budget:
        """What the rows were calibrated on."""
        found = budget_of(self.rows[0].calibration)
        if found is None:
            raise ValueError(f"row {self.rows[0].row_id}: no budget in {self.rows[0].calibration!r}")
        return found

    @property
    def kls(self) -> list[float]:
        """KL under each seed, nats per token."""
        return [kl([row]) for row in self.rows]


def conclude(rows: Sequence[Row]) -> Conclusion:
    """Quality by tokens, the budget beyond which nothing is gained, and the variance of source and draw."""
    used = [row for row in rows if row.calibration]
    points = [Point(part) for part in grouped(used, lambda row: (Entry((row,)).label, row.calibration))]
    points.sort(key=lambda point: (point.method, point.budget))
    series = grouped(points, lambda point: (point.method, point.budget.text, point.budget.length))
    enough = [_enough(part) for part in series if len(part) > 1]
    shares = [share for part in grouped(points, lambda point: point.method) if (share := _shares(part))]
    tables = {"KL by tokens": [_line(point) for point in points], "enough tokens": enough, "variance": shares}
    sentences = (*map(_enough_in_words, enough), *map(_shares_in_words, shares))
    return Conclusion(sentences, {title: pd.DataFrame(lines) for title, lines in tables.items() if lines})


def _line(point: Point) -> dict[str, Any]:
    budget = point.budget
    return {
        "method": point.method,
        "text": budget.text,
        "sequences": budget.sequences,
        "length": budget.length,
        "tokens": budget.tokens,
        "seeds": len(point.rows),
        "KL nats/token": fmean(point.kls),
        "±": interval_over_seeds(point.kls),
    }


def _enough(series: Sequence[Point]) -> dict[str, Any]:
    """The smallest budget of a series, in rising order, from which on none is worse than the largest.

    None where the largest is better than the one before it, and where there are too few windows to tell.
    """
    largest, found = series[-1], None
    for point in reversed(series[:-1]):
        (verdict,) = verdicts_on([(point.rows, largest.rows)], METRIC)  # by its own p: "worse" is the safe side
        if verdict.word == "worse" or verdict.difference.too_few:
            break
        found = point
    return {
        "method": largest.method,
        "text": largest.budget.text,
        "length": largest.budget.length,
        "enough tokens": found.budget.tokens if found else math.nan,
        "most tokens": largest.budget.tokens,
        "KL at enough": fmean(found.kls) if found else math.nan,
        "KL at most": fmean(largest.kls),
    }


def _shares(points: Sequence[Point]) -> dict[str, Any] | None:
    """Variance components of log KL of one method, pooled over the sizes that several sources have.

    None where no size has two sources with two draws each.
    """
    sizes = grouped(
        [point for point in points if len(point.rows) > 1],
        lambda point: (point.budget.length, point.budget.sequences),
    )
    crossed = [part for part in sizes if len({point.budget.text for point in part}) > 1]
    if not crossed:
        return None
    logs = [[[math.log(value) for value in point.kls] for point in part] for part in crossed]
    within = fmean(variance(draws) for part in logs for draws in part)
    between = fmean(variance([fmean(draws) for draws in part]) - _error(part) for part in logs)
    source = max(0.0, between)
    total = source + within
    return {
        "method": points[0].method,
        "sources": max(len(part) for part in logs),
        "source %": 100 * math.sqrt(source),
        "draw %": 100 * math.sqrt(within),
        "share of source %": 100 * source / total if total else math.nan,
        "share of draw %": 100 * within / total if total else math.nan,
        "sizes": len(crossed),
        "p of no source": _p_of_no_source(logs),
    }


def _p_of_no_source(logs: Sequence[Sequence[Sequence[float]]]) -> float:
    """Of the F test that sources do not differ, pooled over sizes; logs are of sizes, sources, draws."""
    means = [[fmean(draws) for draws in part] for part in logs]
    grand = [fmean(value for draws in part for value in draws) for part in logs]
    between = sum(
        len(draws) * (mean - middle) ** 2
        for part, averages, middle in zip(logs, means, grand, strict=True)
        for draws, mean in zip(part, averages, strict=True)
    )
    within = sum((len(draws) - 1) * variance(draws) for part in logs for draws in part)
    free = sum(len(part) - 1 for part in logs), sum(len(draws) - 1 for part in logs for draws in part)
    return float(stats.f.sf(between / free[0] / (within / free[1]), *free)) if within else math.nan


def _error(part: Sequence[Sequence[float]]) -> float:
    """What the draws alone add to the variance between the means of sources."""
    return fmean(variance(draws) / len(draws) for draws in part)


def _enough_in_words(line: dict[str, Any]) -> str:
    where = f"{line['method']} on {line['text']} in sequences of {line['length']}"
    if math.isnan(line["enough tokens"]):
        return f"{where}: no budget below {line['most tokens']:,} tokens is known to be enough."
    return (
        f"{where}: between {line['enough tokens']:,} tokens and {line['most tokens']:,} no gain can be told "
        f"(KL {line['KL at enough']:.3f} and {line['KL at most']:.3f})."
    )


def _shares_in_words(line: dict[str, Any]) -> str:
    sizes = f"{line['sizes']} size{'s' * (line['sizes'] > 1)}"
    return (
        f"{line['method']}: the source moves the KL by {line['source %']:.1f} % and the draw by "
        f"{line['draw %']:.1f} % (standard deviations, estimated from {line['sources']} sources at {sizes}; "
        f"F test that sources are alike: p {line['p of no source']:.2g})."
    )
