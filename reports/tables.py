"""A table as numbers: a line for each entry, means over its seeds, intervals, marks, and what is said below.

Which columns a table has is for others to say: `reports.comparisons`, `reports.coverage`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from statistics import fmean

import pandas as pd

from reports.compare import Metric
from reports.entries import Entry
from reports.marks import OFF_BUDGET, Contest, mark_note, off_budget_notes
from reports.statistics import interval_over_seeds
from reports.wording import Caption
from suite.results import Row

SEEDS = "seeds"
OVER_SEEDS = "±: half of the 95 % interval of the mean over seeds (Student's t)."
LOGARITHM = "Perplexity: mean of the logarithm over seeds."
OVER_ITEMS = "±: standard error over items."

Values = Callable[[Sequence[Row]], list[float]]  # of an entry's rows: one number for each seed that has it


@dataclass(frozen=True)
class Column:
    """What stands under one header, and by what its entries can be told apart."""

    header: str
    values: Values
    decimals: int = 2
    varies: bool = False  # with what a seed draws: printed with its interval over seeds
    errors: Values | None = None  # standard errors over items
    protocol_id: str | None = None  # of the rows that it is about; None is any
    metric: Metric | None = None
    protocols: int = 1  # that a seed must have been measured by to take part
    log: bool = False  # the values are logarithms of what is printed
    levels: tuple[str, ...] = ()  # the header below its groups, the widest first; empty: the header alone

    def rows(self, entry: Entry) -> list[Row]:
        """The rows of the entry that have numbers for this column."""
        return [row for row in entry.ok if self.protocol_id in (None, row.protocol_id)]

    def number(self, entry: Entry) -> float:
        """The mean over the entry's seeds, of logarithms their exp; NaN when no seed has it."""
        values = self.values(self.rows(entry))
        mean = fmean(values) if values else math.nan
        return math.exp(mean) if self.log else mean

    def half_width(self, entry: Entry, over_seeds: bool) -> float:
        """What stands after ±: the interval over seeds, or else the standard error over items."""
        rows = self.rows(entry)
        if over_seeds:
            half = interval_over_seeds(self.values(rows)) if self.varies else math.nan
            return half * self.number(entry) if self.log else half
        return next(iter(self.errors(rows)), math.nan) if self.errors else math.nan

    def contest(self, lines: Sequence[Entry]) -> Contest | None:
        """The entries with all numbers, if they can be told apart by them, less dense and what is off budget."""
        sides = {
            line: self.rows(entry) for line, entry in enumerate(lines) if not (entry.dense or entry.off_budget)
        }
        whole = {
            line: rows
            for line, rows in sides.items()
            if rows and len(rows) == self.protocols * lines[line].seeds(rows)
        }
        return Contest(self.metric, whole) if self.metric else None


@dataclass(frozen=True, eq=False)
class Table:
    """A table before any ink. All frames have a line for each entry; a missing number is NaN."""

    name: str  # of its files
    caption: Caption
    entries: tuple[Entry, ...]
    labels: pd.DataFrame  # text
    numbers: pd.DataFrame
    half_widths: pd.DataFrame  # columns as in `numbers`: what stands after ±
    best: pd.DataFrame  # columns as in `numbers`: True where the entry is marked
    decimals: dict[str, int]  # by header
    levels: dict[str, tuple[str, ...]]  # by header: how it is printed, the widest group first
    marks: (
        pd.DataFrame
    )  # columns as in `numbers`: signs beside a number, or in place of one, that the notes explain
    notes: tuple[str, ...]  # below the table
    mark_note: str  # what a mark means; empty where nothing is marked

    @property
    def headers(self) -> list[str]:
        """Of the columns of numbers, left to right."""
        return list(self.decimals)

    @property
    def frame(self) -> pd.DataFrame:
        """Labels and numbers side by side."""
        return pd.concat([self.labels, self.numbers], axis=1)

    @property
    def names(self) -> list[list[str]]:
        """For each entry the labels that say something, for where they share one column."""
        return [[cell for cell in cells if cell not in ("", "none")] for cells in self.labels.to_numpy().tolist()]

    @property
    def reasons(self) -> list[str]:
        """For each entry why it has no numbers at all; empty when it has."""
        return ["" if entry.ok else "; ".join(entry.troubles) for entry in self.entries]

    @property
    def model_notes(self) -> list[str]:
        """What a reader must know of the model."""
        return list(dict.fromkeys(note for entry in self.entries if (note := entry.first.model_note)))

    def below(self, mark: str) -> list[str]:
        """The notes, the last of them on what `mark` means."""
        meaning = f"{mark} {self.mark_note}" if self.best.any(axis=None) else self.mark_note
        return [*self.notes, *([meaning] if meaning else [])]

    def printed(self) -> pd.DataFrame:
        """The numbers as text, the same in every medium; a missing one is an en dash."""
        return self._printed(self.numbers, "", "–")

    def printed_half_widths(self) -> pd.DataFrame:
        """`±1.2`, or nothing."""
        return self._printed(self.half_widths, "±", "")

    def _printed(self, numbers: pd.DataFrame, sign: str, missing: str) -> pd.DataFrame:
        def text(value: float, decimals: int) -> str:
            if math.isnan(value):
                return missing
            return sign + (f"{value:.2e}" if abs(value) >= 1e6 else f"{value:,.{decimals}f}")

        return pd.DataFrame(
            {
                header: [text(value, places) for value in numbers[header]]
                for header, places in self.decimals.items()
            },
            dtype=object,
        )


def tabulate(name: str, caption: Caption, lines: Sequence[Entry], columns: Sequence[Column]) -> Table:
    """The table of these entries, in this order: labels, numbers, intervals, marks and notes."""
    over_seeds = any(entry.seeds() > 1 for entry in lines)
    if over_seeds:
        columns = [Column(SEEDS, lambda rows: [len({row.seed for row in rows})], decimals=0), *columns]
    contests = {column.header: contest for column in columns if (contest := column.contest(lines))}
    best = {column.header: _best(contests.get(column.header), len(lines)) for column in columns}
    half_widths = pd.DataFrame(
        {column.header: [column.half_width(entry, over_seeds) for entry in lines] for column in columns}
    )
    partial = [f"{entry.label}: {trouble}" for entry in lines if entry.ok for trouble in entry.troubles]
    means = [LOGARITHM] if over_seeds and any(column.log for column in columns) else []
    plus_minus = OVER_SEEDS if over_seeds else OVER_ITEMS
    return Table(
        name=name,
        caption=caption,
        entries=tuple(lines),
        labels=_labels(lines),
        numbers=pd.DataFrame({column.header: [column.number(entry) for entry in lines] for column in columns}),
        half_widths=half_widths,
        best=pd.DataFrame(best),
        decimals={column.header: column.decimals for column in columns},
        levels={column.header: column.levels or (column.header,) for column in columns},
        marks=pd.DataFrame("", index=range(len(lines)), columns=[column.header for column in columns]),
        notes=(
            *partial,
            *off_budget_notes(lines),
            *([f"Layers are named without {prefix}"] if (prefix := _layers_prefix(lines)) else []),
            *means,
            *([plus_minus] if half_widths.notna().any(axis=None) else []),
        ),
        mark_note=mark_note(list(contests.values())),
    )


def _best(contest: Contest | None, lines: int) -> list[bool]:
    marked = contest.best if contest else set()
    return [line in marked for line in range(lines)]


def _labels(lines: Sequence[Entry]) -> pd.DataFrame:
    """What tells an entry from the others; budget and layers only where there are several."""
    first = [entry.first for entry in lines]
    labels = {
        "method": [row.title for row in first],
        "pattern or bits": [
            f"{entry.pattern} {OFF_BUDGET if entry.off_budget else ''}".strip() for entry in lines
        ],
        "statistics": [row.statistics_mode for row in first],
    }
    if any(row.layers for row in first):
        prefix = _layers_prefix(lines)
        labels["layers"] = ["" if entry.dense else _shortened(entry.first.layers, prefix) for entry in lines]
    if len({row.calibration for row in first if row.calibration}) > 1:
        labels["calibration"] = [row.calibration or "none" for row in first]
    return pd.DataFrame(labels, dtype=object)


def _layers_prefix(lines: Sequence[Entry]) -> str:
    """`model.layers.`, if all that the entries name as layers begins with it; nothing where it is one name."""
    patterns = {pattern for entry in lines for pattern in (entry.first.layers or "").split()}
    common = commonprefix(list(patterns)) if len(patterns) > 1 else ""
    return common[: common.rfind(".") + 1]


def _shortened(layers: str | None, prefix: str) -> str:
    return " ".join(pattern.removeprefix(prefix) for pattern in layers.split()) if layers else "all"
