"""Rows to verdicts: which of two entries is better on the same windows or items, and when that cannot be told.

An entry is the rows of one cell over seeds: same method, settings, budget and model. Two entries can be compared
where the same tokens were scored for both, unit by unit; so nothing here compares two protocols or two tokenizers.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal, TypeVar

import numpy as np

from reports.statistics import LEVEL, Array, Difference, holm, paired
from suite.errors import ResultError
from suite.results import BitsTarget, Row

Word = Literal["better", "worse", "cannot be told apart"]
APART: Word = "cannot be told apart"
WINDOWS = {"perplexity": ("window_nll", "nll"), "kl": ("window_kl", "kl")}  # field of quality, figure of the noise
ONE_SIZE = 0.05  # entries whose stored bits differ by at most this share compete with each other
SHOWN = 5  # candidates that a message names
MOST_NATS = 700.0  # a row's perplexity is e to at most this power
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Metric:
    """`perplexity`, `kl`, or a metric of a task that is right or wrong for each item."""

    name: str

    @property
    def lower_is_better(self) -> bool:
        """True on windows, False on a task's items."""
        return self.name in WINDOWS

    @property
    def unit(self) -> str:
        """What is resampled: `windows` or `items`."""
        return "windows" if self.name in WINDOWS else "items"

    def units(self, row: Row) -> Array:
        """One number for each unit [units]: nats per token of a window, or 1.0 and 0.0 for an item."""
        if row.quality is not None and self.name in WINDOWS:
            totals = np.array(getattr(row.quality, WINDOWS[self.name][0]), dtype=float)
            return totals / (row.quality.scored_tokens / len(totals))  # all windows are equally long
        if row.task is not None and self.name in row.task.items:
            return np.frombuffer(row.task.items[self.name].encode(), np.uint8).astype(float) - ord("0")
        raise ValueError(f"row {row.row_id} has no {self.name}; it has {', '.join(metrics_of(row)) or 'nothing'}")

    def mean(self, rows: Sequence[Row]) -> float:
        """Over units, and then over seeds and tasks."""
        return fmean(float(self.units(row).mean()) for row in rows)

    def loss(self, rows: Sequence[Row]) -> float:
        """The mean, negated where higher is better."""
        return self.mean(rows) if self.lower_is_better else -self.mean(rows)

    def value(self, mean: float) -> float:
        """As tables print it: the perplexity of a mean in nats, any other mean as it is."""
        return _exp(mean) if self.name == "perplexity" else mean

    def floor(self, rows: Sequence[Row]) -> tuple[float, str]:
        """How far the dense model's figure moved at most, and by what change; (0, "") if it was not measured."""
        figure = WINDOWS[self.name][1] if self.name in WINDOWS else self.name
        moved = [(moves[figure], change) for row in rows for change, moves in row.noise.items() if figure in moves]
        return max(moved, default=(0.0, ""))


@dataclass(frozen=True)
class Verdict:
    """How entry a did against entry b by one metric."""

    metric: str
    value_a: float  # as a table prints it; an accuracy is a share
    value_b: float
    difference: Difference  # a - b in nats per token, or as a share of the items
    p: float  # adjusted by Holm over the comparisons made together
    floor: float  # the measured noise, in the difference's unit; 0 if not measured

    @property
    def word(self) -> Word:
        """Better, worse, or neither can be said, from a's side and at the level of 5 %."""
        if self.why:
            return APART
        lower = self.difference.estimate < 0
        return "better" if lower == Metric(self.metric).lower_is_better else "worse"

    @property
    def why(self) -> str:
        """Why the two cannot be told apart, in a phrase; empty if they can."""
        found = self.difference
        if found.low == found.high == 0:
            return "identical"
        if found.too_few:
            return f"{found.units} {Metric(self.metric).unit} are too few"
        if self.p >= LEVEL:
            return f"p {self.p:.2g}"
        if abs(found.estimate) <= self.floor:
            return f"difference {abs(found.estimate):.2g} is within the noise floor {self.floor:.2g}"
        return ""

    @property
    def ratio(self) -> tuple[float, float, float] | None:
        """a's perplexity as a multiple of b's, and its 95 % interval; None for other metrics."""
        if self.metric != "perplexity":
            return None
        found = self.difference
        return _exp(found.estimate), _exp(found.low), _exp(found.high)


def metrics_of(row: Row) -> list[str]:
    """Names of the metrics by which a row can be compared; rows of schema 1 have no KL of each window."""
    windows = [name for name, (field, _) in WINDOWS.items() if row.quality and getattr(row.quality, field)]
    return windows + (list(row.task.items) if row.task else [])


def compare(a: Sequence[Row], b: Sequence[Row]) -> list[Verdict]:
    """Entry a against entry b, one verdict for each metric that all rows have; p by Holm over these metrics.

    Seeds are paired where both entries have the same ones. Raises ResultError if a row is not ok, or if the rows
    differ in protocol or in the tokens that were scored, or have no metric in common.
    """
    _check_comparable([*a, *b])
    names = [name for name in metrics_of(a[0]) if all(name in metrics_of(row) for row in (*a, *b))]
    if not names:
        raise ResultError(
            f"rows {a[0].row_id} and {b[0].row_id} share no metric with a number for each window or item; "
            "`nowag-bench evaluate` measures a cell again"
        )
    return _adjusted([_verdict(Metric(name), a, b) for name in names])


def verdicts_on(pairs: Sequence[tuple[Sequence[Row], Sequence[Row]]], metric: str) -> list[Verdict]:
    """The first entry of each pair against the second by one metric, p by Holm over all the pairs.

    Raises ResultError where `compare` does.
    """
    for a, b in pairs:
        _check_comparable([*a, *b])
    return _adjusted([_verdict(Metric(metric), a, b) for a, b in pairs])


def standings(entries: Mapping[Key, Sequence[Row]], metric: str) -> dict[Key, Verdict | None]:
    """Each entry against the best of its size class, p by Holm over the comparisons of the class.

    So a verdict is the same in every table that holds the class, whatever else stands there. None is for the best
    itself, and for an entry alone in its class. Entries that do not have the metric, or have a row that is not ok,
    are left out. The dense model is the caller's to leave out. Rows of several tasks are judged by the mean over
    the tasks; then every entry has every task under each of its seeds.
    Raises ResultError if two entries of one class were not scored on the same tokens.
    """
    present = {key: rows for key, rows in entries.items() if _has(rows, metric)}
    told: dict[Key, Verdict | None] = dict.fromkeys(present)
    for members in size_classes(present):
        told |= _against_the_best({key: present[key] for key in members}, Metric(metric))
    return told


def _against_the_best(members: Mapping[Key, Sequence[Row]], metric: Metric) -> dict[Key, Verdict]:
    """Verdicts on all entries of one class but the best."""
    best = min(members, key=lambda key: metric.loss(members[key]))
    others = [key for key in members if key != best]
    for key in others:
        together = [*members[key], *members[best]]
        for protocol in {row.protocol_id for row in together}:
            _check_comparable([row for row in together if row.protocol_id == protocol])
    verdicts = _adjusted([_verdict(metric, members[key], members[best]) for key in others])
    return dict(zip(others, verdicts, strict=True))


def size_classes(entries: Mapping[Key, Sequence[Row]]) -> list[list[Key]]:
    """Keys of entries whose stored bits per weight are within 5 % of the smallest of their class, smallest first.

    Entries that have the size that their recipe asked for are one class, however far apart it lets them be.
    Entries of an N:M pattern compete among themselves: the pattern is chosen for its speed, not for its size.
    So do those that compress the same layers.
    Raises ValueError if a row has no size.
    """
    kinds: dict[tuple[str | None, str | None, BitsTarget | None], list[Key]] = {}
    for key in sorted(entries, key=lambda key: _bits(entries[key])):
        rows = entries[key]
        kinds.setdefault((rows[0].layers, pattern(rows[0]), _asked(rows)), []).append(key)
    classes: list[list[Key]] = []
    for (_, _, asked), alike in kinds.items():
        classes += [alike] if asked else _within(alike, entries)
    return sorted(classes, key=lambda members: _bits(entries[members[0]]))


def pattern(row: Row) -> str | None:
    """`2:4` for a method set to it; None for all that is free to keep any weight."""
    sparsity = row.settings.get("sparsity")
    return sparsity if isinstance(sparsity, str) else None


def best_set(entries: Mapping[Key, Sequence[Row]], metric: str) -> set[Key]:
    """Keys of the best of each size class and of all that `standings` cannot tell apart from it.

    An entry alone in its class has beaten nothing and is not among them.
    """
    verdicts = standings(entries, metric)
    classes = size_classes({key: entries[key] for key in verdicts})
    rivals = [key for members in classes if len(members) > 1 for key in members]
    return {key for key in rivals if (verdict := verdicts[key]) is None or verdict.word == APART}


def find_row(rows: Sequence[Row], text: str) -> Row:
    """The row whose row_id is `text` or, alone among the rows, begins with it. Raises ResultError otherwise."""
    found = [row for row in rows if row.row_id == text] or [row for row in rows if row.row_id.startswith(text)]
    if len(found) == 1:
        return found[0]
    candidates = found or rows
    named = ", ".join(f"{row.row_id} ({row.label}, {row.protocol_name})" for row in candidates[:SHOWN])
    more = f" and {len(candidates) - SHOWN} more" if len(candidates) > SHOWN else ""
    wrong = f"{len(found)} rows begin with {text!r}" if found else f"no row {text!r}"
    raise ResultError(f"{wrong}; give a row_id or a beginning that only one has: {named}{more}")


def _check_comparable(rows: Sequence[Row]) -> None:
    first = rows[0]
    for row in rows:
        if row.status != "ok":
            raise ResultError(
                f"row {row.row_id} ({row.label}) is {row.status}: {row.reason or 'no reason given'}; "
                "only rows that are ok can be compared"
            )
        if row.protocol_id != first.protocol_id:
            names = [
                f"{one.row_id} under {one.protocol_name} (protocol {one.protocol_id[:8]})" for one in (first, row)
            ]
            raise ResultError(
                f"rows of two protocols: {' and '.join(names)}; "
                "measure one cell under the other's with `nowag-bench evaluate`"
            )
        if row.evaluated_tokens != first.evaluated_tokens:
            raise ResultError(
                f"rows {first.row_id} and {row.row_id} have one protocol, {row.protocol_name}, but not the same "
                "tokens (another tokenizer or text), so windows cannot be paired; choose rows of one model"
            )


def _verdict(metric: Metric, a: Sequence[Row], b: Sequence[Row]) -> Verdict:
    """The verdict with its plain p."""
    same_seeds = {row.seed for row in a} == {row.seed for row in b}
    found = paired(_strata(metric, a), _strata(metric, b), seeds_paired=same_seeds)
    values = [metric.value(metric.mean(side)) for side in (a, b)]
    return Verdict(metric.name, values[0], values[1], found, found.p, metric.floor([*a, *b])[0])


def _strata(metric: Metric, rows: Sequence[Row]) -> list[Array]:
    """Each protocol's numbers [seeds, units], seeds and protocols in one order whatever that of the rows."""
    ordered = sorted(rows, key=lambda row: (row.protocol_id, row.seed))
    protocols = dict.fromkeys(row.protocol_id for row in ordered)
    return [np.stack([metric.units(row) for row in ordered if row.protocol_id == one]) for one in protocols]


def _exp(nats: float) -> float:
    """The perplexity, or the ratio of two; a ruined model's would be more than a float can hold."""
    return math.exp(min(nats, MOST_NATS))


def _adjusted(verdicts: list[Verdict]) -> list[Verdict]:
    adjusted = holm([verdict.p for verdict in verdicts])
    return [replace(verdict, p=p) for verdict, p in zip(verdicts, adjusted, strict=True)]


def _has(rows: Sequence[Row], metric: str) -> bool:
    return bool(rows) and all(row.status == "ok" and row.size and metric in metrics_of(row) for row in rows)


def _asked(rows: Sequence[Row]) -> BitsTarget | None:
    """The size that was asked of an entry, if it has it."""
    return None if any(row.off_budget for row in rows) else rows[0].match


def _within(keys: Sequence[Key], entries: Mapping[Key, Sequence[Row]]) -> list[list[Key]]:
    """Keys, smallest entry first, in classes of at most 5 % each."""
    classes: list[list[Key]] = []
    limit = -math.inf
    for key in keys:
        bits = _bits(entries[key])
        if bits > limit:
            classes.append([])
            limit = bits * (1 + ONE_SIZE)
        classes[-1].append(key)
    return classes


def _bits(rows: Sequence[Row]) -> float:
    sizes = [row.size.stored_bits_per_weight for row in rows if row.size]
    if len(sizes) != len(rows):
        raise ValueError(f"row {rows[0].row_id}: without a size there is no size class")
    return fmean(sizes)
