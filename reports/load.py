"""Rows from results files with what their runs left beside them, and the flat frame of all their numbers."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel

from reports.filters import chosen
from reports.material import Material, Search
from reports.searches import SEARCH_NAME, read_search
from suite.errors import ConfigError, ResultError
from suite.results import DENSE, JOURNAL_NAME, MANIFEST_NAME, Cost, Journal, Quality, Row, Size, TaskScore

logger = logging.getLogger(__name__)

ARTIFACTS = "mlartifacts"  # where MLflow keeps its copies
LABELS = (
    *("row_id", "cell_id", "status", "reason", "recipe", "model", "model_fingerprint", "model_note", "method"),
    *("title", "variant", "statistics_mode", "seed", "calibration", "calibration_tokens", "ledger"),
    *("layers", "reproduces"),
    *("protocol", "protocol_id", "evaluated_tokens", "created"),
)

SERIES = ("window_nll", "window_kl", "items", "metrics", "stderr")  # more than one number each


def load(path: Path) -> list[Row]:
    """Rows of one results file, or of every results.jsonl below a directory; of equal row_ids the newest.

    Raises ResultError if there is nothing there.
    """
    rows = _newest(row for file in _journals(path) for row in Journal(file).rows())
    if not rows:
        raise ResultError(f"no rows at {path}; name a {JOURNAL_NAME} or a directory that holds one")
    return rows


def gather(paths: Sequence[Path], where: str = "") -> Material:
    """Rows of results files, or of those below directories, that fit a filter, and what lies beside them.

    Of equal row_ids the newest. Raises ResultError where there are no rows, ConfigError if the filter is wrong or
    leaves none.
    """
    rows = _newest(row for path in paths for row in load(path))
    folders = dict.fromkeys(file.resolve().parent for path in paths for file in _journals(path))
    if where and rows:
        kept = chosen(where, [_flat(row) | row.named_settings for row in rows])
        rows = [row for row, fits in zip(rows, kept, strict=True) if fits]
        if not rows:
            raise ConfigError(f"--filter is {where!r}, which none of {len(kept)} rows fits; text stands in quotes")
    return merged([material_of(folder, rows) for folder in folders])


def merged(parts: Sequence[Material]) -> Material:
    """Several sources as one; of equal row_ids the newest."""
    return Material(
        rows=_newest(row for part in parts for row in part.rows),
        layers={cell: notes for part in parts for cell, notes in part.layers.items()},
        ledgers={name: entry for part in parts for name, entry in part.ledgers.items()},
        searches=[search for part in parts for search in part.searches],
    )


def material_of(folder: Path, rows: Sequence[Row]) -> Material:
    """These rows with what the results directory `folder` holds of their cells and ledger entries, and its search.

    What is missing or damaged is left out.
    """
    manifests = _read({row.cell_id: folder / "cells" / row.cell_id / MANIFEST_NAME for row in rows})
    entries = _read({row.ledger: folder / "ledger" / f"{row.ledger}.json" for row in rows if row.ledger})
    return Material(
        rows=rows,
        layers={cell: manifest["layers"] for cell, manifest in manifests.items() if "layers" in manifest},
        ledgers={name: {key: entry[key] for key in entry if key != "spans"} for name, entry in entries.items()},
        searches=_searches(folder / "search" / SEARCH_NAME),
    )


def _journals(path: Path) -> list[Path]:
    """The file itself, or those below a directory."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob(JOURNAL_NAME) if ARTIFACTS not in file.relative_to(path).parts)


def _newest(rows: Iterable[Row]) -> list[Row]:
    newest: dict[str, Row] = {}
    for row in rows:
        if row.row_id not in newest or row.created >= newest[row.row_id].created:
            newest[row.row_id] = row
    return list(newest.values())


def _read(paths: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """What the files hold that are there and whole, by the names given."""
    found = {name: read_json(path) for name, path in paths.items()}
    return {name: values for name, values in found.items() if values}


def read_json(path: Path) -> dict[str, Any]:
    """What a file holds; nothing where it is not there or damaged."""
    try:
        return dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError):
        logger.warning("%s is damaged and left out", path)
        return {}


def _searches(path: Path) -> list[Search]:
    try:
        return [read_search(path)] if path.exists() else []
    except ResultError as error:
        logger.warning("left out: %s", error)
        return []


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """One line per row, in the rows' order; units in the column names, missing numbers as NaN."""
    return pd.DataFrame([_flat(row) for row in rows])


def _flat(row: Row) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(row, name) for name in LABELS}
    values |= _numbers(row.size, Size) | _numbers(row.quality, Quality) | _numbers(row.cost, Cost)
    values["seconds"] = row.cost.seconds if row.cost else None
    asked = None if row.method == DENSE else row.match
    values |= {"asked_bits_per_weight": asked and asked.bits_per_weight, "off_budget": asked and row.off_budget}
    values |= {name: row.environment.get(name) for name in ("machine", "commit")}
    return values | _task(row.task) | _noise(row)


def _numbers(group: BaseModel | None, kind: type[BaseModel]) -> dict[str, Any]:
    names = (name for name in kind.model_fields if name not in SERIES)
    return {f"{name}_nats" if name.startswith("kl_") else name: getattr(group, name, None) for name in names}


def _task(score: TaskScore | None) -> dict[str, Any]:
    """`task_acc`, `task_acc_stderr` and so on: shares, as the harness has them."""
    if score is None:
        return {}
    figures = score.metrics | {f"{name}_stderr": error for name, error in score.stderr.items()}
    told = {name: getattr(score, name) for name in TaskScore.model_fields if name not in (*SERIES, "task")}
    return {"task": score.task} | {f"task_{name.removeprefix('task_')}": v for name, v in (told | figures).items()}


def _noise(row: Row) -> dict[str, float]:
    """`noise_bfloat16_nll`: nats per token, or a share of the items."""
    return {
        f"noise_{change}_{name}".replace(" ", "_"): moved
        for change, figures in row.noise.items()
        for name, moved in figures.items()
    }
