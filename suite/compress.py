"""Compress the cells of one group during one walk over the model, shard by shard.

Dense mode: the model stays as it is, so one walk's statistics serve every cell of the group. Sequential mode: a
group is one cell, and each block is replayed with its compressed weights before the walk moves on; in the mode
true-sequential the linears of a block, too, see what the compressed linears before them put out. A block whose
shards are on disk is not computed again.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from methods.statistics import Statistic
from suite.architecture import Block, decoder_blocks, linears
from suite.calibrate import Batch, Counted, advance, by_input, first_inputs, observe
from suite.config import Cell
from suite.errors import CalibrationError
from suite.files import write_atomically
from suite.layers import Decoded, Failures, compress_linears
from suite.models import Subject
from suite.progress import track
from suite.reproduction import LayerFailure
from suite.shards import as_stored, holds_shard, read_shard, shard_fingerprint, shard_name, write_shard

logger = logging.getLogger(__name__)

IN_SEQUENCE = ("sequential", "true-sequential")


@dataclass
class Job:
    """One cell on its way to disk."""

    cell: Cell
    id: str
    folder: Path
    trouble: str | None = None  # why it stopped: `failed: …` or `void: …`
    pending: set[int] = field(default_factory=set)  # blocks without a shard

    def shard(self, index: int) -> Path:
        """Where block `index` goes."""
        return self.folder / shard_name(index)

    @property
    def failures(self) -> Failures:
        """Where what fails is saved, beside the cells of the recipe."""
        return Failures(self.folder.parent.parent / "failures", self.id)

    def look(self, blocks: int) -> None:
        """Find out which blocks are still to be done."""
        self.pending = {
            index
            for index in range(blocks)
            if not holds_shard(self.shard(index), shard_fingerprint(self.id, index))
            or not notes_path(self.shard(index)).exists()
        }


def notes_path(shard: Path) -> Path:
    """The notes of a shard (audit, seconds), kept beside it because they differ from run to run."""
    return shard.with_suffix(".json")


@dataclass(frozen=True)
class Step:
    """One block of a walk and what is fed to it."""

    block: Block
    index: int
    batches: Sequence[Batch]
    counted: Counted


@dataclass
class Seconds:
    """Where the time of one block of one cell went."""

    calibrate: float = 0.0
    compress: float = 0.0

    @contextmanager
    def calibrating(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.calibrate += time.perf_counter() - start

    @contextmanager
    def compressing(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.compress += time.perf_counter() - start


@torch.no_grad()
def walk(
    subject: Subject, jobs: Sequence[Job], tokens: Tensor | None, device: torch.device, batch_tokens: int
) -> None:
    """Write every missing shard of the jobs. tokens [sequences, length] int64; None if no job needs data.

    All jobs share one statistics mode and one budget; a sequential walk takes one job. A job that fails is marked
    and left behind; the others go on.
    """
    blocks = decoder_blocks(subject.model)
    for job in jobs:
        job.look(len(blocks))
    last = max((index for job in jobs for index in job.pending), default=-1)
    batches: list[Batch] = []
    if tokens is not None and last >= 0:
        batches = first_inputs(subject.model, tokens, max(1, batch_tokens // tokens.shape[1]), device)
    budget = jobs[0].cell.budget
    counted = Counted(**budget.counted()) if budget else Counted()
    names = jobs[0].cell.label if len(jobs) == 1 else f"{len(jobs)} cells"
    for index in track(range(last + 1), f"walk, {names}"):
        with _on(blocks[index].module, device):
            _do_block(subject, Step(blocks[index], index, batches, counted), jobs)


@contextmanager
def _on(module: nn.Module, device: torch.device) -> Iterator[None]:
    home = next(module.parameters()).device
    module.to(device)
    try:
        yield
    finally:
        module.to(home)


def _do_block(subject: Subject, step: Step, jobs: Sequence[Job]) -> None:
    waiting = [job for job in jobs if step.index in job.pending and job.trouble is None]
    if jobs[0].cell.mode in IN_SEQUENCE:
        _do_in_sequence(subject, step, jobs[0])
    elif not waiting:
        advance(step.block, step.index, step.batches)
    else:
        start = time.perf_counter()
        needs = max(job.cell.method.needs for job in waiting)
        statistics = observe(step.block, step.index, step.batches, needs, step.counted, move_on=True)
        seconds = (time.perf_counter() - start) / len(waiting)
        for job in waiting:
            with _marking(job):
                spent = Seconds(calibrate=seconds)
                with spent.compressing():
                    done = compress_linears(step.block, statistics, job.cell, subject.storage_dtype, job.failures)
                _write(subject, step, job, done, spent)


def _do_in_sequence(subject: Subject, step: Step, job: Job) -> None:
    """One block of a walk on which each block is fed by the compressed blocks before it."""
    if job.trouble is not None:
        return
    block, index = step.block, step.index
    with _marking(job), _restored(block) as replace:
        if index not in job.pending:
            formats, _ = read_shard(job.shard(index))
            replace({name: formats[f"{block.name}.{name}.weight"].dequantize() for name in linears(block)})
            advance(block, index, step.batches)
            return
        done: dict[str, Decoded] = {}
        seconds = Seconds()
        for names in _steps(step, job):
            with seconds.calibrating():
                needs = job.cell.method.needs
                statistics = observe(block, index, step.batches, needs, step.counted, only=names)
            with seconds.compressing():
                found = compress_linears(block, statistics, job.cell, subject.storage_dtype, job.failures)
            replace({name: each.weight for name, each in found.items()})
            done |= found
        with seconds.calibrating():
            advance(block, index, step.batches)
        _write(subject, step, job, done, seconds)


def _steps(step: Step, job: Job) -> list[list[str] | None]:
    """The linears whose statistics are taken at one time: all, or in `true-sequential` those of one input."""
    if job.cell.mode != "true-sequential":
        return [None]
    first = observe(step.block, step.index, step.batches[:1], Statistic.DIAGONAL)
    return [*by_input(first)]


@contextmanager
def _marking(job: Job) -> Iterator[None]:
    """A failure inside marks the job and is over; the study goes on without it."""
    try:
        yield
    except LayerFailure as failure:
        logger.debug("%s", job.cell.label, exc_info=True)
        job.trouble = str(failure)
    except CalibrationError as error:
        if job.cell.mode not in IN_SEQUENCE:
            raise  # the dense model itself gives no usable statistics, to nobody
        job.trouble = f"void: {error}"


@contextmanager
def _restored(block: Block) -> Iterator[Callable[[Mapping[str, Tensor]], None]]:
    """Gives a function that puts weights in place of the linears' own, which come back in the end."""
    layers = linears(block)
    dense = {name: layer.weight.data for name, layer in layers.items()}

    def replace(weights: Mapping[str, Tensor]) -> None:
        for name, weight in weights.items():
            layers[name].weight.data = weight.to(dense[name].device, dense[name].dtype)

    try:
        yield replace
    finally:
        for name, layer in layers.items():
            layer.weight.data = dense[name]


def _write(subject: Subject, step: Step, job: Job, done: Mapping[str, Decoded], seconds: Seconds) -> None:
    """Put the block's shard on disk, and beside it the notes."""
    name = step.block.name
    formats = {f"{name}.{linear}.weight": each.format for linear, each in done.items()}
    others = {
        full: as_stored(tensor, subject.storage_dtype)
        for full, tensor in _block_state(step.block).items()
        if full not in formats
    }
    notes = {
        "audit": {f"{name}.{linear}": each.audit for linear, each in done.items()},
        "calibrate_seconds": seconds.calibrate,
        "compress_seconds": seconds.compress,
    }
    write_atomically(notes_path(job.shard(step.index)), json.dumps(notes).encode())
    write_shard(job.shard(step.index), formats, others, shard_fingerprint(job.id, step.index))


def _block_state(block: Block) -> dict[str, Tensor]:
    return {f"{block.name}.{name}": tensor for name, tensor in block.module.state_dict().items()}


def group_key(cell: Cell) -> tuple[Any, ...]:
    """Cells with equal keys can share a walk; a sequential cell only walks alone."""
    alone = cell if cell.mode in IN_SEQUENCE else None
    return (
        cell.model,
        cell.budget,
        cell.seed if cell.method.needs is not Statistic.NONE else None,
        cell.mode,
        alone,
    )
