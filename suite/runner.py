"""A recipe from beginning to end, in the order one would tell it: prepare, walk, evaluate, record.

Nothing that exists is computed again: not a block with its shard, not a row in the journal. A cell that cannot run
or fails becomes a row that says why, and the study goes on.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout

from suite.audit import summary
from suite.checkpoint import MANIFEST_NAME, Loaded, finish, is_finished, load_cell, write_rest
from suite.compress import Job, group_key, walk
from suite.config import Cell, Recipe, digest
from suite.environment import describe
from suite.errors import CheckpointError, ResultError
from suite.files import write_atomically
from suite.ledger import Entry, save_entry
from suite.models import Subject
from suite.prepare import Prepared, pick_device, prepare, subject_of
from suite.quality import DenseReference, Windows, measure
from suite.results import JOURNAL_NAME, Cost, Journal, Row
from suite.speed import Phase, at_work, measured
from suite.tracking import Tracker, default_uri

logger = logging.getLogger(__name__)

ARITHMETIC = "float32"  # of everything between stored weights; part of a cell's identity


@dataclass(frozen=True)
class Options:
    """Where a recipe runs and where its results go."""

    out: Path = Path("runs")
    offline: bool = False
    device: str = "auto"


@dataclass(frozen=True)
class Outcome:
    """What a run leaves behind: the recipe's rows in its own order, and where they went."""

    folder: Path
    rows: list[Row]
    tracking_uri: str
    untracked: int


def run(recipe: Recipe, options: Options) -> Outcome:
    """Run or resume a recipe. SuiteError, with nothing written, for anything that the user has to mend first."""
    device = pick_device(options.device)
    folder = options.out / recipe.name
    prepared = prepare(recipe, folder, offline=options.offline)
    recipe_text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
    uri = default_uri(options.out)
    with (
        at_work(device),
        _alone(folder),
        Tracker(folder, uri, experiment=recipe.name, recipe_text=recipe_text) as tracker,
    ):
        recipe_path = folder / f"recipe-{recipe.sha256[:8]}.yaml"
        write_atomically(recipe_path, recipe_text.encode())
        study = _Study(recipe, folder, device, tracker, recipe_path)
        rows = [row for model in prepared for row in study.run(model, subject_of(model.model, options.offline))]
    return Outcome(folder, rows, uri, len(tracker.pending()))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process a results folder. ResultError when another one is at work in it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ResultError(f"another run is writing to {folder}; wait for it or choose another --out") from None
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class _Study:
    recipe: Recipe
    folder: Path
    device: torch.device
    tracker: Tracker
    recipe_path: Path

    @property
    def journal(self) -> Journal:
        return Journal(self.folder / JOURNAL_NAME)

    def run(self, model: Prepared, subject: Subject) -> list[Row]:
        """All rows of one model, old and new."""
        for entry in model.entries.values():
            save_entry(entry, self.folder / "ledger")
        jobs = [self._job(cell, model.entry(cell), subject) for cell in model.cells]
        known = {row.row_id: row for row in self.journal.rows() if row.status != "failed"}
        waiting = [job for job in jobs if any(row_id(job, cut) not in known for cut in model.windows)]
        for job in waiting:
            if reason := model.unsupported.get(job.cell):
                job.trouble = f"unsupported: {reason}"
        references = self._references(model, subject) if any(not job.trouble for job in waiting) else []
        for group in _groups(waiting):
            self._compress(subject, group, model)
            for job in group:
                known |= {row.row_id: row for row in self._evaluate(subject, job, model, references)}
        return [known[row_id(job, cut)] for job in jobs for cut in model.windows]

    def _job(self, cell: Cell, entry: Entry | None, subject: Subject) -> Job:
        cell_id = cell.identity(subject.fingerprint, entry.id if entry else None, ARITHMETIC)
        return Job(cell, cell_id, self.folder / "cells" / cell_id)

    def _references(self, model: Prepared, subject: Subject) -> list[DenseReference]:
        references = []
        for cut in model.windows:
            reference = DenseReference(self.folder / "dense" / f"{subject.fingerprint[:16]}-{cut.tokens_id}")
            reference.prepare(subject.model.to(self.device), cut, self.device)
            references.append(reference)
        subject.model.to("cpu")
        return references

    def _compress(self, subject: Subject, group: list[Job], model: Prepared) -> None:
        """Write the checkpoints of a group that are not on disk yet."""
        todo = [job for job in group if job.trouble is None and not is_finished(job.folder, job.id)]
        if not todo:
            return
        logger.info("compressing %s", ", ".join(job.cell.label for job in todo))
        entry = model.entry(todo[0].cell)
        with measured() as phase:
            walk(subject, todo, entry.tokens if entry else None, self.device, self.recipe.batch_tokens)
        shared = write_rest(subject, self.folder / "shared" / subject.fingerprint[:16])
        for job in todo:
            if job.trouble is None:
                finish(subject, job, shared, _about(job, entry, phase))

    def _evaluate(
        self, subject: Subject, job: Job, model: Prepared, references: list[DenseReference]
    ) -> Iterator[Row]:
        """Load the cell back, measure it by every protocol, and record a row each."""
        loaded, loading = None, Phase()
        if job.trouble is None:
            logger.info("evaluating %s", job.cell.label)
            try:
                with measured() as loading:
                    loaded = load_cell(job.folder)
            except CheckpointError as error:
                job.trouble = f"failed: {error}"
        for number, cut in enumerate(model.windows):
            row = self._row(subject, job, model.entry(job.cell), cut)
            if loaded is None:
                status, _, reason = (job.trouble or "failed: unknown").partition(": ")
                row = row.model_copy(update={"status": status, "reason": reason})
            else:
                row = self._measured(row, loaded, cut, references[number], loading)
                loading = Phase()  # the first protocol of a cell bears the cost of loading it
            self.journal.append(row)
            self.tracker.record(row, [job.folder / MANIFEST_NAME, self.recipe_path])
            yield row

    def _measured(self, row: Row, loaded: Loaded, cut: Windows, reference: DenseReference, loading: Phase) -> Row:
        with measured() as phase:
            quality = measure(loaded.model, cut, reference, self.device)
        phase = phase.after(loading)
        facts = {
            "size": loaded.size,
            "cost": _cost(loaded.manifest, phase),
            "audit": summary(loaded.manifest["layers"]) | {"not_compressed": loaded.manifest["not_compressed"]},
        }
        if math.isfinite(quality.perplexity) and math.isfinite(quality.kl_mean or 0.0):
            return row.model_copy(update={**facts, "quality": quality})
        return row.model_copy(update={**facts, "status": "void", "reason": "the model's output is not finite"})

    def _row(self, subject: Subject, job: Job, entry: Entry | None, cut: Windows) -> Row:
        cell = job.cell
        return Row(
            row_id=row_id(job, cut),
            cell_id=job.id,
            status="ok",
            recipe=self.recipe.name,
            recipe_sha256=self.recipe.sha256,
            model=subject.name,
            model_fingerprint=subject.fingerprint,
            model_note=subject.note,
            method=cell.method.name,
            title=cell.method.title,
            variant=cell.method.variant,
            settings=cell.settings,
            statistics_mode=cell.mode,
            seed=cell.seed,
            calibration=_calibration(cell, entry),
            calibration_tokens=entry.count if entry else 0,
            ledger=entry.id if entry else None,
            protocol=f"{cut.protocol.describe()}, {ARITHMETIC}",
            protocol_id=cut.protocol_id,
            evaluated_tokens=cut.tokens_id,
            environment=describe() | {"device": str(self.device)},
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def row_id(job: Job, cut: Windows) -> str:
    """One cell under one protocol."""
    return digest([job.id, cut.protocol_id, cut.tokens_id])[:16]


def _calibration(cell: Cell, entry: Entry | None) -> str | None:
    """The cell's budget in words, its split by name."""
    if cell.budget is None or entry is None:
        return None
    return cell.budget.model_copy(update={"split": entry.budget.split}).describe()


def _groups(jobs: list[Job]) -> list[list[Job]]:
    """Jobs that share a walk, in order of first appearance."""
    groups: dict[Any, list[Job]] = {}
    for job in jobs:
        groups.setdefault(group_key(job.cell), []).append(job)
    return list(groups.values())


def _about(job: Job, entry: Entry | None, phase: Phase) -> dict[str, Any]:
    cell = job.cell
    return {
        "method": cell.method.name,
        "title": cell.method.title,
        "variant": cell.method.variant,
        "settings": cell.settings,
        "statistics_mode": cell.mode,
        "seed": cell.seed,
        "ledger": entry.id if entry else None,
        "peak_memory_gib": phase.peak_memory_gib,
        "peak_device_memory_gib": phase.peak_device_memory_gib,
    }


def _cost(manifest: dict[str, Any], evaluation: Phase) -> Cost:
    device_peaks = [p for p in (manifest["peak_device_memory_gib"], evaluation.peak_device_memory_gib) if p]
    return Cost(
        calibrate_seconds=manifest["seconds"]["calibrate_seconds"],
        compress_seconds=manifest["seconds"]["compress_seconds"],
        evaluate_seconds=evaluation.seconds,
        peak_memory_gib=max(manifest["peak_memory_gib"], evaluation.peak_memory_gib),
        peak_device_memory_gib=max(device_peaks, default=None),
    )
