"""A recipe from beginning to end, in the order one would tell it: prepare, walk, evaluate, record.

Nothing that exists is computed again: not a block with its shard, not a row in the journal. A cell that cannot run
or fails becomes a row that says why, and the study goes on. The driver, this module, alone writes rows; the work
between them is done here or by workers (suite/work.py, suite/schedule.py).
"""

import itertools
import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from suite.checkpoint import is_finished
from suite.config import Recipe
from suite.derive import Derive, Survey
from suite.effort import expected, passing
from suite.errors import ResultError
from suite.evaluations import Measured
from suite.executors import Workers, device_of, pool_of
from suite.files import alone, write_atomically
from suite.jobs import Job, groups
from suite.ledger import save_entry
from suite.prepare import prepare
from suite.results import Row
from suite.schedule import GivenUp, Schedule
from suite.scoring import Desk, identity, row_id
from suite.tracking import Tracker, default_uri
from suite.work import Bench, Measure, Reference, Stand, Walk, Work, empty_row

logger = logging.getLogger(__name__)

Making = Walk | Survey | Derive
"""Work by which cells come about."""

LEAST_BLOCKS = 4
"""Blocks that a worker takes of a walk, at least: those before them it has to run, too."""


@dataclass(frozen=True)
class Options:
    """Where a recipe runs, by whom, and where its results go."""

    out: Path = Path("runs")
    offline: bool = False
    device: str = "auto"
    workers: Workers = Workers()


@dataclass(frozen=True)
class Outcome:
    """What a run leaves behind: the recipe's rows in its own order, and where they went."""

    folder: Path
    rows: list[Row]
    tracking_uri: str
    untracked: int


def run(recipe: Recipe, options: Options) -> Outcome:
    """Run or resume a recipe. SuiteError, with nothing written, for anything that the user has to mend first."""
    device = device_of(options.workers, options.device)
    folder = options.out.resolve() / recipe.name
    recipe_text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
    uri = default_uri(options.out)
    with closing(pool_of(options.workers, device)) as pool:
        prepared = prepare(recipe, folder, offline=options.offline)
        bench = Bench(recipe, folder, device, options.offline, {each.model: each for each in prepared})
        with (
            alone(folder),
            Tracker(folder, uri, experiment=recipe.name, recipe_text=recipe_text) as tracker,
            closing(pool),  # nobody is at work any more once the folder is free for others
        ):
            write_atomically(folder / f"recipe-{recipe.sha256[:8]}.yaml", recipe_text.encode())
            pool.take(bench)
            study = _Study(bench, Desk(folder, tracker), Schedule(pool, partial(expected, bench)))
            study.begin()
            study.work()
            rows = study.rows()
    return Outcome(options.out / recipe.name, rows, uri, len(tracker.pending()))


@dataclass
class _Study:
    """The driver: knows which rows there are, has the others made, and writes them down."""

    bench: Bench
    desk: Desk
    schedule: Schedule
    known: dict[str, Row] = field(default_factory=dict)  # by row_id
    walks: dict[str, set[Work]] = field(default_factory=dict)  # by the cell that waits for them
    stopped: set[str] = field(default_factory=set)  # cells that will not be made
    troubles: dict[str, dict[int, str]] = field(default_factory=dict)  # by cell, and by where its walk began

    def begin(self) -> None:
        """Find out what is missing, and put the work for it in order."""
        self.known = {row.row_id: row for row in self.desk.journal.rows() if row.status != "failed"}
        stands = [self.bench.stand(model) for model in self.bench.prepared]
        stated: list[Work] = []  # what is expected of any model is checked before the first is compressed
        for stand in stands:
            for entry in stand.prepared.entries.values():
                save_entry(entry, self.bench.folder / "ledger")
            expecting = [each for each in stand.prepared.evaluations if each.expects(stand.prepared.model)]
            stated += [Reference(stand.prepared.model, each.id) for each in expecting]
        for work in stated:
            self.schedule.add(work)
        for stand in stands:
            self._plan(stand, stated)

    def _plan(self, stand: Stand, stated: Sequence[Work]) -> None:
        """The work for one model."""
        # of two names of one model the first has the work
        waiting = [job for job in stand.jobs.values() if self._missing(stand, job) and job.id not in self.walks]
        for job in waiting:
            if reason := stand.prepared.unsupported.get(job.cell):
                self._stop(stand, job, f"unsupported: {reason}")
        sound = [job for job in waiting if job.cell not in stand.prepared.unsupported]
        references = [Reference(stand.prepared.model, each) for each in stand.evaluations] if sound else []
        for reference in references:
            self.schedule.add(reference, stated)
        made = list(makings(stand, sound, self.schedule.pool.slots))
        parts = [each for job, works in made for each in works if job.cell.budget and _is_part(each[0])]
        parts += [each for _, works in made for each in works if _is_part(each[0])]
        for work, after in parts:  # all workers are needed for these; what is fed no tokens then fills the gaps
            self.schedule.add(work, [*stated, *after])
        for job, works in made:
            for work, after in works:
                self.schedule.add(work, [*stated, *after])
            self.walks[job.id] = {work for work, _ in works}
            if job in sound:
                measure = Measure(stand.prepared.model, job.id, tuple(self._missing(stand, job)))
                self.schedule.add(measure, [*references, *self.walks[job.id], *stated])

    def _missing(self, stand: Stand, job: Job) -> list[str]:
        """The evaluations that a cell has no row of."""
        return [key for key, each in stand.evaluations.items() if row_id(job.id, each) not in self.known]

    def work(self) -> None:
        """Have everything done, and write down what comes of it."""
        for work, found in self.schedule.results():
            stand = self.bench.stand(work.model)
            if isinstance(work, Making):
                self._made(stand, work, found)
            elif isinstance(work, Measure) and isinstance(found, GivenUp):
                self._stop(stand, stand.job(work.cell), f"failed: {found.reason}")
            elif isinstance(work, Measure):
                row, measured = found
                if row.row_id not in self.known:  # else a piece that was begun again finds it again
                    self._record(row, measured)
            elif isinstance(found, GivenUp):
                raise ResultError(f"{work.label} could not be made: {found.reason}; run the recipe again")

    def _made(self, stand: Stand, walk: Making, found: Any) -> None:
        """A walk is over, or one part of it. Cells in trouble stop once all parts are: the first block counts."""
        if isinstance(walk, Walk) and isinstance(found, GivenUp) and len(walk.cells) > 1:  # one may be to blame
            parts = [replace(walk, cells=(cell_id,)) for cell_id in walk.cells]
            self.schedule.instead(walk, parts)
            for part in parts:
                self.walks[part.cells[0]].add(part)
            found = {}
        for cell_id in walk.cells:
            trouble = f"failed: {found.reason}" if isinstance(found, GivenUp) else found.get(cell_id)
            if trouble is not None:
                start = walk.blocks.start if isinstance(walk, Walk) and walk.blocks else 0
                self.troubles.setdefault(cell_id, {})[start] = trouble
            self.walks[cell_id].discard(walk)
            if cell_id in self.troubles and not self.walks[cell_id]:
                first = min(self.troubles[cell_id])
                self._stop(stand, stand.job(cell_id), self.troubles[cell_id][first])

    def _stop(self, stand: Stand, job: Job, trouble: str) -> None:
        """A row for every evaluation that a cell in trouble, and whatever is made from it, will not have."""
        model, (status, _, reason) = stand.prepared.model, trouble.partition(": ")
        self.schedule.drop(Derive(model, job.id))
        missing = self._missing(stand, job) if job.id in stand.jobs else []
        self.schedule.drop(Measure(model, job.id, tuple(missing)))
        for evaluation_id in missing:
            row = empty_row(stand, job, stand.evaluations[evaluation_id])
            self._record(row.model_copy(update={"status": status, "reason": reason}))
        self.stopped.add(job.id)
        for other in stand.with_bases.values():
            if job in other.bases and all(base.id in self.stopped for base in other.bases):
                self._stop(stand, other, f"{status}: {job.cell.label}, which it is made from: {reason}")

    def _record(self, row: Row, measured: Measured | None = None) -> None:
        self.known[row.row_id] = self.desk.record(row, measured)

    def rows(self) -> list[Row]:
        """All rows of the recipe, old and new, in its own order and in today's words."""
        words = {"match": self.bench.recipe.match, "reproduces": self.bench.recipe.reproduce}
        found: dict[str, Row] = {}  # two names of one model make the same rows
        for model in self.bench.prepared:
            stand = self.bench.stand(model)
            for job in stand.jobs.values():
                for evaluation in stand.prepared.evaluations:
                    row = self.known[row_id(job.id, evaluation)]
                    found[row.row_id] = row.model_copy(update=words | identity(evaluation))
        return list(found.values())


def makings(
    stand: Stand, jobs: Sequence[Job], slots: int
) -> Iterator[tuple[Job, list[tuple[Making, Sequence[Work]]]]]:
    """Cells after those that they are made from, each with what is left to be done for it, and after what.

    What finished cells are made from is not wanted again.
    """
    wanted = _wanted(jobs)
    made: dict[str, list[tuple[Making, Sequence[Work]]]] = {}
    for group, walks in walks_of(stand, [job for job in wanted if not job.bases], slots):
        surveys = [Survey(stand.prepared.model, job.id) for job in group if walks and job.cell.needs_gradient]
        for job in group:
            own: list[tuple[Making, Sequence[Work]]] = [(each, ()) for each in surveys if each.cell == job.id]
            made[job.id] = [*own, *((walk, surveys) for walk in walks)]
            yield job, made[job.id]
    for job in wanted:
        if job.bases:
            unfinished = not is_finished(job.folder, job.id)
            after = [work for base in job.bases for work, _ in made.get(base.id, ())]
            made[job.id] = [(Derive(stand.prepared.model, job.id), after)] if unfinished else []
            yield job, made[job.id]


def _wanted(jobs: Sequence[Job]) -> list[Job]:
    """Jobs and, before them, those that they are made from, unless they are finished."""
    found: dict[str, Job] = {}
    for job in jobs:
        bases = () if is_finished(job.folder, job.id) else job.bases
        for each in (*_wanted(bases), job):
            found.setdefault(each.id, each)
    return list(found.values())


def walks_of(stand: Stand, jobs: Sequence[Job], slots: int) -> list[tuple[list[Job], list[Walk]]]:
    """Cells in groups that share a walk, each with what is left of it: parts for the workers at its disposal.

    Those that are fed no tokens are done in a moment, and keep no worker from the others.
    """
    together = groups(jobs)
    unfinished = [[job for job in group if not is_finished(job.folder, job.id)] for group in together]
    workers = slots // max(1, sum(any(job.cell.budget for job in todo) for todo in unfinished))
    return [
        (group, _walks(stand, todo, workers) if todo else [])
        for group, todo in zip(together, unfinished, strict=True)
    ]


def _walks(stand: Stand, jobs: Sequence[Job], workers: int) -> list[Walk]:
    """The walk of a group, in as many parts as there are workers for it: any number on the dense model."""
    blocks, cells = stand.prepared.blocks, tuple(job.id for job in jobs)
    parts = 1 if jobs[0].in_sequence else min(workers, blocks // LEAST_BLOCKS)
    if parts <= 1:
        return [Walk(stand.prepared.model, cells)]
    bounds = bounds_of(blocks, parts, passing(stand, jobs))
    return [Walk(stand.prepared.model, cells, range(*pair)) for pair in itertools.pairwise(bounds)]


def _is_part(work: Work) -> bool:
    return isinstance(work, Walk) and work.blocks is not None


def bounds_of(blocks: int, parts: int, share: float) -> list[int]:
    """Where parts of a walk begin and end, so that all take as long.

    A later part first runs all blocks before it, each in a `share` of the seconds of a block of its own.
    """
    shares = [(1 - share) ** part for part in range(parts)]
    bounds = [round(blocks * sum(shares[:part]) / sum(shares)) for part in range(parts + 1)]
    least = [max(bound, part) for part, bound in enumerate(bounds)]  # none is empty
    return [min(bound, blocks - parts + part) for part, bound in enumerate(least)]
