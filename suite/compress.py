"""Compress the cells of one group during one walk over the model, shard by shard.

Dense mode: the model stays as it is, so one walk's statistics serve every cell of the group. Sequential mode: a
group is one cell, and each block is replayed with its compressed weights before the walk moves on; in the mode
true-sequential the linears of a block, too, see what the compressed linears before them put out. A block whose
shards are on disk is not computed again.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from methods.statistics import Statistic, Statistics
from suite.architecture import Block, decoder_blocks, linears
from suite.behind import Behind, behind
from suite.calibrate import Batch, Counted, advance, by_input, first_inputs, observe
from suite.errors import CalibrationError
from suite.files import link_or_copy
from suite.jobs import Job, notes_path
from suite.layers import Done, compress_linears
from suite.masking import in_a_line
from suite.models import Subject
from suite.progress import track
from suite.reproduction import LayerFailure
from suite.shards import CORRECTION, Shard, as_stored, holds_shard, read_shard, shard_of
from suite.signed import write_signed
from suite.speed import Phase, measured
from suite.streaming import placed

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """One block of a walk and what is fed to it."""

    block: Block
    index: int
    batches: Sequence[Batch]
    counted: Counted
    writer: Behind
    statistics: Callable[[int], Mapping[str, Statistics]] | None = None
    gradients: Mapping[str, Tensor] | None = None  # mean squares [out, in] by linear


@dataclass
class Spent:
    """What one block of one cell took: seconds, and the peak memory of what was shared and its own."""

    calibrate: Phase = field(default_factory=Phase)
    compress: Phase = field(default_factory=Phase)

    @contextmanager
    def calibrating(self) -> Iterator[None]:
        with measured() as phase:
            yield
        self.calibrate = phase.after(self.calibrate)

    @contextmanager
    def compressing(self) -> Iterator[None]:
        with measured() as phase:
            yield
        self.compress = phase.after(self.compress)

    def notes(self) -> dict[str, float | None]:
        """As the notes of a shard have it."""
        both = self.compress.after(self.calibrate)
        return {
            "calibrate_seconds": self.calibrate.seconds,
            "compress_seconds": self.compress.seconds,
            "peak_memory_gib": both.peak_memory_gib,
            "peak_device_memory_gib": both.peak_device_memory_gib,
        }


@dataclass(frozen=True)
class Fed:
    """What a walk is fed: tokens, or statistics that an earlier walk left; and which blocks it is to do."""

    tokens: Tensor | None = None  # [sequences, length] int64; None if no job needs data
    batch_tokens: int = 4096
    statistics: Callable[[int], Mapping[str, Statistics]] | None = None  # of a block, in place of tokens
    only: range | None = None  # blocks; None is all
    gradients: Callable[[int], Mapping[str, Tensor]] | None = None  # of a block; None if no job needs any


@torch.no_grad()
def walk(subject: Subject, jobs: Sequence[Job], fed: Fed, device: torch.device) -> None:
    """Write every missing shard of the jobs.

    All jobs share one statistics mode and one budget; a sequential walk takes one job and all blocks. A job that
    fails is marked and left behind; the others go on.
    """
    blocks = decoder_blocks(subject.model)
    for job in jobs:
        job.look(blocks, fed.only)
    wanted = sorted({index for job in jobs for index in job.pending})
    batches: list[Batch] = []
    if fed.tokens is not None and fed.statistics is None and wanted:
        size = max(1, fed.batch_tokens // fed.tokens.shape[1])
        batches = first_inputs(subject.model, fed.tokens, size, device)
    budget = jobs[0].cell.budget
    counted = Counted(**budget.counted()) if budget else Counted()
    names = jobs[0].cell.label if len(jobs) == 1 else f"{len(jobs)} cells"
    # without hidden states to bring forward, blocks that have their shards need not be visited
    visited = range(wanted[-1] + 1) if batches else wanted
    with behind() as writer:
        for index in track(visited, f"walk, {names}"):
            with placed(blocks[index].module, device):
                pending = any(index in job.pending for job in jobs)
                gradients = fed.gradients(index) if fed.gradients and pending else None
                step = Step(blocks[index], index, batches, counted, writer, fed.statistics, gradients)
                if jobs[0].in_sequence:
                    _do_in_sequence(subject, step, jobs[0])
                else:
                    _do_dense(subject, step, jobs)
            writer.turn()


def _do_dense(subject: Subject, step: Step, jobs: Sequence[Job]) -> None:
    """One block of a walk over the dense model, for all jobs that lack its shard."""
    waiting = [job for job in jobs if step.index in job.pending and job.trouble is None]
    if not waiting:
        advance(step.block, step.index, step.batches)
        return
    with measured() as shared:
        statistics = _statistics(step, waiting)
    shared.seconds /= len(waiting)
    for job in waiting:
        with marking(job):
            _do_one_dense(subject, step, job, statistics, Spent(calibrate=shared))


def _do_one_dense(
    subject: Subject, step: Step, job: Job, statistics: Mapping[str, Statistics], spent: Spent
) -> None:
    """One block of one cell; what it takes of the device is free again for the next cell."""
    with spent.compressing():
        done = _compressed(subject, step, job, statistics)
    _write(subject, step, job, done, spent)


def _statistics(step: Step, jobs: Sequence[Job]) -> Mapping[str, Statistics]:
    """Of the linears that any job compresses in this block, as much as the most demanding one needs."""
    block, layers = step.block, linears(step.block)
    covered = [name for name in layers if any(job.covered(block, {name: 0}) for job in jobs)]
    if step.statistics is not None:
        return {name: each for name, each in step.statistics(step.index).items() if name in covered}
    needs = max(job.needs(block) for job in jobs)
    if not covered or needs is Statistic.NONE:
        advance(block, step.index, step.batches)
        return {name: Statistics.none(layers[name].in_features) for name in covered}
    return observe(block, step.index, step.batches, needs, step.counted, only=covered, move_on=True)


def _compressed(subject: Subject, step: Step, job: Job, statistics: Mapping[str, Statistics]) -> dict[str, Done]:
    """Those linears of a block with statistics that the cell compresses."""
    own, gradients = job.covered(step.block, statistics), step.gradients if job.cell.needs_gradient else None
    return compress_linears(step.block, own, job.settled, subject.storage_dtype, job.failures, gradients)


def _do_in_sequence(subject: Subject, step: Step, job: Job) -> None:
    """One block of a walk on which each block is fed by the compressed blocks before it."""
    if job.trouble is not None:
        return
    block, index = step.block, step.index
    with marking(job):
        with _restored(block) as replace:
            if index not in job.pending:
                formats, others = read_shard(job.shard(index))
                for name in job.covered(block, linears(block)):
                    full = f"{block.name}.{name}"
                    bias = others.get(f"{full}{CORRECTION}", others.get(f"{full}.bias"))
                    replace(name, formats[f"{full}.weight"].dequantize(), bias)
                advance(block, index, step.batches)
                return
            done, spent = _in_steps(subject, step, job, replace)
        _write(subject, step, job, done, spent)  # the block as it was: what is not compressed is kept so


def _in_steps(
    subject: Subject, step: Step, job: Job, replace: Callable[[str, Tensor, Tensor | None], None]
) -> tuple[dict[str, Done], Spent]:
    """Compress a block, each step's linears in place before the next step is observed, and move on."""
    done: dict[str, Done] = {}
    spent = Spent()
    for names in _steps(step, job):
        with spent.calibrating():
            needs = job.cell.needs
            statistics = observe(step.block, step.index, step.batches, needs, step.counted, only=names)
        with spent.compressing():
            found = _compressed(subject, step, job, statistics)
        for name, each in found.items():
            replace(name, each.format.dequantize(), each.bias)
        done |= found
    with spent.calibrating():
        advance(step.block, step.index, step.batches)
    return done, spent


def _steps(step: Step, job: Job) -> list[list[str]]:
    """The linears whose statistics are taken at one time: all, or in `true-sequential` those of one input."""
    own = list(job.covered(step.block, linears(step.block)))
    if not own:
        return []
    if job.cell.mode != "true-sequential":
        return [own]
    first = observe(step.block, step.index, step.batches[:1], Statistic.DIAGONAL, only=own)
    return by_input(first)


@contextmanager
def marking(job: Job) -> Iterator[None]:
    """A failure inside marks the job and is over; the study goes on without it."""
    try:
        yield
    except LayerFailure as failure:
        logger.debug("%s", job.cell.label, exc_info=True)
        job.trouble = str(failure)
    except torch.OutOfMemoryError as error:  # between methods: theirs is a failure of the layer
        job.trouble = f"failed: {in_a_line(error, 300)}"
    except CalibrationError as error:
        if not job.in_sequence:
            raise  # the dense model itself gives no usable statistics, to nobody
        job.trouble = f"void: {error}"


@contextmanager
def _restored(block: Block) -> Iterator[Callable[[str, Tensor, Tensor | None], None]]:
    """Gives a function that puts a weight, and a bias, in place of a linear's own, which come back in the end."""
    layers = linears(block)
    dense = {name: (layer.weight.data, layer.bias) for name, layer in layers.items()}

    def replace(name: str, weight: Tensor, bias: Tensor | None) -> None:
        own = dense[name][0]
        layers[name].weight.data = weight.to(own.device, own.dtype)
        if bias is not None:
            layers[name].bias = nn.Parameter(bias.to(own.device, own.dtype), requires_grad=False)

    try:
        yield replace
    finally:
        for name, layer in layers.items():
            layer.weight.data, layer.bias = dense[name]


def _write(subject: Subject, step: Step, job: Job, done: Mapping[str, Done], spent: Spent) -> None:
    """Have the block's shard put on disk, and beside it the notes, while the walk goes on."""
    name = step.block.name
    notes = {"audit": {f"{name}.{linear}": each.audit for linear, each in done.items()}, **spent.notes()}
    formats = {f"{name}.{linear}.weight": each.format for linear, each in done.items()}
    others = {
        full: as_stored(tensor, subject.storage_dtype)
        for full, tensor in _block_state(step.block).items()
        if full not in formats
    }
    for linear, each in done.items():
        if each.bias is not None:
            own = f"{name}.{linear}.bias"
            others[own if own in others else f"{name}.{linear}{CORRECTION}"] = each.bias
    shard = shard_of(formats, others, job.fingerprint(step.index, step.block))
    step.writer.do(partial(_put, job, step.index, shard, notes))


def _put(job: Job, index: int, shard: Shard, notes: Mapping[str, Any]) -> None:
    """A block that the cell leaves alone is one file for all cells that do."""
    path = job.shard(index)
    write_signed(notes_path(path), notes)
    if shard.formats:
        shard.write(path)
        return
    untouched = job.untouched_shard(index)
    if not holds_shard(untouched, shard.fingerprint):
        shard.write(untouched)
    link_or_copy(untouched, path)


def _block_state(block: Block) -> dict[str, Tensor]:
    return {f"{block.name}.{name}": tensor for name, tensor in block.module.state_dict().items()}
