"""Rows that differ in nothing but their seed: one line of a table."""

import json
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from suite.results import DENSE, Row

Item = TypeVar("Item")


@dataclass(frozen=True)
class Entry:
    """One method at one setting on one model and budget, with every seed and protocol that it was measured by."""

    rows: tuple[Row, ...]

    @property
    def first(self) -> Row:
        """The row that names the entry."""
        return self.rows[0]

    @property
    def dense(self) -> bool:
        """The uncompressed model, with which everything is compared."""
        return self.first.method == DENSE

    @property
    def ok(self) -> list[Row]:
        """The rows that have numbers."""
        return [row for row in self.rows if row.status == "ok"]

    @property
    def off_budget(self) -> Row | None:
        """A row whose size is not the one asked of every entry."""
        return next((row for row in self.ok if row.off_budget), None)

    @property
    def label(self) -> str:
        """`Wanda 2:4 (sequential)`."""
        return self._in_mode(self.first.label)

    @property
    def label_without_layers(self) -> str:
        """The same of all entries that differ in the linears which they compress."""
        return self._in_mode(f"{self.first.title} {self.pattern}".rstrip())

    @property
    def pattern(self) -> str:
        """`2:4`, `2 bits d4`: the settings in print, without the linears that are compressed."""
        return self.first.variant.removesuffix(f"on {self.first.layers}").rstrip()

    def _in_mode(self, name: str) -> str:
        mode = self.first.statistics_mode
        return name if mode == "none" else f"{name} ({mode})"

    def seeds(self, rows: Sequence[Row] | None = None) -> int:
        """How many seeds these rows of the entry have; all of its rows unless some are given."""
        return len({row.seed for row in (self.rows if rows is None else rows)})

    @property
    def troubles(self) -> list[str]:
        """Why rows have no numbers, each reason once: `1 of 3 seeds: void: the model's output is not finite`."""
        why = grouped([row for row in self.rows if row.status != "ok"], _reason)
        return [f"{self._which(rows)}{_reason(rows[0])}" for rows in why]

    def _which(self, rows: Sequence[Row]) -> str:
        """Which protocols and seeds these rows are of, unless they are of all."""
        names = dict.fromkeys(row.protocol_name for row in rows)
        protocols = "" if len(names) == len({row.protocol_name for row in self.rows}) else ", ".join(names) + ": "
        several = self.seeds() > 1
        return protocols + (f"{self.seeds(rows)} of {self.seeds()} seeds: " if several else "")


def entries(rows: Sequence[Row]) -> list[Entry]:
    """Rows by everything but their seed and protocol, the dense model first and then in the rows' order.

    A seed that comes twice under one protocol (two releases of a method, two draws of one budget) makes another
    entry: nothing is averaged that is not another seed.
    """
    times: Counter[Hashable] = Counter()

    def key(row: Row) -> Hashable:
        settings = json.dumps(row.settings, sort_keys=True)
        how = (row.method, row.revision, settings, row.statistics_mode, row.layers)
        shared = (row.model_fingerprint, *how, row.calibration)
        once = (*shared, row.seed, row.protocol_id)
        times[once] += 1
        return (*shared, times[once])

    found = [Entry(tuple(each)) for each in grouped(rows, key)]
    return sorted(found, key=lambda entry: not entry.dense)


def grouped(items: Sequence[Item], key: Callable[[Item], Hashable]) -> list[list[Item]]:
    """Items of equal keys together, rows for one, in the order in which the keys first appear."""
    groups: dict[Hashable, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def names(found: Sequence[Entry]) -> list[str]:
    """Their labels, each with its model where they are of several: `Wanda 2:4 (sequential) on smollm2-135m`."""
    several = len({(entry.first.model, entry.first.model_fingerprint) for entry in found}) > 1
    return [f"{entry.label} on {entry.first.model}" if several else entry.label for entry in found]


def weights(row: Row) -> str:
    """The model and which weights it had: `smollm2-135m (weights 32c4b448)`."""
    return f"{row.model} (weights {row.model_fingerprint[:8]})"


def _reason(row: Row) -> str:
    return f"{row.status}: {row.reason or 'no reason given'}"
