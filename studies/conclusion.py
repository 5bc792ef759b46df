"""Answers: sentences with numbers, and the tables behind them, for a terminal and for files."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill

import pandas as pd

from reports.entries import grouped
from reports.escape import spreadsheet
from suite.files import file_name, write_atomically
from suite.results import Row

NOTHING = "No row has a KL to the dense model, so there is no answer yet."
DIGITS = 4  # significant ones


@dataclass(frozen=True)
class Conclusion:
    """A study's question answered: what can be said, and tables by their titles."""

    sentences: tuple[str, ...]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    def text(self, width: int | None = None) -> str:
        """For a terminal of `width` columns, None for this one's: wide tables in several blocks."""
        columns = width or shutil.get_terminal_size().columns
        sentences = [fill(sentence, columns, break_on_hyphens=False) for sentence in self.sentences]
        tables = [f"{title}\n{_in_blocks(_cells(table), columns)}" for title, table in self.tables.items()]
        return "\n\n".join(["\n".join(sentences), *tables])

    def markdown(self) -> str:
        """In GitHub's Markdown."""
        sentences = [f"- {sentence}" for sentence in self.sentences]
        tables = [f"{title}\n\n{_markdown(_cells(table))}" for title, table in self.tables.items()]
        return "\n\n".join(["\n".join(sentences), *tables])


def conclusions(conclude: Callable[[Sequence[Row]], Conclusion], rows: Sequence[Row]) -> dict[str, Conclusion]:
    """A study's answers by model and protocol, from all rows of its recipe."""
    measured = [row for row in rows if row.status == "ok" and row.quality and row.quality.kl_mean is not None]
    parts = grouped(measured, lambda row: (row.model_fingerprint, row.protocol_id))
    found = {f"{part[0].model}, {part[0].protocol_name}": conclude(part) for part in parts}
    return found or {"no rows": Conclusion((NOTHING,))}


def write(question: str, found: Mapping[str, Conclusion], to: Path) -> Path:
    """Write answer.md and a CSV for each table into the folder `to` -> the path of answer.md."""
    for name, data in _csvs(found):
        write_atomically(to / name, data)
    parts = [f"## {where}\n\n{conclusion.markdown()}" for where, conclusion in found.items()]
    write_atomically(to / "answer.md", ("\n\n".join([f"# {question}", *parts]) + "\n").encode())
    return to / "answer.md"


def _csvs(found: Mapping[str, Conclusion]) -> Iterator[tuple[str, bytes]]:
    for where, conclusion in found.items():
        for title, table in conclusion.tables.items():
            name = f"answer-{title}-{where}" if len(found) > 1 else f"answer-{title}"
            yield f"{file_name(name)}.csv", spreadsheet(table)


def _cells(table: pd.DataFrame) -> pd.DataFrame:
    """Everything as text: numbers with four significant digits, nothing for NaN."""
    return table.map(_cell)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:#.{DIGITS}g}".rstrip(".")
    return str(value)


def _in_blocks(cells: pd.DataFrame, width: int) -> str:
    """Each block begins with the first column, which says what a line is about."""
    first, *_ = cells.columns
    text = cells.set_index(first).rename_axis(None).rename_axis(first, axis="columns").to_string(line_width=width)
    return "\n".join(line.rstrip(" \\") for line in text.split("\n"))


def _markdown(table: pd.DataFrame) -> str:
    lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
