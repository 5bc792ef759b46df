"""One setting at several values, everything else equal: how far the KL to the dense model moves."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pandas as pd

from reports.compare import APART, Verdict, verdicts_on
from reports.entries import grouped
from reports.statistics import LEVEL
from studies.conclusion import Conclusion
from suite.results import Row

METRIC = "kl"
SAME_SIZE = 0.0005  # stored bits per weight, less than a table shows


@dataclass(frozen=True)
class Axis:
    """What a study varies: its name, a row's value of it or None, and the value that others are compared with."""

    name: str
    value: Callable[[Row], str | None]
    usual: str

    def apart_from(self, row: Row) -> tuple[str, str]:
        """What rows share that differ in this axis alone, or in the seed: the method and its other settings."""
        others = {name: setting for name, setting in row.settings.items() if name != self.name}
        return row.method, json.dumps([others, row.calibration, row.layers], sort_keys=True)


@dataclass(frozen=True)
class Moved:
    """One method: its rows at each value of an axis that it has."""

    at: Mapping[str, Sequence[Row]]
    usual: str
    verdicts: Mapping[str, Verdict]  # on other values against the usual one

    @property
    def method(self) -> str:
        """`Wanda 50%`: the published value of a setting adds nothing to a label, so the shortest."""
        return min((row.label for rows in self.at.values() for row in rows), key=len)

    def ratio(self, value: str) -> float | None:
        """The KL at a value as a multiple of that at the usual one; None where either is missing."""
        known = value in self.at and self.usual in self.at
        return kl(self.at[value]) / kl(self.at[self.usual]) if known else None

    def apart(self, value: str) -> bool:
        """Whether the two KLs can be told apart; both are there."""
        return self.verdicts[value].word != APART


def kl(rows: Sequence[Row]) -> float:
    """Mean KL to the dense model over rows that differ in the seed, nats per token."""
    return fmean(row.quality.kl_mean for row in rows if row.quality and row.quality.kl_mean is not None)


def stored_bits(rows: Sequence[Row]) -> float:
    """Mean stored bits per weight."""
    return fmean(row.size.stored_bits_per_weight for row in rows if row.size)


def contrast(rows: Sequence[Row], axis: Axis) -> Conclusion:
    """A line for each method: the KL at each value, ratios to the usual one's, and which cannot be told apart."""
    placed = [row for row in rows if axis.value(row)]
    others = [value for value in _at(placed, axis) if value != axis.usual]
    methods = _judged([_at(part, axis) for part in grouped(placed, axis.apart_from)], axis.usual, others)
    table = pd.DataFrame([_line(moved, others) for moved in methods])
    sentences = [_sentence(methods, value) for value in others]
    told = [how_told(placed)] if any(moved.verdicts for moved in methods) else []
    return Conclusion((*sentences, *told), {"KL by method": table})


def how_told(rows: Sequence[Row]) -> str:
    """What verdicts on these rows, at least one of them with windows, rest on, and what they leave open."""
    windows = min(len(row.quality.window_kl) for row in rows if row.quality)
    seeds = len({row.seed for row in rows if row.calibration})
    over = f"windows and {seeds} seeds" if seeds > 1 else "windows"
    alone = "; one seed, so of this draw of calibration tokens alone" if seeds == 1 else ""
    return f"Told apart by KL: paired bootstrap over {windows} {over}, Holm, {100 * LEVEL:.0f} %{alone}."


def _judged(found: Sequence[Mapping[str, Sequence[Row]]], usual: str, others: Sequence[str]) -> list[Moved]:
    """Methods by their values, with a verdict on each that can be compared; p by Holm over all of them."""
    known = [[value for value in others if {usual, value} <= at.keys()] for at in found]
    pairs = [(at[value], at[usual]) for at, values in zip(found, known, strict=True) for value in values]
    told = iter(verdicts_on(pairs, METRIC))
    return [
        Moved(at, usual, {value: next(told) for value in values}) for at, values in zip(found, known, strict=True)
    ]


def _at(rows: Sequence[Row], axis: Axis) -> dict[str, list[Row]]:
    return {value: [row for row in rows if axis.value(row) == value] for row in rows if (value := axis.value(row))}


def _line(moved: Moved, others: Sequence[str]) -> dict[str, Any]:
    ratios = {value: ratio for value in others if (ratio := moved.ratio(value)) is not None}
    sizes = [stored_bits(rows) for rows in moved.at.values()]
    return {
        "method": moved.method,
        "stored bits/weight": " to ".join(dict.fromkeys(f"{bits:.3f}" for bits in (min(sizes), max(sizes)))),
        **{f"KL {value}": kl(moved.at[value]) for value in (moved.usual, *others) if value in moved.at},
        **{f"{value} / {moved.usual}": ratio for value, ratio in ratios.items()},
        f"not told apart from {moved.usual}": ", ".join(value for value in ratios if not moved.apart(value)),
    }


def _sentence(methods: Sequence[Moved], value: str) -> str:
    """How far one value moves the methods, and how many of them beyond doubt."""
    usual = methods[0].usual
    ratios = [(ratio, moved) for moved in methods if (ratio := moved.ratio(value)) is not None]
    if not ratios:
        return f"{value}: no method has been measured both with it and with {usual}."
    (low, least), (high, most) = min(ratios, key=lambda pair: pair[0]), max(ratios, key=lambda pair: pair[0])
    apart = sum(moved.apart(value) for _, moved in ratios)
    return (
        f"{value} has {low:.3f} ({least.method}) to {high:.3f} ({most.method}) times the KL of {usual}; "
        f"{apart} of {len(ratios)} methods can be told apart.{_larger([moved for _, moved in ratios], value)}"
    )


def _larger(methods: Sequence[Moved], value: str) -> str:
    """How many bits more a value stores, which may be why its KL is lower; nothing where that is the same."""
    more = [stored_bits(moved.at[value]) - stored_bits(moved.at[moved.usual]) for moved in methods]
    if max(map(abs, more)) < SAME_SIZE:
        return ""
    return f" Stored bits per weight change by {min(more):+.3f} to {max(more):+.3f}."
