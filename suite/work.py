"""The pieces of a recipe's work that any process can do: references, walks, measurements.

A piece is a few names, so that it travels. What it takes, tokens and evaluations, the process that does it was
given or has prepared itself, and the model it loads; it finds all by the same ids or refuses. Shards, checkpoints
and references go to the results folder, which all processes see. Rows go back to the driver, the only one that
writes them down.
"""

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch

from suite.blockwise import to_host
from suite.cell import Cell
from suite.checkpoint import Loaded, finish, is_finished, load_cell, write_rest
from suite.compress import Fed, walk
from suite.config import Recipe
from suite.environment import describe
from suite.errors import CheckpointError, EnvironmentProblem
from suite.evaluations import Evaluation, Measured, Noise, dense_cache
from suite.gradients import Gradients
from suite.jobs import Job
from suite.ledger import Entry
from suite.models import Subject
from suite.prepare import Prepared, prepare_model, subject_of
from suite.results import MANIFEST_NAME, Row
from suite.scoring import ARITHMETIC, identity, row_id, score
from suite.speed import Phase, measured
from suite.survey import survey

SENT_BYTES = 32 << 20
"""Of tokens and texts, to each worker: with more it prepares for itself, which gives the same."""


@dataclass
class Bench:
    """Where one process works on a recipe, and what it has prepared so far."""

    recipe: Recipe
    folder: Path
    device: torch.device
    offline: bool
    prepared: dict[str, Prepared] = field(default_factory=dict)
    stands: dict[str, "Stand"] = field(default_factory=dict)

    def for_worker(self) -> "Bench":
        """The same for a process that sees one device, with what is prepared, unless that is too much to send."""
        prepared = self.prepared if sum(each.size for each in self.prepared.values()) <= SENT_BYTES else {}
        return Bench(self.recipe, self.folder, torch.device(self.device.type), self.offline, dict(prepared))

    def stand(self, model: str) -> "Stand":
        """One model of the recipe, prepared."""
        if model not in self.prepared:
            self.prepared[model] = prepare_model(self.recipe, model, dense_cache(self.folder), self.offline)
        if model not in self.stands:
            self.stands[model] = Stand(self, self.prepared[model])
        return self.stands[model]


@dataclass
class Stand:
    """One model on the bench."""

    bench: Bench
    prepared: Prepared
    noise: dict[str, Noise] = field(default_factory=dict)
    surveyed: dict[str, tuple[Gradients, str | None]] = field(default_factory=dict)  # by id, with what went wrong
    _made: dict[str, Job] = field(default_factory=dict)  # by id

    @property
    def subject(self) -> Subject:
        """The loaded model. EnvironmentProblem where it is not the one that was prepared, elsewhere perhaps."""
        subject = subject_of(self.prepared.model, self.bench.offline)
        if subject.fingerprint != self.prepared.fingerprint:
            raise EnvironmentProblem(
                f"{self.prepared.model} on {platform.node()} is not the model that the recipe was prepared with: "
                "its weights or its configuration differ; make them the same on all machines, and leave them alone"
            )
        return subject

    @cached_property
    def evaluations(self) -> dict[str, Evaluation]:
        """By their ids."""
        return {evaluation.id: evaluation for evaluation in self.prepared.evaluations}

    @cached_property
    def jobs(self) -> dict[str, Job]:
        """The model's cells by their ids, in the recipe's order."""
        found = map(self._job, self.prepared.cells)
        return {job.id: job for job in found}

    def _job(self, cell: Cell) -> Job:
        """A cell on its way, with those that it is made from, which have one way however often they are used."""
        entry, fingerprint = self.prepared.entry(cell), self.prepared.fingerprint
        cell_id = cell.identity(fingerprint, entry.id if entry else None, ARITHMETIC)
        if cell_id not in self._made:
            bases = tuple(map(self._job, cell.bases))
            self._made[cell_id] = Job(cell, cell_id, self.bench.folder / "cells" / cell_id, fingerprint, bases)
        return self._made[cell_id]

    @property
    def with_bases(self) -> Mapping[str, Job]:
        """The jobs of all cells, those that others are made from before them."""
        return self._made if self.jobs else {}

    def job(self, cell_id: str) -> Job:
        """EnvironmentProblem when this process has made another cell of the driver's recipe."""
        if cell_id not in self.with_bases:
            raise EnvironmentProblem(
                f"cell {cell_id} of {self.prepared.model} is not what {platform.node()} makes of the same recipe: "
                "it has another model, text or version of this package; make them the same on all machines"
            )
        return self._made[cell_id]

    def survey(self, job: Job) -> Gradients | None:
        """Whatever a cell takes from the whole model, taken once; a failure marks the job."""
        entry = self.prepared.entry(job.cell)
        if entry is None or not job.cell.needs_gradient:
            job.trouble = None
            return None
        if job.id not in self.surveyed:
            job.trouble = None
            found = survey(self.subject, job, entry, self.bench.folder, self.bench.device)
            self.surveyed[job.id] = found, job.trouble
        found, job.trouble = self.surveyed[job.id]
        return found

    def refer(self, evaluation_id: str) -> Noise:
        """The noise floor of an evaluation, once its dense reference is there."""
        if evaluation_id not in self.noise:
            evaluation, cache = self.evaluations[evaluation_id], dense_cache(self.bench.folder)
            self.noise[evaluation_id] = evaluation.prepare(self.subject, self.bench.device, cache)
            to_host(self.subject.model)
        return self.noise[evaluation_id]


class Work(Protocol):
    """A piece of work: frozen, and small enough to be sent anywhere."""

    @property
    def model(self) -> str:
        """The model that it is about."""

    @property
    def label(self) -> str:
        """What it is, in a few words."""

    @property
    def is_one_loop(self) -> bool:
        """Whether a loop of it is all of it, so that a part of the loop is as large a part of the piece."""

    def run(self, bench: Bench) -> Iterator[Any]:
        """Do it; what is found on the way is yielded at once. Doing it again does no harm."""


@dataclass(frozen=True)
class Reference:
    """The dense model under one evaluation; finds nothing."""

    is_one_loop: ClassVar[bool] = False
    model: str
    evaluation: str  # its id

    @property
    def label(self) -> str:
        return f"dense reference of {self.model}"

    def run(self, bench: Bench) -> Iterator[None]:
        """CalibrationError when the dense model does not score what the recipe says."""
        bench.stand(self.model).refer(self.evaluation)
        yield from ()


@dataclass(frozen=True)
class Walk:
    """Cells that share a walk, on all blocks or some; finds which cells got into trouble, and why."""

    is_one_loop: ClassVar[bool] = True
    model: str
    cells: tuple[str, ...]
    blocks: range | None = None

    @property
    def label(self) -> str:
        some = f", blocks {self.blocks.start} to {self.blocks.stop - 1}" if self.blocks else ""
        return f"walk of {len(self.cells)} cell{'s' * (len(self.cells) > 1)}{some}"

    def run(self, bench: Bench) -> Iterator[dict[str, str]]:
        stand = bench.stand(self.model)
        jobs = [stand.job(cell) for cell in self.cells]
        entry = stand.prepared.entry(jobs[0].cell)
        gradients = [found for job in jobs if (found := stand.survey(job))]  # of one budget, so all the same
        batch_tokens = bench.recipe.batch_tokens
        fed = Fed(
            entry.tokens if entry else None,
            batch_tokens,
            only=self.blocks,
            gradients=gradients[0] if gradients else None,
        )
        walk(stand.subject, jobs, fed, bench.device)
        yield {job.id: job.trouble for job in jobs if job.trouble}


@dataclass(frozen=True)
class Measure:
    """One cell: its checkpoint completed, loaded back and measured; finds a row for each evaluation asked for."""

    is_one_loop: ClassVar[bool] = False
    model: str
    cell: str
    evaluations: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"evaluation of cell {self.cell}"

    def run(self, bench: Bench) -> Iterator[tuple[Row, Measured | None]]:
        stand = bench.stand(self.model)
        job = stand.job(self.cell)
        if not is_finished(job.folder, job.id):
            shared = write_rest(stand.subject, bench.folder / "shared" / stand.subject.fingerprint[:16])
            finish(stand.subject, job, shared, _about(job, stand.prepared.entry(job.cell)))
        loaded, loading = _loaded(job, bench.device)
        for evaluation_id in self.evaluations:
            row = empty_row(stand, job, stand.evaluations[evaluation_id])
            if isinstance(loaded, str):
                yield row.model_copy(update={"status": "failed", "reason": loaded}), None
                continue
            row = row.model_copy(update={"noise": stand.refer(evaluation_id)})
            yield score(row, loaded, stand.evaluations[evaluation_id], bench.device, loading)
            loading = Phase()  # the first row of a cell bears the cost of loading it


def _loaded(job: Job, device: torch.device) -> tuple[Loaded | str, Phase]:
    """The cell as it came back from disk, or why it did not, and what that took."""
    with measured() as loading:
        try:
            return load_cell(job.folder, device=device), loading
        except CheckpointError as error:
            (job.folder / MANIFEST_NAME).unlink(missing_ok=True)  # run again, the recipe makes what is damaged
            return str(error), loading


def empty_row(stand: Stand, job: Job, evaluation: Evaluation) -> Row:
    """The row of a cell under an evaluation, with all but what is measured."""
    cell, recipe, prepared = job.cell, stand.bench.recipe, stand.prepared
    entry = prepared.entry(cell)
    return Row(
        row_id=row_id(job.id, evaluation),
        cell_id=job.id,
        status="ok",
        recipe=recipe.name,
        recipe_sha256=recipe.sha256,
        model=prepared.model,
        model_fingerprint=prepared.fingerprint,
        model_note=prepared.note,
        **_of_cell(cell),
        revision=cell.method.revision,
        calibration=_calibration(cell, entry),
        calibration_tokens=entry.count if entry else 0,
        ledger=entry.id if entry else None,
        match=recipe.match,
        reproduces=recipe.reproduce,
        **identity(evaluation),
        environment=describe() | {"device": str(stand.bench.device)},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _of_cell(cell: Cell) -> dict[str, Any]:
    """What a row and a manifest both say of a cell."""
    return {
        "method": cell.method.name,
        "title": cell.method.title,
        "variant": cell.variant,
        "settings": cell.settings,
        "statistics_mode": cell.mode,
        "seed": cell.seed,
        "layers": cell.layers,
    }


def _calibration(cell: Cell, entry: Entry | None) -> str | None:
    """The cell's budget in words, its split by name."""
    if cell.budget is None or entry is None:
        return None
    return cell.budget.model_copy(update={"split": entry.budget.split}).describe()


def _about(job: Job, entry: Entry | None) -> dict[str, Any]:
    return {**_of_cell(job.cell), "ledger": entry.id if entry else None}
