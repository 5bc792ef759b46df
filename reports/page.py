"""The page: all that a report has to show, in one file that needs nothing from elsewhere."""

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from reports.coverage import Coverage
from reports.entries import grouped
from reports.escape import spreadsheet
from reports.figures.drawing import Drawing
from reports.load import frame
from reports.material import Material
from reports.searches import SearchSection
from reports.styled import html
from reports.tables import Table
from reports.wording import Wording
from suite.results import Cost, Quality, Row, Size, TaskScore

LINES = 50  # of a figure's data that the page shows; what is downloaded has all
PLAIN = 50_000  # characters of CSV: longer ones are compressed
GROUPS = {"bits": "size", "quality": "quality", "task": "task", "noise": "noise", "cost": "cost", "audit": "audit"}
OF_A_BUDGET = ("calibration", "seeds", "machine", "date")  # facts in which tables of one thing may differ
TOO_LONG = {"quality": {"window_nll", "window_kl"}, "task": {"items"}}  # a number for each window or item
IDENTITY = (
    *("row_id", "cell_id", "recipe", "recipe_sha256", "reproduces", "model", "model_fingerprint", "revision"),
    *("layers", "match", "protocol", "protocol_id", "evaluated_tokens", "created"),
)
METHOD = ("method", "statistics_mode", "seed")
EXPLAINED = (Size, Quality, TaskScore, Cost)  # records whose fields say what they are

Facts = list[tuple[str, str]]  # a name and what is to be said of it


@dataclass(frozen=True)
class Contents:
    """What the page shows, in its order; the rows and what belongs to them come last, one by one."""

    title: str
    sentences: Sequence[str]
    grids: Sequence[Table]
    comparisons: Sequence[Table]
    drawings: Sequence[Drawing]
    reproductions: Sequence[Table]
    searches: Sequence[SearchSection]
    coverages: Sequence[Coverage]
    material: Material


def page(contents: Contents, wording: Wording) -> str:
    """The HTML of a report: readable without its script, which sorts, filters and opens rows.

    Whatever comes from data is escaped, and nothing but that one script may run.
    """
    material = contents.material
    script = wording.render("report.js")
    return wording.render(
        "report.html",
        title=contents.title,
        sentences=contents.sentences,
        methods=list(dict.fromkeys(row.title for row in material.rows)),
        grids=_tables(contents.grids, wording),
        comparisons=_tables(contents.comparisons, wording),
        figures=[_figure(drawing, wording) for drawing in contents.drawings],
        reproductions=_tables(contents.reproductions, wording),
        searches=[(section, _data(section.trials)) for section in contents.searches],
        coverages=[(each.sentence, html(each.table, wording)) for each in contents.coverages],
        all_rows=_download("rows", frame(material.rows)),
        rows=list(_rows(material)),
        ledgers=_ledgers(material),
        environments=[_said(each) for each in _environments(material.rows).values()],
        names=_names(),
        style=Markup(wording.render("style.css")),  # templates of ours, or of the user's own
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _tables(tables: Sequence[Table], wording: Wording) -> list[list[dict[str, Any]]]:
    """Tables of one thing under several calibration budgets together; all but the first budget's are folded."""

    def key(table: Table) -> tuple[tuple[str, str], ...]:
        return tuple((name, said) for name, said in table.caption.facts.items() if name not in OF_A_BUDGET)

    return [
        [
            {
                "html": html(table, wording),
                "calibration": (budget := table.caption.facts["calibration"]),
                "folded": budget != alike[0].caption.facts["calibration"],
            }
            for table in alike
        ]
        for alike in grouped(tables, key)
    ]


def _figure(drawing: Drawing, wording: Wording) -> dict[str, Any]:
    return {
        "name": drawing.name,
        "title": drawing.title,
        "caption": wording.caption(drawing.caption),
        "svg": Markup(drawing.svg()),  # matplotlib escapes what it writes
        "data": _data(drawing.data.head(LINES)),
        "lines": len(drawing.data),
        "download": _download(drawing.name, drawing.data),
    }


def _data(data: pd.DataFrame) -> dict[str, Any]:
    """A frame as text, line by line; which columns are numbers; a missing value is an en dash."""
    return {
        "headers": [(str(name), pd.api.types.is_numeric_dtype(data[name])) for name in data],
        "lines": [
            ["–" if pd.isna(value) else _text(value) for value in line] for line in data.to_numpy().tolist()
        ],
    }


def _download(name: str, data: pd.DataFrame) -> dict[str, str]:
    """A link that holds a whole frame as CSV, and the name of the file; a long one is compressed."""
    csv = spreadsheet(data)
    if len(csv) <= PLAIN:
        return {"file": f"{name}.csv", "href": f"data:text/csv;base64,{base64.b64encode(csv).decode()}"}
    packed = base64.b64encode(gzip.compress(csv, mtime=0)).decode()  # no time: the same rows give the same bytes
    return {"file": f"{name}.csv.gz", "href": f"data:application/gzip;base64,{packed}"}


def _rows(material: Material) -> Iterator[dict[str, Any]]:
    """Each row in words: its name, what became of it, its facts by group, what it shares with others."""
    places = {key: place for place, key in enumerate(_environments(material.rows), 1)}
    for row in material.rows:
        values = row.model_dump(mode="json", exclude=TOO_LONG)
        groups = {
            "row": {name: values[name] for name in IDENTITY},
            "settings": {name: values[name] for name in METHOD} | values["settings"],
        }
        groups |= {name: values[field] for name, field in GROUPS.items() if values[field]}
        yield {
            "id": row.row_id,
            "name": f"{row.label}, statistics {row.statistics_mode}, seed {row.seed}",
            "result": _result(row),
            "where": "; ".join(filter(None, (row.model, row.protocol_name, row.calibration))),
            "trouble": "" if row.status == "ok" else f"{row.status}: {row.reason or 'no reason given'}",
            "groups": {name: _said(group) for name, group in groups.items()},
            "calibration": row.calibration,
            "tokens": row.calibration_tokens,
            "ledger": row.ledger,
            "ledger_known": row.ledger in material.ledgers,
            "environment": places[_key(row)],
            "machine": row.environment.get("machine", "not recorded"),
        }


def _result(row: Row) -> str:
    """The number that tells a row from its like: its perplexity, or the first figure of its task."""
    if row.quality:
        return f"perplexity {row.quality.perplexity:,.2f}"
    return next((f"{name} {value:.3f}" for name, value in (row.task.metrics if row.task else {}).items()), "")


def _ledgers(material: Material) -> dict[str, tuple[str, Facts]]:
    """By id, of the ledger's entries that rows name: which budget and seed, and all that was noted."""
    used = {row.ledger: f"{row.calibration}, seed {row.seed}" for row in reversed(material.rows) if row.ledger}
    return {each: (used[each], _said(noted)) for each, noted in material.ledgers.items() if each in used}


def _environments(rows: Sequence[Row]) -> dict[str, Mapping[str, Any]]:
    """Each environment once, in the order in which they first appear."""
    return {_key(row): row.environment for row in rows}


def _key(row: Row) -> str:
    return json.dumps(row.environment, sort_keys=True)


def _names() -> Facts:
    """What the names of a row's numbers mean, from the records themselves."""
    unsaid = set().union(*TOO_LONG.values())
    fields = {name: field.description for record in EXPLAINED for name, field in record.model_fields.items()}
    return _said({name: said for name, said in fields.items() if name not in unsaid})


def _said(values: Mapping[str, Any]) -> Facts:
    """Names and values in words, without those that are missing."""
    return [(_spaced(name), _text(value)) for name, value in values.items() if value is not None]


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _text(value: Any) -> str:
    """A value in words, mappings and lists by commas; what cannot be printed is written as JSON has it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {text}" for name, text in _said(value)) or "none"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value) if str(value).isprintable() else json.dumps(value)
