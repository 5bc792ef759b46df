"""Tables as plain text, for a terminal."""

import io
import re
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as Grid
from rich.text import Text

from reports.cells import column_of
from reports.tables import Table

HYPHENATED = {"parameter": "param-\neter", "perplexity": "perp-\nlexity", "sparsity": "spar-\nsity"}
BREAKS = re.compile(r"(?<=[-/_])(?=[A-Za-z])|(?=[\[@])")  # `bits/` `weight`, `raw/1` `@2048`, `arc_` `easy`
UNBOUNDED = 10_000
MARK = "*"


def render_text(table: Table, width: int | None = None) -> str:
    """The table for a terminal of `width` columns, None for this one's; what is to be said of it is below.

    Numbers are never cut or wrapped. Where they leave little room the labels share one column and what follows ±
    stands below its number; where that is still too wide, the columns are shown in several blocks.
    """
    console = Console(file=io.StringIO(), width=width, color_system=None)
    wide = _grid(table, table.headers, narrow=False)
    fits = _width(console, wide).maximum <= console.width
    grids = [wide] if fits else _blocks(console, table, table.headers)
    blocks: list[Grid | Text] = [*grids, *map(Text, [*table.missing(), *table.below(MARK)])]
    return "\n\n".join(_drawn(console, block) for block in blocks) + "\n"


def _drawn(console: Console, block: Grid | Text) -> str:
    with console.capture() as capture:
        console.print(block)
    return "\n".join(line.rstrip() for line in capture.get().strip("\n").split("\n"))


def _blocks(console: Console, table: Table, headers: list[str]) -> list[Grid]:
    """Narrow grids of as many columns as there is room for, labels wrapped where need be."""
    grid = _grid(table, headers, narrow=True)
    if _width(console, grid).minimum <= console.width or len(headers) == 1:
        return [grid]
    half = (len(headers) + 1) // 2
    return _blocks(console, table, headers[:half]) + _blocks(console, table, headers[half:])


def _width(console: Console, grid: Grid) -> Measurement:
    return console.measure(grid, options=console.options.update(max_width=UNBOUNDED))


def _grid(table: Table, headers: Sequence[str], narrow: bool) -> Grid:
    labels = table.labels
    if narrow:
        labels = labels[["method"]].assign(method=[", ".join(name) for name in table.names])
    grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0 if narrow else 1, 0, 0))
    for header in labels.columns.astype(str):
        grid.add_column(Text(header), min_width=min(12, labels[header].str.len().max()))
    columns = [list(labels[header]) for header in labels]
    for header in headers:
        head, *cells = _flush_right([_stacked(" ".join(table.levels[header])), *_cells(table, header, narrow)])
        grid.add_column(Text(head), no_wrap=True)
        columns.append(cells)
    for line in zip(*columns, strict=True):
        grid.add_row(*map(Text, line))
    return grid


def _cells(table: Table, header: str, narrow: bool) -> list[str]:
    """Numbers with their marks and with what follows ±, so that the digits stand below each other."""
    column = column_of(table, header)
    marks = [(MARK if cell.best else "") + cell.mark for cell in column]
    marked = max(map(len, marks))
    if narrow:
        below = ["\n" + cell.half_width + " " * marked if cell.half_width else "" for cell in column]
    else:
        widest = max(len(cell.half_width) for cell in column)
        below = [" " + cell.half_width.ljust(widest) if widest else "" for cell in column]
    return [cell.number + mark.ljust(marked) + rest for cell, mark, rest in zip(column, marks, below, strict=True)]


def _flush_right(cells: Sequence[str]) -> list[str]:
    """Every line of every cell padded to one width; rich would drop the blanks that stand for a mark."""
    width = max(len(line) for cell in cells for line in cell.split("\n"))
    return ["\n".join(line.rjust(width) for line in cell.split("\n")) for cell in cells]


def _stacked(header: str) -> str:
    """A header as narrow as its numbers: a line for each word, and for each part of a long one."""
    for word, parts in HYPHENATED.items():
        header = header.replace(word, parts)
    return BREAKS.sub("\n", header).replace(" ", "\n")
