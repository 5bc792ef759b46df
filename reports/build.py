"""The report: rows in, one page, one Markdown file and one CSV out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from reports.figures import pareto
from reports.load import frame
from reports.tables import caption, comparison, formatted, label_headers, number_headers, parts
from reports.text import render_markdown
from suite.files import write_atomically
from suite.results import Row

DETAILS = ("settings", "audit", "size", "quality", "cost", "environment")
IDENTITY = (
    *("row_id", "cell_id", "recipe", "recipe_sha256", "model_fingerprint", "ledger", "calibration_tokens"),
    *("protocol", "protocol_id", "evaluated_tokens", "created"),
)


def build_report(rows: Sequence[Row], to: Path) -> Path:
    """Write report.html, report.md and rows.csv into the directory `to` -> the page's path.

    The page is one file without scripts or links to elsewhere. Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("a report needs at least one row, got none")
    flat = frame(rows)
    write_atomically(to / "rows.csv", flat.to_csv(index=False).encode())
    write_atomically(to / "report.md", _markdown(flat).encode())
    write_atomically(to / "report.html", _page(rows, flat).encode())
    return to / "report.html"


def _markdown(flat: pd.DataFrame) -> str:
    sections = [
        "\n\n".join([caption(part), render_markdown(comparison(part)), *part["model_note"].dropna().unique()])
        for part in parts(flat)
    ]
    return f"# {_title(flat)}\n\n" + "\n\n".join(section.rstrip() for section in sections) + "\n"


def _page(rows: Sequence[Row], flat: pd.DataFrame) -> str:
    environment = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections, details = [_section(part) for part in parts(flat)], [_details(row) for row in rows]
    template = environment.get_template("report.html")
    return template.render(title=_title(flat), sections=sections, rows=details)


def _title(flat: pd.DataFrame) -> str:
    return ", ".join(flat["recipe"].unique())


def _section(part: pd.DataFrame) -> dict[str, Any]:
    table = comparison(part)
    return {
        "caption": caption(part),
        "model_notes": list(part["model_note"].dropna().unique()),
        "labels": label_headers(table),
        "numbers": number_headers(table),
        "rows": formatted(table).to_dict("records"),
        "figure": Markup(pareto(part) or ""),  # matplotlib has escaped its text
    }


def _details(row: Row) -> dict[str, Any]:
    values = row.model_dump(mode="json", exclude={"quality": {"window_nll"}})
    return {
        "name": f"{row.label}, statistics {row.statistics_mode}, seed {row.seed}",
        "status": row.status,
        "reason": row.reason,
        "identity": {key: values[key] for key in IDENTITY if values[key] is not None},
        "groups": {key: values[key] for key in DETAILS if values[key]},
    }
