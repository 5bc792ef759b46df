"""The report: what rows and their runs hold, as one page, tables, figures and data files."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from reports.comparisons import comparisons
from reports.coverage import coverages
from reports.figures import front
from reports.load import frame
from reports.material import Material
from reports.published import published_frame
from reports.reproductions import reproductions
from reports.tables import Table
from reports.text import render_markdown, render_text
from reports.wording import Wording
from suite.files import write_atomically
from suite.results import Row

DETAILS = ("settings", "audit", "size", "quality", "task", "noise", "cost", "environment")
TOO_LONG = {"quality": {"window_nll", "window_kl"}, "task": {"items"}}
IDENTITY = (
    *("row_id", "cell_id", "recipe", "recipe_sha256", "model_fingerprint", "ledger", "calibration_tokens"),
    *("protocol", "protocol_id", "evaluated_tokens", "created"),
)


class Report:
    """Every table and figure of some rows, for the terminal and for files. ValueError without rows."""

    def __init__(self, material: Material, wording: Wording | None = None) -> None:
        if not material.rows:
            raise ValueError("a report needs at least one row, got none")
        self.material, self.rows, self.wording = material, material.rows, wording or Wording()
        self.tables = comparisons(self.rows)
        self.reproductions = reproductions(self.rows)
        self.coverages = coverages(self.rows)

    def text(self, width: int | None = None) -> str:
        """The tables for a terminal of `width` columns, None for this one's, and the notes on their models.

        Coverage is a sentence for each model, or its table where something is out of order.
        """
        tables = [self._shown(table, width) for table in (*self.tables, *self.reproductions)]
        covered = [
            each.sentence + "\n" if each.sentence else self._shown(each.table, width) for each in self.coverages
        ]
        notes = dict.fromkeys(f"{row.model}: {row.model_note}\n" for row in self.rows if row.model_note)
        return "\n".join([*tables, *covered, *notes])

    def write(self, to: Path) -> Path:
        """Write report.html, report.md and rows.csv into the directory `to` -> the page's path.

        The page is one file without links to elsewhere. Rows that reproduce a published table are in
        published.csv, too, beside its figures.
        """
        write_atomically(to / "rows.csv", frame(self.rows).to_csv(index=False).encode())
        if self.reproductions:
            write_atomically(to / "published.csv", published_frame(self.rows).to_csv(index=False).encode())
        write_atomically(to / "report.md", self._markdown().encode())
        write_atomically(to / "report.html", self._page().encode())
        return to / "report.html"

    def _shown(self, table: Table, width: int | None) -> str:
        return f"{self.wording.caption(table.caption)}\n{render_text(table, width)}"

    @property
    def _title(self) -> str:
        return ", ".join(dict.fromkeys(row.recipe for row in self.rows))

    def _markdown(self) -> str:
        say = self.wording.caption
        sections = [[say(table.caption), render_markdown(table), *table.model_notes] for table in self.tables]
        others = [*self.reproductions, *(each.table for each in self.coverages)]
        sections += [[say(table.caption), render_markdown(table)] for table in others]
        return f"# {self._title}\n\n" + "\n\n".join(part.rstrip() for parts in sections for part in parts) + "\n"

    def _page(self) -> str:
        return self.wording.render(
            "report.html",
            title=self._title,
            sections=[self._section(table) | {"model_notes": table.model_notes} for table in self.tables],
            figures=[
                {"caption": self.wording.caption(each.caption), "svg": Markup(each.svg())}
                for each in front.drawings(self.material)
            ],
            reproductions=[self._section(table) for table in self.reproductions],
            coverages=[self._section(each.table) | {"sentence": each.sentence} for each in self.coverages],
            rows=[_details(row) for row in self.rows],
        )

    def _section(self, table: Table) -> dict[str, Any]:
        return _section(table) | {"caption": self.wording.caption(table.caption)}


def _section(table: Table) -> dict[str, Any]:
    """A table as the page's template takes it, line by line."""
    columns = [
        list(zip(table.printed()[header], table.printed_half_widths()[header], table.best[header], strict=True))
        for header in table.headers
    ]
    lines = zip(
        table.labels.to_numpy().tolist(), table.names, zip(*columns, strict=True), table.reasons, strict=True
    )
    return {
        "labels": list(table.labels),
        "numbers": table.headers,
        "lines": [
            {"labels": labels, "rest": ", ".join(rest), "cells": cells, "reason": reason}
            for labels, (_, *rest), cells, reason in lines
        ],
        "notes": table.below("Bold:"),
    }


def _details(row: Row) -> dict[str, Any]:
    values = row.model_dump(mode="json", exclude=TOO_LONG)
    return {
        "name": f"{row.label}, statistics {row.statistics_mode}, seed {row.seed}, {row.protocol_name}",
        "status": row.status,
        "reason": row.reason,
        "identity": {key: values[key] for key in IDENTITY if values[key] is not None},
        "groups": {key: values[key] for key in DETAILS if values[key]},
    }
