"""A table as HTML and as LaTeX, by one pandas Styler."""

import re
import textwrap
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from markupsafe import Markup
from pandas.io.formats.style import Styler

from reports import escape
from reports.cells import Cell, cells
from reports.columns import HIGHER, LOWER
from reports.escape import Ready
from reports.tables import Table
from reports.wording import Wording

HEADER_WIDTH, LABEL_WIDTH = 12, 40  # characters; where a longer header of numbers, a longer label is broken
CLINGS = re.compile(rf" (?=[%{HIGHER}{LOWER}])")  # to the word before it
PLUS_MINUS = "\\,$\\pm$\\,"


def html(table: Table, wording: Wording) -> Markup:
    """The table and its notes as a piece of a page, by templates/table.html: no styles, no ids but of its name."""

    class Page(Styler):
        template_html_table = wording.template("table.html")

    values: dict[str, Any] = {
        "name": table.name,
        "labels": len(table.labels.columns),
        "lines": _lines(table),
        "notes": table.below("Bold:"),
    }
    with wording.faults([*values, "caption", "head", "body"]):
        styler = Page(cells(table)).hide().set_caption(wording.caption(table.caption))
        return Markup(styler.to_html(exclude_styles=True, **values).strip())  # noqa: S704 - escaped by the template


def latex(table: Table, wording: Wording) -> str:
    """The table as a float of a paper, by templates/table.tex; it says at its top which packages it needs."""
    return wording.render(
        "table.tex",
        name=Ready(table.name),
        caption=wording.caption(table.caption),
        tabular=_tabular(table),
        notes=[*table.missing(), *table.below("Bold:")],
    )


def _lines(table: Table) -> list[dict[str, str]]:
    """What a line has beside its cells: its rows' ids, its labels after the first, why it has no numbers."""
    return [
        {"rows": " ".join(row_ids), "rest": ", ".join(rest), "reason": reason}
        for row_ids, (_, *rest), reason in zip(table.row_ids, table.names, table.reasons, strict=True)
    ]


def _tabular(table: Table) -> Ready:
    """The `tabular` with booktabs' rules; below each level of groups a rule for each group."""
    frame, labels = cells(table), list(table.labels)
    headers, groups = [tuple(levels) for levels in frame.columns], range(frame.columns.nlevels - 1)
    styler = frame.style.hide().format(_latex_cell).format_index(escape.latex, axis="columns")
    styler.format_index(
        lambda header: escape.latex(header) if header in labels else _stacked(header),
        axis="columns",
        level=len(groups),
    )
    sides = "l" * len(labels) + "r" * len(table.headers)
    text = styler.to_latex(column_format=sides, hrules=True, multicol_align="c", sparse_columns=True)
    begin, top, *rest = text.strip().split("\n")
    head = [line for level in groups for line in (rest[level], _group_rules(headers, level))]
    return Ready("\n".join([begin, top, *head, *rest[len(groups) :]]))


def _group_rules(headers: Sequence[tuple[str, ...]], level: int) -> str:
    r"""`\cmidrule(lr){4-6}` below each group of this level."""
    rules, first = [], 1
    for names, group in groupby(headers, key=lambda names: names[: level + 1]):
        last = first + len(list(group)) - 1
        rules += [rf"\cmidrule(lr){{{first}-{last}}}"] if names[-1] else []
        first = last + 1
    return " ".join(rules)


def _latex_cell(cell: object) -> str:
    """What is missing beside a number is left blank, so that the digits of a column stand below each other."""
    if not isinstance(cell, Cell):
        return _label(str(cell))
    number = escape.latex(cell.number)
    bold = rf"\textbf{{{number}}}" if cell.best else number
    mark = _padded(cell.mark, cell.longest_mark, lambda text: rf"\textsuperscript{{{escape.latex(text)}}}")
    half_width = _padded(cell.half_width, cell.longest_half_width, lambda text: text.replace("±", PLUS_MINUS))
    return bold + mark + half_width


def _padded(text: str, longest: str, put: Callable[[str], str]) -> str:
    missing = longest[len(text) :]
    return (put(text) if text else "") + (rf"\hphantom{{{put(missing)}}}" if missing else "")


def _label(text: str) -> str:
    """A long label in several lines, the first on that of its numbers."""
    lines = _wrapped(text, LABEL_WIDTH)
    return (
        rf"\begin{{tabular}}[t]{{@{{}}l@{{}}}}{_below(lines)}\end{{tabular}}" if len(lines) > 1 else _below(lines)
    )


def _stacked(header: object) -> str:
    """A long header in several lines, flush right as its numbers are."""
    lines = _wrapped(CLINGS.sub("\u00a0", str(header)), HEADER_WIDTH)
    return rf"\shortstack[r]{{{_below(lines)}}}" if len(lines) > 1 else _below(lines)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _below(lines: Sequence[str]) -> str:
    return r" \\ ".join(map(escape.latex, lines))
