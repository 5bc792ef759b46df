"""From a finished checkpoint to a row: which row an evaluation makes, what it takes, and where it is put down."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from suite.audit import summary
from suite.checkpoint import Loaded
from suite.evaluations import Evaluation, Measured
from suite.files import write_atomically
from suite.masking import masked_in
from suite.results import Cost, Journal, Row
from suite.schema import digest
from suite.speed import Phase, measured

if TYPE_CHECKING:  # a worker that only measures needs no MLflow
    from suite.tracking import Tracker

ARITHMETIC = "float32"  # of everything between stored weights; part of a cell's identity


def row_id(cell_id: str, evaluation: Evaluation) -> str:
    """One cell under one evaluation."""
    return digest([cell_id, evaluation.id, evaluation.tokens_id])[:16]


def in_words(evaluation: Evaluation) -> str:
    """The row's `protocol`."""
    return f"{evaluation.describe()}, {ARITHMETIC}"


def identity(evaluation: Evaluation) -> dict[str, Any]:
    """The fields of a row that say how it was measured."""
    return {
        "measures": evaluation.measures,
        "protocol": in_words(evaluation),
        "protocol_id": evaluation.id,
        "evaluated_tokens": evaluation.tokens_id,
    }


def score(
    row: Row, loaded: Loaded, evaluation: Evaluation, device: torch.device, loading: Phase
) -> tuple[Row, Measured]:
    """Measure a checkpoint and fill in its row; it is `void` when the model's output is not finite.

    `loading` is what it took to read the checkpoint, or nothing where an earlier row bears that.
    """
    with measured() as phase:
        found = evaluation.measure(loaded.model, device)
    facts = {
        "size": loaded.size,
        "cost": _cost(loaded.manifest, phase.after(loading)),
        "audit": _audit(loaded.manifest),
        "curves": {name: tuple(losses) for name, losses in loaded.manifest.get("curves", {}).items()},
    }
    if found.finite:
        return row.model_copy(update={**facts, "quality": found.quality, "task": found.task}), found
    return row.model_copy(update={**facts, "status": "void", "reason": "the model's output is not finite"}), found


def _audit(manifest: dict[str, Any]) -> dict[str, Any]:
    """What a reader must know of all layers, and what was spent beside the walk."""
    stages = {"stages": manifest["stages"]} if manifest.get("stages") else {}
    return summary(manifest["layers"]) | {"not_compressed": manifest["not_compressed"]} | stages


@dataclass(frozen=True)
class Desk:
    """Where the rows of one results folder are put down: items beside it, the journal, then the tracker."""

    folder: Path
    tracker: "Tracker"

    @property
    def journal(self) -> Journal:
        """The rows of this folder."""
        return self.tracker.journal

    def record(self, row: Row, found: Measured | None = None) -> Row:
        """Put down one row, secrets masked, with what a task found on each item."""
        if found and found.items:
            lines = "".join(json.dumps(item) + "\n" for item in found.items)
            write_atomically(self.folder / "items" / f"{row.row_id}.jsonl", lines.encode())
        told = row.model_dump()
        if (hidden := masked_in(told)) != told:
            row = Row.model_validate(hidden)
        self.journal.append(row)
        self.tracker.record(row)
        return row


def _cost(manifest: dict[str, Any], evaluation: Phase) -> Cost:
    device_peaks = [p for p in (manifest["peak_device_memory_gib"], evaluation.peak_device_memory_gib) if p]
    return Cost(
        calibrate_seconds=manifest["seconds"]["calibrate_seconds"],
        compress_seconds=manifest["seconds"]["compress_seconds"],
        further_seconds=sum(stage.get("seconds", 0.0) for stage in manifest.get("stages", {}).values()),
        evaluate_seconds=evaluation.seconds,
        peak_memory_gib=max(manifest["peak_memory_gib"], evaluation.peak_memory_gib),
        peak_device_memory_gib=max(device_peaks, default=None),
    )
