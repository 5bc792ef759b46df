"""The report: rows in, one page, one Markdown file and one CSV out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from reports.comparisons import comparisons
from reports.coverage import coverages
from reports.figures import pareto
from reports.load import frame
from reports.pages import page
from reports.published import published_frame
from reports.reproductions import reproductions
from reports.tables import Table
from reports.text import render_markdown, render_text
from suite.files import write_atomically
from suite.results import Row

DETAILS = ("settings", "audit", "size", "quality", "task", "noise", "cost", "environment")
TOO_LONG = {"quality": {"window_nll", "window_kl"}, "task": {"items"}}
IDENTITY = (
    *("row_id", "cell_id", "recipe", "recipe_sha256", "model_fingerprint", "ledger", "calibration_tokens"),
    *("protocol", "protocol_id", "evaluated_tokens", "created"),
)


class Report:
    """Every table of some rows, worked out once, for the terminal and for files. ValueError without rows."""

    def __init__(self, rows: Sequence[Row]) -> None:
        if not rows:
            raise ValueError("a report needs at least one row, got none")
        self.rows = rows
        self.tables = comparisons(rows)
        self.reproductions = reproductions(rows)
        self.coverages = coverages(rows)

    def text(self, width: int | None = None) -> str:
        """The tables for a terminal of `width` columns, None for this one's, and the notes on their models.

        Coverage is a sentence for each model, or its table where something is out of order.
        """
        shown = [*self.tables, *self.reproductions]
        tables = [f"{table.caption}\n{render_text(table, width)}" for table in shown]
        covered = [
            each.sentence + "\n" if each.sentence else f"{each.table.caption}\n{render_text(each.table, width)}"
            for each in self.coverages
        ]
        notes = dict.fromkeys(f"{row.model}: {row.model_note}\n" for row in self.rows if row.model_note)
        return "\n".join([*tables, *covered, *notes])

    def write(self, to: Path) -> Path:
        """Write report.html, report.md and rows.csv into the directory `to` -> the page's path.

        The page is one file without scripts or links to elsewhere. Rows that reproduce a published table are in
        published.csv, too, beside its figures.
        """
        write_atomically(to / "rows.csv", frame(self.rows).to_csv(index=False).encode())
        if self.reproductions:
            write_atomically(to / "published.csv", published_frame(self.rows).to_csv(index=False).encode())
        write_atomically(to / "report.md", self._markdown().encode())
        write_atomically(to / "report.html", self._page().encode())
        return to / "report.html"

    @property
    def _title(self) -> str:
        return ", ".join(dict.fromkeys(row.recipe for row in self.rows))

    def _markdown(self) -> str:
        sections = [[table.caption, render_markdown(table), *table.model_notes] for table in self.tables]
        others = [*self.reproductions, *(each.table for each in self.coverages)]
        sections += [[table.caption, render_markdown(table)] for table in others]
        return f"# {self._title}\n\n" + "\n\n".join(part.rstrip() for parts in sections for part in parts) + "\n"

    def _page(self) -> str:
        return page(
            "report.html",
            title=self._title,
            sections=[_section(table) | _with_figure(table) for table in self.tables],
            reproductions=[_section(table) for table in self.reproductions],
            coverages=[_section(each.table) | {"sentence": each.sentence} for each in self.coverages],
            rows=[_details(row) for row in self.rows],
        )


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
        "caption": table.caption,
        "labels": list(table.labels),
        "numbers": table.headers,
        "lines": [
            {"labels": labels, "rest": ", ".join(rest), "cells": cells, "reason": reason}
            for labels, (_, *rest), cells, reason in lines
        ],
        "notes": table.below("Bold:"),
    }


def _with_figure(table: Table) -> dict[str, Any]:
    """What stands below a comparison alone; matplotlib has escaped the figure's text."""
    return {"model_notes": table.model_notes, "figure": Markup(pareto(table) or "")}


def _details(row: Row) -> dict[str, Any]:
    values = row.model_dump(mode="json", exclude=TOO_LONG)
    return {
        "name": f"{row.label}, statistics {row.statistics_mode}, seed {row.seed}, {row.protocol_name}",
        "status": row.status,
        "reason": row.reason,
        "identity": {key: values[key] for key in IDENTITY if values[key] is not None},
        "groups": {key: values[key] for key in DETAILS if values[key]},
    }
