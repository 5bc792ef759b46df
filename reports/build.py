"""The report: what rows and their runs hold, as text, as one page, and as files for a paper."""

import json
import shutil
import textwrap
from functools import cached_property
from itertools import chain, product
from pathlib import Path

from reports import media
from reports.comparisons import comparisons
from reports.coverage import coverages
from reports.escape import spreadsheet
from reports.figures import costs, curves, drawing, front, heatmap, prediction, proxy, search, training
from reports.figures.drawing import Drawing
from reports.grids import grids
from reports.load import frame, read_json
from reports.markdown import render_markdown
from reports.material import Material
from reports.page import Contents, page
from reports.published import published_frame
from reports.reproductions import reproductions
from reports.searches import search_sections
from reports.summary import summary
from reports.tables import Table
from reports.text import render_text
from reports.wording import Wording
from suite.files import file_name, write_atomically

DRAWN = (front, curves, training, prediction, heatmap, costs, proxy, search)  # in the order of a page
INDEX = "report.json"  # the names of a report's tables and figures, by folder
FILES = {"tables": media.ENDINGS, "figures": drawing.ENDINGS}


class Report:
    """Every table and figure of some rows, each worked out when it is first asked for. ValueError without rows."""

    def __init__(self, material: Material, wording: Wording | None = None) -> None:
        if not material.rows:
            raise ValueError("a report needs at least one row, got none")
        self.material, self.rows, self.wording = material, material.rows, wording or Wording()
        self.coverages = coverages(self.rows)
        self.sections = search_sections(material)

    @cached_property
    def grids(self) -> list[Table]:
        """Methods down, patterns or bits across."""
        return grids(self.rows)

    @cached_property
    def comparisons(self) -> list[Table]:
        """Every entry with all that was measured of it."""
        return comparisons(self.rows)

    @cached_property
    def reproductions(self) -> list[Table]:
        """Ours beside what was published."""
        return reproductions(self.rows)

    @property
    def tables(self) -> list[Table]:
        """All of them, under different names."""
        covered = [each.table for each in self.coverages]
        return [*self.grids, *self.comparisons, *self.reproductions, *covered]

    @cached_property
    def drawings(self) -> list[Drawing]:
        """All figures, under different names."""
        return list(chain.from_iterable(each.drawings(self.material) for each in DRAWN))

    @cached_property
    def sentences(self) -> list[str]:
        """What was measured, what came out, how far it can be trusted."""
        return summary(self.rows)

    def text(self, width: int | None = None) -> str:
        """The comparisons for a terminal of `width` columns, None for this one's, and what they come to.

        Coverage is a sentence for each model, or its table where something is out of order.
        """
        tables = [self._shown(table, width) for table in (*self.comparisons, *self.reproductions)]
        covered = [
            each.sentence + "\n" if each.sentence else self._shown(each.table, width) for each in self.coverages
        ]
        said = [section.text() + "\n" for section in self.sections]
        return "\n".join([*tables, *covered, *said, *(_wrapped(each, width) for each in self.sentences)])

    def write(self, to: Path) -> Path:
        """Write the page, report.md, rows.{csv,parquet}, tables/ and figures/ into a directory -> the page's path.

        Rows that reproduce a published table are in published.csv, too, beside its figures. What an earlier report
        left there under names that this one does not have is removed; other files are let alone.
        """
        self._remove_what_was_left(to)
        rows = frame(self.rows)
        write_atomically(to / "rows.csv", spreadsheet(rows))
        write_atomically(to / "rows.parquet", rows.to_parquet(index=False))
        if self.reproductions:
            write_atomically(to / "published.csv", spreadsheet(published_frame(self.rows)))
        for table in self.tables:
            media.write_table(table, self.wording, to / "tables")
        for each in self.drawings:
            each.write(to / "figures", self.wording.caption(each.caption))
        write_atomically(to / "report.md", self._markdown().encode())
        write_atomically(to / "report.html", page(self._contents, self.wording).encode())
        return to / "report.html"

    def _remove_what_was_left(self, to: Path) -> None:
        """Replace the index of a report that was here before, and remove its files that this one does not have."""
        names = {
            "tables": [table.name for table in self.tables],
            "figures": [each.name for each in self.drawings],
        }
        before = read_json(to / INDEX)
        for folder, endings in FILES.items():
            listed = before.get(folder)
            left = set(map(str, listed)) - set(names[folder]) if isinstance(listed, list) else set()
            for name, ending in product(left, endings):
                (to / folder / f"{file_name(name)}.{ending}").unlink(missing_ok=True)  # a name, never a path
        write_atomically(to / INDEX, json.dumps(names, indent=1).encode())

    def _shown(self, table: Table, width: int | None) -> str:
        return f"{_wrapped(self.wording.caption(table.caption), width)}\n{render_text(table, width)}"

    @property
    def _title(self) -> str:
        return ", ".join(dict.fromkeys(row.recipe for row in self.rows))

    @property
    def _contents(self) -> Contents:
        return Contents(
            title=self._title,
            sentences=self.sentences,
            grids=self.grids,
            comparisons=self.comparisons,
            drawings=self.drawings,
            reproductions=self.reproductions,
            searches=self.sections,
            coverages=self.coverages,
            material=self.material,
        )

    def _markdown(self) -> str:
        figures = [
            {
                "title": each.title,
                "caption": self.wording.caption(each.caption),
                "file": f"figures/{each.name}.svg",
            }
            for each in self.drawings
        ]
        return self.wording.render(
            "report.md",
            title=self._title,
            sentences=self.sentences,
            figures=figures,
            tables=[render_markdown(table, self.wording) for table in self.tables],
            notes=list(chain.from_iterable(section.text().split("\n") for section in self.sections)),
        )


def _wrapped(text: str, width: int | None) -> str:
    return textwrap.fill(text, width or shutil.get_terminal_size().columns, break_on_hyphens=False)
