"""Entries of one size against each other: what a table marks, as something to tell."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from reports.alike import by_budget, by_model, by_protocol
from reports.columns import Column, kl, perplexity, task_columns
from reports.compare import size_classes
from reports.entries import Entry, entries
from reports.marks import Contest
from reports.statistics import FEWEST_UNITS
from suite.results import DENSE, Row


@dataclass(frozen=True)
class Field:
    """The entries of one table that have a size and a number, dense and what is off budget left out."""

    entries: Sequence[Entry]
    column: Column
    contest: Contest

    @cached_property
    def numbers(self) -> dict[int, float]:
        """By line, as the table prints them."""
        found = {line: self.column.number(self.entries[line]) for line in self.contest.sides}
        return {line: number for line, number in found.items() if not math.isnan(number)}

    @property
    def decided(self) -> bool:
        """Whether there are enough windows or items to tell entries apart."""
        return self.contest.units >= FEWEST_UNITS

    def races(self) -> list["Race"]:
        """Entries of one size, the best first; smallest size first."""
        sign = 1 if self.contest.metric.lower_is_better else -1
        classes = size_classes({line: self.contest.sides[line] for line in self.numbers})
        return [Race(self, sorted(lines, key=lambda line: sign * self.numbers[line])) for lines in classes]


@dataclass(frozen=True)
class Race:
    """Lines of one size class, the best first."""

    field: Field
    lines: Sequence[int]

    @property
    def best(self) -> list[Entry]:
        """Those that the table marks, the first of all first; it alone where nothing is marked."""
        marked = [line for line in self.lines[1:] if line in self.field.contest.best]
        return [self.field.entries[line] for line in (self.lines[0], *marked)]

    @property
    def of_one_method(self) -> bool:
        """Whether only settings of one method stand against each other."""
        return len({self.field.entries[line].first.title for line in self.lines}) == 1

    @property
    def number(self) -> str:
        """The best."""
        return f"{self.field.numbers[self.lines[0]]:,.{self.field.column.decimals}f}"

    @property
    def smallest(self) -> float:
        """Stored bits per weight of the smallest."""
        return min(self._stored)

    @property
    def bits(self) -> str:
        """Stored by the smallest and, where it differs in print, the largest."""
        return " to ".join(dict.fromkeys(f"{bits:.2f}" for bits in (min(self._stored), max(self._stored))))

    @property
    def _stored(self) -> list[float]:
        rows = [row for line in self.lines for row in self.field.contest.sides[line]]
        return [row.size.stored_bits_per_weight for row in rows if row.size]


def fields(rows: Sequence[Row]) -> Iterator[Field]:
    """One for each protocol and budget by KL or perplexity; of a model without either for each task."""
    measured = [row for row in rows if row.status == "ok" and row.size]
    for model in by_model(measured):
        told = [row for row in model if row.quality] or model
        for part in (piece for protocol in by_protocol(told) for piece in by_budget(protocol)):
            lines = entries(part)
            for column in _columns(part):
                if contest := column.contest(lines):
                    yield Field(lines, column, contest)
                    break


def _columns(rows: Sequence[Row]) -> list[Column]:
    """By what entries are judged, best first: KL where every compressed row has it."""
    first = rows[0]
    if first.task:
        return task_columns(first.protocol_id, first.task)
    with_kl = all(row.quality and row.quality.kl_mean is not None for row in rows if row.method != DENSE)
    return [kl()] if with_kl else [perplexity("perplexity")]
