"""A table as GitHub's Markdown."""

from reports import escape
from reports.cells import Cell, cells
from reports.escape import Ready
from reports.tables import Table
from reports.wording import Wording

BETWEEN = " · "  # the groups of a header and itself


def render_markdown(table: Table, wording: Wording) -> Ready:
    """Caption, table and notes by templates/table.md; marked numbers are bold, groups stand in their headers."""
    frame = cells(table)
    shown = frame.map(_shown).set_axis([_header(levels) for levels in frame.columns], axis=1)
    sides = ["left"] * len(table.labels.columns) + ["right"] * len(table.headers)
    text = shown.to_markdown(index=False, tablefmt="pipe", disable_numparse=True, colalign=sides)
    caption, notes = wording.caption(table.caption), [*table.missing(), *table.below("Bold:")]
    return Ready(wording.render("table.md", caption=caption, table=Ready(text), notes=notes))


def _header(levels: str | tuple[str, ...]) -> str:
    names = [levels] if isinstance(levels, str) else [name for name in levels if name]
    return BETWEEN.join(map(escape.markdown, names))


def _shown(cell: Cell | str) -> str:
    if isinstance(cell, str):
        return escape.markdown(cell)
    number = escape.markdown(cell.number)
    marked = (f"**{number}**" if cell.best else number) + escape.markdown(cell.mark)
    return f"{marked} {cell.half_width}".rstrip()
