"""A table as numbers: a line for each entry, means over its seeds, intervals, marks, and what is said below.

Which lines and columns a table has is for others to say: `reports.grids`, `reports.comparisons` and so on.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from os.path import commonprefix

import pandas as pd

from reports.budgets import budget_of
from reports.columns import HIGHER, LOWER, Column
from reports.entries import Entry, entries
from reports.marks import MISSING, OFF_BUDGET, Contest, mark_note
from reports.naming import budget_file, names_of_files
from reports.notes import off_budget_notes, seeds_notes, trouble_notes
from reports.wording import Caption

SEEDS = "seeds"
OVER_SEEDS = "±: half of the 95 % interval of the mean over seeds (Student's t)."
LOGARITHM = "Perplexity: exp of the mean logarithm over seeds; ± is that of the logarithm, times the perplexity."
OVER_ITEMS = "±: standard error over items."


@dataclass(frozen=True, eq=False)
class Table:
    """A table before any ink. All frames have a line for each entry; a missing number is NaN."""

    name: str  # of its files
    caption: Caption
    entries: tuple[Entry, ...]  # the lines; in a grid those of one method, whatever its pattern and model
    labels: pd.DataFrame  # text
    numbers: pd.DataFrame
    half_widths: pd.DataFrame  # columns as in `numbers`: what stands after ±
    best: pd.DataFrame  # columns as in `numbers`: True where the entry is marked
    decimals: dict[str, int]  # by header
    levels: dict[str, tuple[str, ...]]  # by header: how it is printed, the widest group first
    marks: pd.DataFrame  # columns as in `numbers`: signs, beside a number or in its place, that the notes explain
    parts: dict[str, tuple[Entry, ...]]  # by header, for each line: the rows that the column is about
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
        """For each entry the first label and those that say something, for where they share one column."""
        return [
            [first, *(cell for cell in rest if cell not in ("", "none"))]
            for first, *rest in self.labels.to_numpy().tolist()
        ]

    @property
    def row_ids(self) -> list[list[str]]:
        """For each entry the ids of all its rows."""
        return [[row.row_id for row in entry.rows] for entry in self.entries]

    @property
    def reasons(self) -> list[str]:
        """For each entry why it has no numbers at all; empty where it has, or where marks and notes tell."""
        told = (self.marks != "").any(axis=1)
        return [
            "" if entry.ok or marked else "; ".join(entry.troubles)
            for entry, marked in zip(self.entries, told, strict=True)
        ]

    def missing(self) -> list[str]:
        """`QuIP# 2 bits: unsupported: ...` for each entry without any number."""
        return [f"{entry.label}: {why}" for entry, why in zip(self.entries, self.reasons, strict=True) if why]

    def below(self, mark: str) -> list[str]:
        """The notes, the last of them on what `mark` means."""
        meaning = f"{mark} {self.mark_note}" if self.best.any(axis=None) else self.mark_note
        return [*self.notes, *([meaning] if meaning else [])]

    def tidy(self) -> pd.DataFrame:
        """A line for each entry and column, at full precision: what a program reads.

        `level 1` and so on are the column's groups, where there are any, the widest first. `seeds` have a number;
        `reason` says why others have none; `row_ids` are joined by blanks.
        """
        columns = [self._tidy(header) for header in self.headers]
        return pd.concat(columns).sort_index(kind="stable", ignore_index=True) if columns else self.labels

    def _tidy(self, header: str) -> pd.DataFrame:
        groups = [level.rstrip(f" {LOWER}{HIGHER}") for level in self.levels[header]]
        found = {"value": self.numbers, "half_width": self.half_widths, "best": self.best, "mark": self.marks}
        parts = self.parts[header]
        return self.labels.assign(
            **({f"level {depth}": level for depth, level in enumerate(groups, 1)} if len(groups) > 1 else {}),
            column=header,
            **{name: frame[header] for name, frame in found.items()},
            seeds=[part.seeds(part.ok) for part in parts],
            reason=["; ".join(part.troubles) for part in parts],
            row_ids=[" ".join(row.row_id for row in part.rows) for part in parts],
        )

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


def tabulate(
    name: str,
    caption: Caption,
    lines: Sequence[Entry],
    columns: Sequence[Column],
    labels: pd.DataFrame | None = None,
) -> Table:
    """The table of these lines, in this order: labels, numbers, intervals, marks and notes.

    A line is an entry, unless `labels` are given: then it may hold several, each in columns of its own, and what
    is said of an entry stands beside its numbers.
    """
    found = entries([row for line in lines for row in line.rows])
    over_seeds = any(entry.seeds() > 1 for entry in found)
    if over_seeds and labels is None:
        columns = [Column(SEEDS, lambda rows: [len({row.seed for row in rows})], decimals=0), *columns]
    parts = {column.header: tuple(map(column.part, lines)) for column in columns}
    contests = {each.header: contest for each in columns if (contest := each.contest(parts[each.header]))}
    marks = {column.header: _marks(column, parts[column.header], lines, labels is not None) for column in columns}

    def cells(number: Callable[[Column, Entry], float]) -> pd.DataFrame:
        return pd.DataFrame({each.header: [number(each, part) for part in parts[each.header]] for each in columns})

    half_widths = cells(lambda column, part: column.half_width(part, over_seeds))
    means = [LOGARITHM] if over_seeds and any(column.log for column in columns) else []
    plus_minus = OVER_SEEDS if over_seeds else OVER_ITEMS
    return Table(
        name=name,
        caption=caption,
        entries=tuple(lines),
        labels=_labels(lines) if labels is None else labels,
        numbers=cells(lambda column, part: column.number(part)),
        half_widths=half_widths,
        best=pd.DataFrame({each.header: _best(contests.get(each.header), len(lines)) for each in columns}),
        decimals={column.header: column.decimals for column in columns},
        levels={column.header: column.printed for column in columns},
        marks=pd.DataFrame(marks, index=range(len(lines)), dtype=object),
        parts=parts,
        notes=(
            *trouble_notes(found, _without_number(parts, marks)),
            *off_budget_notes(found),
            *(seeds_notes(found) if labels is not None else []),
            *([f"Layers are named without {prefix}"] if (prefix := _layers_prefix(lines)) else []),
            *means,
            *([plus_minus] if half_widths.notna().any(axis=None) else []),
        ),
        mark_note=mark_note(list(contests.values())),
    )


def named_apart(tables: Sequence[Table]) -> list[Table]:
    """The tables under names of which no two are equal: by their budgets where those differ, else by a number."""
    told = Counter(name for name, _ in {(each.name, each.caption.facts["calibration"]) for each in tables})
    budgets = [budget_file(each.caption.facts["calibration"]) if told[each.name] > 1 else "" for each in tables]
    named = names_of_files(f"{each.name}-{budget}" for each, budget in zip(tables, budgets, strict=True))
    return [replace(table, name=name) for table, name in zip(tables, named, strict=True)]


def _marks(column: Column, parts: Sequence[Entry], lines: Sequence[Entry], beside: bool) -> list[str]:
    """For each line the sign in its cell; what holds for a line as a whole has one only if it goes `beside`."""

    def mark(line: Entry, part: Entry) -> str:
        if not (column.measured and part.rows):
            return ""
        if not part.ok:
            return MISSING if beside or line.ok else ""
        return OFF_BUDGET if beside and part.off_budget else ""

    return list(map(mark, lines, parts))


def _without_number(parts: Mapping[str, Sequence[Entry]], marks: Mapping[str, Sequence[str]]) -> set[str]:
    """Ids of the rows of all parts that have a sign in place of a number."""
    signed = (
        part
        for header in parts
        for part, mark in zip(parts[header], marks[header], strict=True)
        if mark == MISSING
    )
    return {row.row_id for part in signed for row in part.rows}


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
        labels["calibration"] = _budgets([row.calibration for row in first])
    return pd.DataFrame(labels, dtype=object)


def _budgets(calibrations: Sequence[str | None]) -> list[str]:
    """The budgets in words, less how all of them are cut and counted: the caption has it."""
    cut = {budget.rest if budget else "" for budget in map(budget_of, filter(None, calibrations))}
    shared = f", {cut.pop()}" if len(cut) == 1 else ""
    return [(calibration or "none").removesuffix(shared) for calibration in calibrations]


def _layers_prefix(lines: Sequence[Entry]) -> str:
    """`model.layers.`, if all that the entries name as layers begins with it; nothing where it is one name."""
    patterns = {pattern for entry in lines for pattern in (entry.first.layers or "").split()}
    common = commonprefix(list(patterns)) if len(patterns) > 1 else ""
    return common[: common.rfind(".") + 1]


def _shortened(layers: str | None, prefix: str) -> str:
    return " ".join(pattern.removeprefix(prefix) for pattern in layers.split()) if layers else "all"
