"""A table as it is printed, whatever the medium: what stands in each cell, below which headers."""

from dataclasses import dataclass

import pandas as pd

from reports.tables import Table


@dataclass(frozen=True)
class Cell:
    """A number of a table as it is printed, and the longest that its column has on either place beside one."""

    value: float  # NaN where there is none
    number: str
    mark: str
    half_width: str  # with its sign, or empty
    best: bool
    longest_mark: str
    longest_half_width: str


def cells(table: Table) -> pd.DataFrame:
    """A line for each entry: labels and `Cell`s, below headers of as many levels as the table's deepest has."""
    columns: list[list[str] | list[Cell]] = [list(table.labels[header]) for header in table.labels]
    columns += [column_of(table, header) for header in table.headers]
    levels = [(str(header),) for header in table.labels] + [table.levels[header] for header in table.headers]
    depth = max(map(len, levels))
    padded = [("",) * (depth - len(names)) + names for names in levels]
    headers = pd.MultiIndex.from_tuples(padded) if depth > 1 else [name for (name,) in padded]
    return pd.DataFrame(dict(enumerate(columns)), dtype=object).set_axis(headers, axis=1)


def column_of(table: Table, header: str) -> list[Cell]:
    """One column, a cell for each entry. A mark that stands in place of a number is printed as the number."""
    half_widths = table.printed_half_widths()[header]
    alone = table.numbers[header].isna() & (table.marks[header] != "")
    numbers = table.marks[header].where(alone, table.printed()[header])
    marks = table.marks[header].mask(alone, "")
    longest = max(marks, key=len), max(half_widths, key=len)
    each = zip(table.numbers[header], numbers, marks, half_widths, table.best[header], strict=True)
    return [Cell(value, number, mark, half, bool(best), *longest) for value, number, mark, half, best in each]
