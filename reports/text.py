"""Tables as plain text: for a terminal, and as Markdown."""

import io

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports.tables import NOTE, formatted, label_headers, number_headers

HYPHENATED = {"parameter": "param-\neter", "perplexity": "perp-\nlexity", "sparsity": "spar-\nsity"}
UNBOUNDED = 10_000


def render_text(table: pd.DataFrame, width: int | None = None) -> str:
    """The table for a terminal of `width` columns, None for this one's; why a row has no numbers is below it.

    Numbers are never cut or wrapped: where they leave little room, the labels share one column.
    """
    console = Console(file=io.StringIO(), width=width, color_system=None)
    grid = _grid(table, narrow=False)
    if console.measure(grid, options=console.options.update(max_width=UNBOUNDED)).maximum > console.width:
        grid = _grid(table, narrow=True)
    with console.capture() as capture:
        console.print(grid)
        for line in notes(table):
            console.print(Text(f"\n{line}"))
    return "\n".join(line.rstrip() for line in capture.get().strip("\n").split("\n")) + "\n"


def render_markdown(table: pd.DataFrame) -> str:
    """The table in GitHub's Markdown, notes below it."""
    text, numbers = formatted(table).drop(columns=NOTE), number_headers(table)
    rule = ["---:" if header in numbers else "---" for header in text.columns]
    lines = [list(text.columns), rule, *text.to_numpy().tolist()]
    body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    below = "".join(f"\n- {line}" for line in notes(table))
    return body + "\n" + (below + "\n" if below else "")


def notes(table: pd.DataFrame) -> list[str]:
    """Why a row has no numbers, one line each."""
    shown = table[table[NOTE] != ""]
    return [f"{row['method']} {row['pattern or bits']}: {row[NOTE]}" for _, row in shown.iterrows()]


def _grid(table: pd.DataFrame, narrow: bool) -> Table:
    text, numbers, labels = formatted(table), number_headers(table), label_headers(table)
    if narrow:
        names = [[cell for cell in cells if cell not in ("", "none")] for cells in text[labels].to_numpy()]
        text["method"] = [", ".join(name) for name in names]
        labels = ["method"]
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0 if narrow else 1, 0, 0))
    for header in labels:
        grid.add_column(Text(header), min_width=min(12, text[header].str.len().max()))
    for header in numbers:
        grid.add_column(Text(_stacked(header)), justify="right", no_wrap=True)
    for cells in text[labels + numbers].to_numpy().tolist():
        grid.add_row(*map(Text, cells))
    return grid


def _stacked(header: str) -> str:
    """A header as narrow as its numbers: a line for each word."""
    for word, parts in HYPHENATED.items():
        header = header.replace(word, parts)
    return header.replace(" ", "\n").replace("/", "/\n").replace("[", "\n[")
