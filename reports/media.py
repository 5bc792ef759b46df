"""A table as files: for a page, a paper, a README, and for whoever wants its numbers."""

from pathlib import Path

from reports.escape import spreadsheet
from reports.markdown import render_markdown
from reports.styled import html, latex
from reports.tables import Table
from reports.wording import Wording
from suite.files import write_atomically

ENDINGS = ("html", "tex", "md", "csv", "parquet")


def write_table(table: Table, wording: Wording, to: Path) -> None:
    """Write NAME.html, .tex, .md, .csv and .parquet into the directory `to`; the last two have every digit."""
    page = wording.render("standalone.html", title=wording.caption(table.caption), table=html(table, wording))
    numbers = table.tidy()
    files = {
        "html": page.encode(),
        "tex": latex(table, wording).encode(),
        "md": render_markdown(table, wording).encode(),
        "csv": spreadsheet(numbers),
        "parquet": numbers.to_parquet(index=False),
    }
    for ending, data in files.items():
        write_atomically(to / f"{table.name}.{ending}", data)
