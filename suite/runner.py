"""A recipe from beginning to end, in the order one would tell it: prepare, walk, evaluate, record.

Nothing that exists is computed again: not a block with its shard, not a row in the journal. A cell that cannot run
or fails becomes a row that says why, and the study goes on.
"""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout

from suite.checkpoint import Loaded, finish, is_finished, load_cell, write_rest
from suite.compress import Job, group_key, walk
from suite.config import Cell, Recipe
from suite.environment import describe
from suite.errors import CheckpointError, ResultError
from suite.evaluations import Evaluation, Noise, dense_cache
from suite.files import write_atomically
from suite.ledger import Entry, save_entry
from suite.models import Subject
from suite.prepare import Prepared, pick_device, prepare, subject_of
from suite.results import Row
from suite.scoring import ARITHMETIC, Desk, identity, row_id, score
from suite.speed import Phase, at_work, measured
from suite.tracking import Tracker, default_uri

logger = logging.getLogger(__name__)


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
        alone(folder),
        Tracker(folder, uri, experiment=recipe.name, recipe_text=recipe_text) as tracker,
    ):
        recipe_path = folder / f"recipe-{recipe.sha256[:8]}.yaml"
        write_atomically(recipe_path, recipe_text.encode())
        study = _Study(recipe, folder, device, Desk(folder, tracker, [recipe_path]))
        for model in prepared:
            study.expect(model, options.offline)
        rows = [row for model in prepared for row in study.run(model, subject_of(model.model, options.offline))]
    once = {row.row_id: row for row in rows}  # two names of one model make the same rows
    return Outcome(folder, list(once.values()), uri, len(tracker.pending()))


@contextmanager
def alone(folder: Path) -> Iterator[None]:
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
    desk: Desk

    def expect(self, model: Prepared, offline: bool) -> None:
        """CalibrationError when a dense model does not score what the recipe says, before any is compressed."""
        if stated := [each for each in model.evaluations if each.expects(model.model)]:
            subject = subject_of(model.model, offline)
            for evaluation in stated:
                evaluation.prepare(subject, self.device, dense_cache(self.folder))
            subject.model.to("cpu")

    def run(self, model: Prepared, subject: Subject) -> list[Row]:
        """All rows of one model, old and new."""
        for entry in model.entries.values():
            save_entry(entry, self.folder / "ledger")
        jobs = [self._job(cell, model.entry(cell), subject) for cell in model.cells]
        wanted = {job.id: [row_id(job.id, evaluation) for evaluation in model.evaluations] for job in jobs}
        known = {row.row_id: row for row in self.desk.journal.rows() if row.status != "failed"}
        waiting = [job for job in jobs if any(each not in known for each in wanted[job.id])]
        for job in waiting:
            if reason := model.unsupported.get(job.cell):
                job.trouble = f"unsupported: {reason}"
        noise = self._dense(model, subject) if any(not job.trouble for job in waiting) else {}
        for group in _groups(waiting):
            self._compress(subject, group, model)
            for job in group:
                known |= {row.row_id: row for row in self._evaluate(subject, job, model, noise, known)}
        return [  # in today's words: a text that was measured before may be named anew
            known[each].model_copy(update=identity(evaluation))
            for job in jobs
            for each, evaluation in zip(wanted[job.id], model.evaluations, strict=True)
        ]

    def _job(self, cell: Cell, entry: Entry | None, subject: Subject) -> Job:
        cell_id = cell.identity(subject.fingerprint, entry.id if entry else None, ARITHMETIC)
        return Job(cell, cell_id, self.folder / "cells" / cell_id)

    def _dense(self, model: Prepared, subject: Subject) -> dict[str, Noise]:
        """What every evaluation needs of the dense model -> the noise floor of each."""
        cache = dense_cache(self.folder)
        noise = {each.id: each.prepare(subject, self.device, cache) for each in model.evaluations}
        subject.model.to("cpu")
        return noise

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
        self, subject: Subject, job: Job, model: Prepared, noise: dict[str, Noise], known: Collection[str]
    ) -> Iterator[Row]:
        """Load the cell back, measure it by every evaluation that has no row yet, and record a row each."""
        loaded, loading = self._loaded(job)
        for evaluation in model.evaluations:
            row = self._row(subject, job, model.entry(job.cell), evaluation)
            if row.row_id in known:
                continue
            if loaded is None:
                status, _, reason = (job.trouble or "failed: unknown").partition(": ")
                yield self.desk.record(row.model_copy(update={"status": status, "reason": reason}))
            else:
                row = row.model_copy(update={"noise": noise[evaluation.id]})
                yield self.desk.record(*score(row, loaded, evaluation, self.device, loading))
                loading = Phase()  # the first row of a cell bears the cost of loading it

    def _loaded(self, job: Job) -> tuple[Loaded | None, Phase]:
        """The cell as it came back from disk and what that took; None, and the job in trouble, if it did not."""
        loading = Phase()
        if job.trouble is None:
            logger.info("evaluating %s", job.cell.label)
            try:
                with measured() as loading:
                    return load_cell(job.folder), loading
            except CheckpointError as error:
                job.trouble = f"failed: {error}"
        return None, loading

    def _row(self, subject: Subject, job: Job, entry: Entry | None, evaluation: Evaluation) -> Row:
        cell = job.cell
        return Row(
            row_id=row_id(job.id, evaluation),
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
            revision=cell.method.revision,
            calibration=_calibration(cell, entry),
            calibration_tokens=entry.count if entry else 0,
            ledger=entry.id if entry else None,
            **identity(evaluation),
            environment=describe() | {"device": str(self.device)},
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )


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
