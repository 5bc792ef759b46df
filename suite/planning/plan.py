"""A recipe's plan: what a run would do from here on, what fits and what does not, what it would take.

The recipe is prepared as a run prepares it, so that whatever a run would refuse is refused here in the same words.
Nothing is left in the results folder.
"""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch

from suite.architecture import decoder_blocks
from suite.checkpoint import is_finished
from suite.config import Recipe
from suite.demand import Demand, demand_of
from suite.dimensions import Dimensions
from suite.environment import GIB, describe
from suite.executors import device_of
from suite.files import nearest_existing
from suite.jobs import Job
from suite.planning.figures import CellPlan, ModelPlan, Plan, Seconds
from suite.planning.fit import prices, shapes_in, unfit
from suite.planning.forecast import Forecast, spread
from suite.planning.stopwatch import Stopwatch, seconds_per_byte, threads
from suite.prepare import prepare, subject_of
from suite.results import JOURNAL_NAME, Journal
from suite.runner import Making, Options, makings
from suite.scoring import row_id
from suite.speed import at_work, measured
from suite.work import Bench, Measure, Reference, Stand, Walk, Work


def plan(recipe: Recipe, options: Options) -> Plan:
    """What a run of the recipe would do and take. SuiteError for whatever a run would refuse."""
    device = device_of(options.workers, options.device)
    folder = options.out.resolve() / recipe.name
    start = time.perf_counter()
    prepared = prepare(recipe, folder, offline=options.offline)
    preparing = time.perf_counter() - start
    bench = Bench(recipe, folder, device, options.offline, {each.model: each for each in prepared})
    known = {row.row_id for row in Journal(folder / JOURNAL_NAME).rows() if row.status != "failed"}
    workers = options.workers.count or 1
    of_each = options.workers.cpus or max(1, (os.cpu_count() or 1) // workers)
    with at_work(device), threads(of_each if workers > 1 else None):
        drafts = [_Draft(bench.stand(each.model), known, workers) for each in prepared]
        models = [draft.planned() for draft in drafts]
    demand = reduce(Demand.then, (model.demand for model in models))
    return Plan(
        recipe=recipe.name,
        folder=str(folder),
        device=str(device),
        workers=workers,
        models=tuple(models),
        demand=replace(demand, host_bytes=demand.host_bytes * workers),
        host_bytes_there=int(describe()["memory_gib"] * GIB),
        device_bytes_there=_device_bytes(device),
        disk_bytes_free=shutil.disk_usage(nearest_existing(folder)).free,
        seconds=sum((model.seconds for model in models), Seconds(other=preparing)),
        wall_seconds=sum(draft.wall_seconds for draft in drafts) + preparing * (1 + (workers > 1)),
        probe_seconds=time.perf_counter() - start - preparing,
    )


def _device_bytes(device: torch.device) -> int | None:
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


@dataclass
class _Draft:
    """The plan of one model as it comes about."""

    stand: Stand
    known: set[str]  # rows that are there
    workers: int
    wall_seconds: float = 0.0  # with all workers at it

    def planned(self) -> ModelPlan:
        """What is there, what is to be done, and how long it takes."""
        subject_of.cache_clear()
        with measured() as loading:
            subject = self.stand.subject
        model, jobs = self.stand.prepared.sizes, self.stand.jobs
        for job in self.stand.with_bases.values():
            job.look(decoder_blocks(subject.model))
        cells = {job.id: self._cell(model, job) for job in jobs.values()}
        references, makings, measures = self._work(cells)
        walks = [work for work in makings if isinstance(work, Walk)]
        watch = Stopwatch(subject, self.stand.bench.device)
        speed = seconds_per_byte(nearest_existing(self.stand.bench.folder)) if walks else 0.0
        forecast = Forecast(self.stand, model, watch, loading.seconds, speed)
        referring = [forecast.reference(work) for work in references]
        making = [forecast.making(work) for work in makings]
        measuring = [forecast.measure(work) for work in measures]
        owners = _owners(list(jobs.values()))
        for found in (*making, *measuring):
            for key, seconds in found.items():
                own = owners[key]
                cells[own] = replace(cells[own], seconds=cells[own].seconds + seconds)
        stages = [seconds.total for seconds in referring], [*map(_total, making)], [*map(_total, measuring)]
        self.wall_seconds = sum(spread(stage, self.workers) for stage in stages)
        everything: list[Work] = [*references, *makings, *measures]
        demands = [demand_of(work, self.stand) for work in everything]
        rest = Demand(disk_bytes=model.rest_bytes if walks else 0)
        return ModelPlan(
            name=self.stand.prepared.model,
            parameters=model.parameters,
            blocks=len(model.layout.blocks),
            linears=tuple(shapes_in(model.layout).items()),
            cells=tuple(cells.values()),
            evaluations=tuple(each.describe() for each in self.stand.evaluations.values()),
            walks=len(walks),
            forward_tokens=round(forecast.forward_tokens / len(model.layout.blocks)),
            scored_tokens=forecast.scored_tokens,
            references=sum(referring, Seconds()),
            demand=reduce(Demand.then, demands, rest),
            warnings=tuple(_warnings(model, list(jobs.values()), watch)),
        )

    def _cell(self, model: Dimensions, job: Job) -> CellPlan:
        """A cell as it stands, without its seconds."""
        cell, entry = job.cell, self.stand.prepared.entry(job.cell)
        reasons = unfit(cell, model.layout) if cell in self.stand.prepared.unsupported else ()
        blocks = range(len(model.layout.blocks))
        bits = None if reasons else model.bits_per_weight(cell)
        match = self.stand.bench.recipe.match
        missing = self.missing(job)
        return CellPlan(
            cell_id=job.id,
            label=cell.label,
            seed=cell.seed,
            calibration=cell.budget.describe() if cell.budget else None,
            calibration_tokens=entry.count if entry else 0,
            unfit=reasons,
            bits_per_weight=bits,
            model_bytes=None if reasons else model.rest_bytes + model.cell_bytes(job.cell, blocks),
            off_budget=bits is not None and match is not None and match.misses(bits),
            blocks_there=len(blocks) - len(job.pending),
            finished=is_finished(job.folder, job.id),
            rows_there=len(self.stand.evaluations) - len(missing),
            rows_missing=len(missing),
        )

    def missing(self, job: Job) -> list[str]:
        """The evaluations that a cell has no row of."""
        return [key for key, each in self.stand.evaluations.items() if row_id(job.id, each) not in self.known]

    def _work(self, cells: dict[str, CellPlan]) -> tuple[list[Reference], list[Making], list[Measure]]:
        """The pieces of work that a run would do."""
        name = self.stand.prepared.model
        sound = [self.stand.job(key) for key, each in cells.items() if each.to_do]
        references = [Reference(name, key) for key in self.stand.evaluations] if sound else []
        measures = [Measure(name, job.id, tuple(self.missing(job))) for job in sound]
        planned = (work for _, own in makings(self.stand, sound, self.workers) for work, _ in own)
        return references, list(dict.fromkeys(planned)), measures


def _owners(jobs: Sequence[Job]) -> dict[str, str]:
    """By the ids of cells, those of the recipe's that they are for: themselves, or what is made from them."""
    owners = {job.id: job.id for job in jobs}
    for job in jobs:
        waiting = list(job.bases)
        while waiting:
            base = waiting.pop()
            owners.setdefault(base.id, job.id)
            waiting += base.bases
    return owners


def _total(found: dict[str, Seconds]) -> float:
    return sum(seconds.total for seconds in found.values())


def _warnings(model: Dimensions, jobs: Sequence[Job], watch: Stopwatch) -> Iterator[str]:
    """What does not stop a run, and is better known before it."""
    said: dict[str, list[str]] = {}
    for job in jobs:
        for line in prices(job.cell, model.layout):
            said.setdefault(line, []).append(f"{job.cell.method.title} {job.cell.method.variant}")
        if job.cell.method in watch.failures:
            failure = watch.failures[job.cell.method]
            said.setdefault(f"fails on the first block: {failure}", []).append(job.cell.label)
    for line, labels in said.items():
        yield f"{', '.join(dict.fromkeys(labels))}: {line}"
    alone = sum(job.in_sequence for job in jobs)
    if alone > 1:
        yield f"{alone} cells are fed by their own compressed blocks: each takes a walk of its own"
