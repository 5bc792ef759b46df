"""Columns of tables: what stands below a header, by what entries can be told apart, and those that tables share.

A column may be about some of a line's rows: then these are a part of the line, and all else counts as not there.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from reports.compare import Metric
from reports.entries import Entry, grouped
from reports.marks import Contest
from reports.statistics import interval_over_seeds
from suite.results import Row, TaskScore

BITS, KL = "stored bits/weight", "KL nats/token"  # the figure's axes, too
ACCURACIES, PERPLEXITY = ("acc", "acc_norm"), "perplexity"  # what a task shows of its metrics if it has the first
LOWER, HIGHER = "↓", "↑"  # which way is better

Values = Callable[[Sequence[Row]], list[float]]  # of a line's rows: one number for each seed that has it


def _any(row: Row) -> bool:
    return True


@dataclass(frozen=True)
class Column:
    """What stands under one header, and by what its entries can be told apart."""

    header: str  # its name in data
    values: Values
    decimals: int = 2
    varies: bool = False  # with what a seed draws: printed with its interval over seeds
    errors: Values | None = None  # standard errors over items
    takes: Callable[[Row], bool] = _any  # the rows that it is about
    metric: Metric | None = None
    protocols: int = 1  # that a seed must have been measured by to take part
    log: bool = False  # the values are logarithms of what is printed
    better: str = ""  # LOWER or HIGHER; empty where a number is no merit
    levels: tuple[str, ...] = ()  # the header below its groups, the widest first; empty: the header alone
    measured: bool = True  # False: from elsewhere, and there even if the rows have no numbers

    @property
    def printed(self) -> tuple[str, ...]:
        """The levels, the last with an arrow for which way is better."""
        *groups, last = self.levels or (self.header,)
        return *groups, f"{last} {self.better}".rstrip()

    def part(self, line: Entry) -> Entry:
        """The rows of the line that it is about, which may be none."""
        return Entry(tuple(row for row in line.rows if self.takes(row)))

    def number(self, part: Entry) -> float:
        """The mean over the part's seeds, of logarithms their exp; NaN when no seed has it."""
        values = self.values(part.ok if self.measured else part.rows)
        mean = fmean(values) if values else math.nan
        return math.exp(mean) if self.log else mean

    def half_width(self, part: Entry, over_seeds: bool) -> float:
        """What stands after ±: the interval over seeds, or else the standard error over items."""
        if over_seeds:
            half = interval_over_seeds(self.values(part.ok)) if self.varies else math.nan
            return half * self.number(part) if self.log else half
        return next(iter(self.errors(part.ok)), math.nan) if self.errors else math.nan

    def contest(self, parts: Sequence[Entry]) -> Contest | None:
        """The parts with all numbers, if they can be told apart by them, less dense and what is off budget."""
        if self.metric is None:
            return None
        sides = {
            line: part.ok for line, part in enumerate(parts) if part.ok and not (part.dense or part.off_budget)
        }
        whole = {
            line: rows for line, rows in sides.items() if len(rows) == self.protocols * parts[line].seeds(rows)
        }
        return Contest(self.metric, whole)


def of(group: str, name: str, scale: float = 1.0) -> Values:
    """A number of a row's group, such as its size, from every row that has it."""

    def values(rows: Sequence[Row]) -> list[float]:
        found = (getattr(getattr(row, group), name, None) for row in rows)
        return [scale * value for value in found if value is not None]

    return values


def perplexity(header: str) -> Column:
    """Perplexity of the rows' protocol; over seeds the mean of the logarithm."""
    return Column(header, _log_perplexity, log=True, varies=True, metric=Metric("perplexity"), better=LOWER)


def kl() -> Column:
    """KL of the dense model's next token to the compressed one's, in nats per token."""
    return Column(KL, of("quality", "kl_mean"), 4, varies=True, metric=Metric("kl"), better=LOWER)


def task_columns(protocol_id: str, score: TaskScore) -> list[Column]:
    """What is shown of a task: its accuracies and its perplexity, or all that it has where it has no accuracy."""
    usual = [metric for metric in (*ACCURACIES, PERPLEXITY) if metric in score.metrics]
    shown = usual if any(metric in score.metrics for metric in ACCURACIES) else score.metrics
    return [_task_column(protocol_id, score, metric) for metric in shown]


def mean_accuracy(tasks: int) -> Column:
    """The mean of acc over so many tasks, for each seed that has them all."""

    def complete(rows: Sequence[Row]) -> list[list[TaskScore]]:
        seeds = grouped([row for row in rows if row.task], lambda row: row.seed)
        return [[row.task for row in seed if row.task] for seed in seeds if len(seed) == tasks]

    def values(rows: Sequence[Row]) -> list[float]:
        return [100 * sum(score.metrics["acc"] for score in scores) / tasks for scores in complete(rows)]

    def errors(rows: Sequence[Row]) -> list[float]:
        """The tasks' items are drawn apart, so that variances add up."""
        return [
            100 * math.hypot(*(score.stderr.get("acc", math.nan) for score in scores)) / tasks
            for scores in complete(rows)
        ]

    column = Column("mean acc %", values, decimals=1, varies=True, errors=errors)
    return replace(column, metric=Metric("acc"), protocols=tasks, better=HIGHER)


def _task_column(protocol_id: str, score: TaskScore, metric: str) -> Column:
    """One metric of one task; in percent where an item is right or wrong."""
    share, log = metric in score.items, metric == PERPLEXITY
    scale = 100.0 if share else 1.0

    def values(rows: Sequence[Row]) -> list[float]:
        found = [row.task.metrics[metric] for row in rows if row.task and metric in row.task.metrics]
        return [math.log(value) if log else scale * value for value in found]

    def errors(rows: Sequence[Row]) -> list[float]:
        return [scale * row.task.stderr[metric] for row in rows if row.task and metric in row.task.stderr]

    return Column(
        f"{score.task} {metric}{' %' if share else ''}",
        values,
        decimals=1 if share else 2,
        varies=True,
        errors=errors,
        takes=lambda row: row.protocol_id == protocol_id,
        metric=Metric(metric) if share else None,
        log=log,
        better=HIGHER if metric in ACCURACIES else LOWER if log else "",
    )


def _log_perplexity(rows: Sequence[Row]) -> list[float]:
    return [math.log(row.quality.perplexity) for row in rows if row.quality]
