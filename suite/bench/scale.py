"""What a size takes: a model of a real shape, drawn at random, through a whole recipe, stage by stage.

Some of its blocks stand for all: what they took is carried on to the whole shape by operations and bytes.
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from suite.bench.plan import SCALE, Plan
from suite.checkpoint import load_cell
from suite.config import Recipe
from suite.dimensions import Dimensions, dimensions_of
from suite.executors import Workers
from suite.prepare import subject_of
from suite.quality import CHANGED, NOISE_WINDOWS
from suite.results import Row
from suite.runner import Options, Outcome, run
from suite.signed import forget
from suite.speed import Phase, at_work, limited, measured
from suite.synthetic import shape_named, synthesize
from suite.work import Bench

REST = "write, finish, track"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a part of the work took, and how many operations or bytes it was, here and for the whole shape."""

    name: str
    seconds: float
    amount: float
    unit: Literal["FLOP", "B"]
    times: float  # as much for all blocks of the shape
    counts: bool = True  # False for what a run does anyway, and was done once more to be timed alone
    peak_gib: float | None = None
    peak_device_gib: float | None = None


@dataclass(frozen=True)
class Agreement:
    """One worker against several: seconds of both, and the largest differences beside the noise floor, in nats."""

    one_seconds: float
    several_seconds: float
    nll: float
    kl: float
    noise_nll: float
    noise_kl: float


@dataclass
class Found:
    """What a run of the plan found; stages are told to `told` as they end."""

    plan: Plan
    told: Callable[[Stage], None]
    ready: Callable[["Found"], None]  # by one worker all is done: several, which may take long, are still to come
    stages: list[Stage] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    blocks: int = 0
    all_blocks: int = 0
    agreement: Agreement | None = None

    def add(
        self,
        name: str,
        phase: Phase,
        unit: Literal["FLOP", "B"],
        amount: Callable[[int], float],
        counts: bool = True,
    ) -> None:
        """A stage whose work is `amount` of a number of blocks."""
        here = amount(self.blocks)
        stage = Stage(
            name=name,
            seconds=phase.seconds,
            amount=here,
            unit=unit,
            times=amount(self.all_blocks) / here if here else 1.0,
            counts=counts,
            peak_gib=phase.peak_memory_gib or None,
            peak_device_gib=phase.peak_device_memory_gib,
        )
        self.stages.append(stage)
        self.told(stage)


def measure(
    plan: Plan, device: torch.device, told: Callable[[Stage], None], ready: Callable[[Found], None]
) -> Found:
    """Draw the model, or find it, and take it through everything. SuiteError for whatever cannot work."""
    found = Found(plan, told, ready, all_blocks=shape_named(plan.shape).blocks)
    with ExitStack() as stack:
        stack.enter_context(at_work(device))
        if plan.device_gib is not None:
            stack.enter_context(limited(device, plan.device_gib))
        results = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nowag-bench-", dir=_near(plan))))
        model = (plan.folder or results) / "model"
        recipe = plan.recipe(model)  # mistakes come before work
        with measured() as drawing:
            synthesize(replace(plan.draw, device=device), model)
        with measured() as loading:
            subject = subject_of(str(model), offline=False)
        sizes = Amounts(plan, dimensions_of(subject))
        found.blocks = len(sizes.model.block_parameters)
        found.add("synthesize", drawing, "B", sizes.stored)
        found.add("load, fingerprint", loading, "B", sizes.stored)
        _recipe(found, sizes, recipe, device, results)
    return found


def _near(plan: Plan) -> Path | None:
    """Results go beside the model, where there is room for either."""
    if plan.folder:
        plan.folder.mkdir(parents=True, exist_ok=True)
    return plan.folder


@dataclass(frozen=True)
class Amounts:
    """Operations and bytes of a number of blocks, from shapes. Attention's own products are left out."""

    plan: Plan
    model: Dimensions

    def stored(self, blocks: int) -> float:
        """Bytes of the model as it is stored."""
        inside = self.model.block_parameters[0] * blocks * self.model.storage_width / 8
        return self.model.rest_bytes + inside

    def walked(self, blocks: int) -> float:
        """Forward and XᵀX of each input."""
        return self._calibrated * blocks * (2.0 * self._weights + 2.0 * self._squares)

    def scored(self, windows: int, blocks: int) -> float:
        """Forward and head of some windows."""
        head = self.model.vocabulary * self.model.hidden
        return 2.0 * windows * self.plan.length * (blocks * self._weights + head)

    @property
    def referred(self) -> int:
        """Windows that the dense reference takes, those of the noise floor with it."""
        few = min(NOISE_WINDOWS, self.plan.windows)
        return self.plan.windows + few * sum(how.batch <= few for how in CHANGED)

    @property
    def _calibrated(self) -> int:
        return self.plan.sequences * self.plan.length

    @property
    def _shapes(self) -> list[list[tuple[int, int]]]:
        return [list(group.values()) for group in self.model.layout.blocks[0]]

    @property
    def _weights(self) -> int:
        return sum(rows * width for group in self._shapes for rows, width in group)

    @property
    def _squares(self) -> int:
        return sum(group[0][1] ** 2 for group in self._shapes)


def _recipe(found: Found, sizes: Amounts, recipe: Recipe, device: torch.device, out: Path) -> None:
    """The recipe by one worker, and by several where there are to be."""
    stand = Bench(recipe, out / recipe.name, device, offline=False).stand(recipe.models[0])
    with measured() as referring:
        stand.refer(next(iter(stand.evaluations)))
    found.add("dense reference, noise floor", referring, "FLOP", partial(sizes.scored, sizes.referred))
    executor, count = sizes.plan.executor, sizes.plan.workers
    outcome, running = _run(recipe, Workers(executor, 1), device, out)
    found.rows = outcome.rows
    _from_rows(found, sizes, running)
    _reload(found, sizes, outcome, device)
    found.ready(found)
    if count > 1:
        shutil.rmtree(outcome.folder)  # only the rows are compared, and a disk may not hold all cells twice
        again = recipe.model_copy(update={"name": f"{SCALE}-again"})
        several, together = _run(again, Workers(executor, count), device, out)
        # both find the dense reference beside their folders, where `refer` left it
        found.agreement = agreement(outcome.rows, several.rows, (running.seconds, together.seconds))


def _run(recipe: Recipe, workers: Workers, device: torch.device, out: Path) -> tuple[Outcome, Phase]:
    """The recipe by so many workers, and what that took: a cluster's start too, be it one worker or several."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # workers share the GPU with this process
    here = workers.executor == "local" and workers.count == 1
    name = str(device) if here else device.type  # others have GPUs of their own
    with measured() as phase:
        outcome = run(recipe, Options(out, device=name, workers=workers))
    return outcome, phase


def _from_rows(found: Found, sizes: Amounts, running: Phase) -> None:
    """Stages that the rows know, and what is left of the run."""
    costs = [row.cost for row in found.rows if row.cost]
    walking = sum(cost.calibrate_seconds for cost in costs)
    compressing = sum(cost.compress_seconds for cost in costs)
    evaluating = sum(cost.evaluate_seconds for cost in costs)
    peak = max((cost.peak_memory_gib for cost in costs), default=0.0)
    on_device = max((cost.peak_device_memory_gib or 0.0 for cost in costs), default=0.0) or None
    took = partial(Phase, peak_memory_gib=peak, peak_device_memory_gib=on_device)
    scored = partial(sizes.scored, len(costs) * sizes.plan.windows)
    found.add("walk: forward, statistics", took(walking), "FLOP", sizes.walked)
    found.add("compress, all methods", took(compressing), "B", partial(_per_block, sizes, len(costs)))
    found.add("evaluate, with reloading", took(evaluating), "FLOP", scored)
    rest = max(0.0, running.seconds - walking - compressing - evaluating)
    written = sum(row.size.model_bytes for row in found.rows if row.size)
    found.add(REST, Phase(rest), "B", partial(_in_proportion, sizes, written))


def _per_block(sizes: Amounts, cells: int, blocks: int) -> float:
    """Bytes of the weights that the methods are given."""
    return cells * blocks * sizes.model.block_parameters[0] * sizes.model.storage_width / 8


def _in_proportion(sizes: Amounts, written: float, blocks: int) -> float:
    """Bytes of the cells, larger with more blocks as the model is."""
    return written * sizes.stored(blocks) / sizes.stored(len(sizes.model.block_parameters))


def _reload(found: Found, sizes: Amounts, outcome: Outcome, device: torch.device) -> None:
    """Read every cell once more, every file hashed again."""
    cells = [outcome.folder / "cells" / row.cell_id for row in outcome.rows if row.status == "ok"]
    total = 0
    forget()
    with measured() as reading:
        for cell in cells:
            total += load_cell(cell, device=device).size.model_bytes
    found.add("reloading alone, once more", reading, "B", partial(_in_proportion, sizes, total), counts=False)


def agreement(one: Sequence[Row], several: Sequence[Row], seconds: tuple[float, float]) -> Agreement:
    """The largest differences between rows of two runs. NaN where a row of one has no figures in the other."""
    others = {row.cell_id: row for row in several}
    nll, kl = zip(*(_apart(row, others.get(row.cell_id)) for row in one), strict=True)
    noise = [floor for row in one for floor in row.noise.values()]
    floors = (max((floor.get(key, 0.0) for floor in noise), default=0.0) for key in ("nll", "kl"))
    return Agreement(*seconds, _largest(nll), _largest(kl), *floors)


def _apart(row: Row, other: Row | None) -> tuple[float, float]:
    """Nats per token by which two rows of a cell differ: negative log-likelihood, KL."""
    if other is None or row.quality is None or other.quality is None:
        return float("nan"), float("nan")
    tokens = row.quality.scored_tokens
    nll = abs(sum(row.quality.window_nll) - sum(other.quality.window_nll)) / tokens
    return nll, abs((row.quality.kl_mean or 0.0) - (other.quality.kl_mean or 0.0))


def _largest(values: Sequence[float]) -> float:
    """NaN if there is one."""
    return float(torch.tensor(values, dtype=torch.float64).max())
