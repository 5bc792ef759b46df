"""Which numbers of a column are marked: the best of a size, and all that cannot be told apart from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from reports.compare import ONE_SIZE, WINDOWS, Metric, best_set, metrics_of
from reports.statistics import FEWEST_UNITS, LEVEL, RESAMPLES
from suite.results import NOISE_ITEMS, Row

OFF_BUDGET = "‡"
"""Stands beside an entry whose size is not the one asked of all."""

MISSING = "†"
"""Stands in place of a number that should be there: the row is void, failed or unsupported."""


@dataclass(frozen=True)
class Contest:
    """The entries of one column by their lines, each with its rows over seeds.

    The dense model takes no part, nor does an entry off budget.
    """

    metric: Metric
    sides: Mapping[int, Sequence[Row]]

    @property
    def rows(self) -> list[Row]:
        """All rows of all entries."""
        return [row for rows in self.sides.values() for row in rows]

    @cached_property
    def units(self) -> int:
        """How many windows or items the entries are compared on, of several tasks in the one that has fewest: 0
        unless every row has kept them.
        """
        kept = bool(self.rows) and all(self.metric.name in metrics_of(row) for row in self.rows)
        return min(len(self.metric.units(row)) for row in self.rows) if kept else 0

    @cached_property
    def best(self) -> set[int]:
        """The lines to be marked: none where there are too few units to tell anything."""
        return best_set(self.sides, self.metric.name) if self.units >= FEWEST_UNITS else set()


def mark_note(contests: Sequence[Contest]) -> str:
    """What the marks in these columns mean, or why there are none; empty where there is nothing to say."""
    marked = [contest for contest in contests if contest.best]
    if not marked:
        small = [contest for contest in contests if len(contest.sides) > 1 and 0 < contest.units < FEWEST_UNITS]
        few = dict.fromkeys(f"{contest.units} {contest.metric.unit}" for contest in small)
        return f"{', '.join(few)} are too few to tell entries apart (at least {FEWEST_UNITS})." if few else ""
    counts = sorted({contest.units for contest in marked})
    over = " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))
    noise = _noise_floors(marked)
    test = f"paired bootstrap over {over} {marked[0].metric.unit}, {RESAMPLES:,} resamples, Holm within a size"
    return (
        f"best of its size ({_one_size(marked)}; N:M patterns by themselves; an entry alone "
        "in its size is not marked, dense takes no part) and all that cannot be told apart from it: "
        f"{test}, {100 * LEVEL:.0f} %{f'; noise floor{noise}' if noise else ''}."
    )


def _one_size(contests: Sequence[Contest]) -> str:
    """When entries have one size: the one that their recipe asked for, or stored bits that are alike."""
    asked = dict.fromkeys(row.match for contest in contests for row in contest.rows)
    alike = f"stored bits within {100 * ONE_SIZE:.0f} %"
    targets = (
        f"{each.bits_per_weight:g} ± {each.tolerance:g} stored bits/weight" if each else alike for each in asked
    )
    return " or ".join(targets)


def _noise_floors(contests: Sequence[Contest]) -> str:
    """`: perplexity 0.0004 nats (bfloat16)` for each metric, the columns' largest; nothing if none was measured.

    On which items it was measured, if not on all.
    """
    rows: dict[Metric, list[Row]] = {}
    for contest in contests:
        rows.setdefault(contest.metric, []).extend(contest.rows)
    found = [(metric, *metric.floor(each)) for metric, each in rows.items()]
    floors = ", ".join(f"{metric.name} {_moved(metric, by)} ({change})" for metric, by, change in found if change)
    first = any(row.task and row.task.scored_items > NOISE_ITEMS for each in rows.values() for row in each)
    return f"{f', first {NOISE_ITEMS} items' if first else ''}: {floors}" if floors else ""


def _moved(metric: Metric, by: float) -> str:
    return f"{by:.2g} nats" if metric.name in WINDOWS else f"{100 * by:.2g} points"
