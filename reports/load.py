"""Rows from results files, and the flat frame of all their numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel

from suite.errors import ResultError
from suite.results import DENSE, JOURNAL_NAME, Cost, Journal, Quality, Row, Size, TaskScore

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
    files = sorted(path.rglob(JOURNAL_NAME)) if path.is_dir() else [path]
    newest: dict[str, Row] = {}
    for row in (row for file in files for row in Journal(file).rows()):
        if row.row_id not in newest or row.created >= newest[row.row_id].created:
            newest[row.row_id] = row
    if not newest:
        raise ResultError(f"no rows at {path}; name a {JOURNAL_NAME} or a directory that holds one")
    return list(newest.values())


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
