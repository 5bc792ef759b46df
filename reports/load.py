"""Rows from results files with what their runs left beside them, and the flat frame of all their numbers."""

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel

from reports.escape import visible
from reports.filters import chosen
from reports.material import Material, Search
from reports.order import in_order
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
    return in_order(_rows([path]), _folders([path]))


def gather(paths: Sequence[Path], where: str = "", fetched: Sequence[Path] = ()) -> Material:
    """Rows of results files, or of those below directories, that fit a filter, and what lies beside them.

    `fetched` are directories of rows that a store has chosen by a filter of its own. Of equal row_ids the newest.
    Raises ResultError where there are no rows, ConfigError if the filter is wrong or leaves none.
    """
    rows = _rows(paths)
    rows = _newest([*(_fitting(rows, where) if where and rows else rows), *_rows(fetched)])
    folders = _folders([*paths, *fetched])
    parts = [material_of(folder, rows) for folder in folders]
    return Material(
        rows=in_order(rows, folders),
        layers={cell: notes for part in parts for cell, notes in part.layers.items()},
        ledgers={name: entry for part in parts for name, entry in part.ledgers.items()},
        searches=[search for part in parts for search in part.searches],
    )


def newest_run(path: Path) -> Path:
    """Of the runs below a directory that whose results file was written last. ResultError where there is none."""
    found = _journals(path) if path.is_dir() else []
    if not found:
        raise _nothing_at(path)
    return max(found, key=lambda file: file.stat().st_mtime_ns).parent


def material_of(folder: Path, rows: Sequence[Row]) -> Material:
    """These rows with what the results directory `folder` holds of their cells, ledger entries and search.

    What is missing or damaged is left out.
    """
    manifests = _read({row.cell_id: folder / "cells" / row.cell_id / MANIFEST_NAME for row in rows})
    entries = _read({row.ledger: folder / "ledger" / f"{row.ledger}.json" for row in rows if row.ledger})
    recipes = {row.recipe for row in rows}
    return Material(
        rows=rows,
        layers={cell: manifest["layers"] for cell, manifest in manifests.items() if "layers" in manifest},
        ledgers={name: {key: entry[key] for key in entry if key != "spans"} for name, entry in entries.items()},
        searches=[each for each in _searches(folder / "search" / SEARCH_NAME) if each.name in recipes],
    )


def _rows(paths: Sequence[Path]) -> list[Row]:
    """The newest of each id. ResultError for a path without any."""
    found: list[Row] = []
    for path in paths:
        rows = [row for file in _journals(path) for row in Journal(file).rows()]
        if not rows:
            raise _nothing_at(path)
        found += rows
    return _newest(map(_visible, found))


def _visible(row: Row) -> Row:
    values = row.model_dump()
    shown = _shown(values)
    return row if shown == values else Row.model_validate(shown)


def _shown(value: Any) -> Any:
    """The value with all text in it made visible."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {_shown(key): _shown(each) for key, each in value.items()}
    return [_shown(each) for each in value] if isinstance(value, list) else value


def _nothing_at(path: Path) -> ResultError:
    return ResultError(f"no rows at {path}; name a {JOURNAL_NAME} or a directory that holds one")


def _fitting(rows: Sequence[Row], where: str) -> list[Row]:
    kept = chosen(where, [_flat(row) | row.named_settings for row in rows])
    fitting = [row for row, fits in zip(rows, kept, strict=True) if fits]
    if not fitting:
        raise ConfigError(f"--filter is {where!r}, which none of {len(rows)} rows fits; text stands in quotes")
    return fitting


def _folders(paths: Sequence[Path]) -> list[Path]:
    """The runs' folders, each once."""
    return list(dict.fromkeys(file.resolve().parent for path in paths for file in _journals(path)))


def _journals(path: Path) -> list[Path]:
    """The file itself, or those below a directory, links followed. OSError where one may not look."""
    if not path.is_dir():
        return [path]
    found: list[Path] = []
    seen: set[str] = set()  # links may lead in a circle
    for folder, below, files in os.walk(path, onerror=_refuse, followlinks=True):
        here = os.path.realpath(folder)
        below[:] = [] if here in seen else sorted(name for name in below if name != ARTIFACTS)
        if here not in seen and JOURNAL_NAME in files:
            found.append(Path(folder, JOURNAL_NAME))
        seen.add(here)
    return found


def _refuse(error: OSError) -> None:
    raise error


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
