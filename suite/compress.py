"""Compress the cells of one group during one walk over the model, shard by shard.

Dense mode: the model stays as it is, so one walk's statistics serve every cell of the group. Sequential mode: a
group is one cell, and each block is replayed with its compressed weights before the walk moves on. A block whose
shards are on disk is not computed again.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kernels.format import Format
from methods.method import Compressed
from methods.statistics import Statistic, Statistics
from suite.architecture import Block, decoder_blocks, linears
from suite.calibrate import Batch, advance, first_inputs, observe
from suite.config import Cell
from suite.files import write_atomically
from suite.models import Subject
from suite.progress import track
from suite.shards import as_stored, holds_shard, read_shard, shard_fingerprint, shard_name, write_shard

logger = logging.getLogger(__name__)


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


@torch.no_grad()
def walk(
    subject: Subject, jobs: Sequence[Job], tokens: Tensor | None, device: torch.device, batch_tokens: int
) -> None:
    """Write every missing shard of the jobs. tokens [sequences, length] int64; None if no job needs data.

    All jobs share one statistics mode; a sequential walk takes one job. A job that fails is marked and left
    behind; the others go on.
    """
    blocks = decoder_blocks(subject.model)
    for job in jobs:
        job.look(len(blocks))
    last = max((index for job in jobs for index in job.pending), default=-1)
    batches: list[Batch] = []
    if tokens is not None and last >= 0:
        batches = first_inputs(subject.model, tokens, max(1, batch_tokens // tokens.shape[1]), device)
    names = jobs[0].cell.label if len(jobs) == 1 else f"{len(jobs)} cells"
    for index in track(range(last + 1), f"walk, {names}"):
        with _on(blocks[index].module, device):
            _do_block(subject, blocks[index], index, jobs, batches)


@contextmanager
def _on(module: nn.Module, device: torch.device) -> Iterator[None]:
    home = next(module.parameters()).device
    module.to(device)
    try:
        yield
    finally:
        module.to(home)


def _do_block(subject: Subject, block: Block, index: int, jobs: Sequence[Job], batches: Sequence[Batch]) -> None:
    waiting = [job for job in jobs if index in job.pending and job.trouble is None]
    sequential = jobs[0].cell.mode == "sequential"
    if not waiting:
        if not sequential:
            advance(block, index, batches)
    else:
        start = time.perf_counter()
        needs = max(job.cell.method.needs for job in waiting)
        statistics = observe(block, index, batches, needs, move_on=not sequential)
        seconds = (time.perf_counter() - start) / len(waiting)
        for job in waiting:
            _compress_block(subject, block, index, job, statistics, seconds)
    if sequential and jobs[0].trouble is None:
        start = time.perf_counter()
        with _replaced(block, jobs[0].shard(index)):
            advance(block, index, batches)
        if index in jobs[0].pending:
            _add_seconds(jobs[0].shard(index), time.perf_counter() - start)


def _compress_block(
    subject: Subject,
    block: Block,
    index: int,
    job: Job,
    statistics: Mapping[str, Statistics],
    calibrate: float,
) -> None:
    """Compress the block's linears by one method and write the shard; on trouble mark the job instead."""
    start = time.perf_counter()
    formats: dict[str, Format] = {}
    audits: dict[str, Any] = {}
    for name, layer in linears(block).items():
        full = f"{block.name}.{name}"
        try:
            result = _compress_linear(layer, subject.storage_dtype, job, full, statistics[name])
        except (ValueError, RuntimeError) as error:  # RuntimeError: what torch raises, out of memory included
            logger.debug("%s, %s", job.cell.label, full, exc_info=True)
            job.trouble = f"failed: {full}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            return
        decoded = result.format.dequantize()
        if not torch.isfinite(decoded).all():
            job.trouble = f"void: {full}: the compressed weight has non-finite values"
            return
        formats[f"{full}.weight"] = result.format
        audits[full] = {**result.audit, **errors(layer.weight, decoded, statistics[name])}
    others = {
        name: as_stored(tensor, subject.storage_dtype)
        for name, tensor in _block_state(block).items()
        if name not in formats
    }
    notes = {"audit": audits, "calibrate_seconds": calibrate, "compress_seconds": time.perf_counter() - start}
    write_atomically(notes_path(job.shard(index)), json.dumps(notes).encode())
    write_shard(job.shard(index), formats, others, shard_fingerprint(job.id, index))


def _compress_linear(
    layer: nn.Linear, dtype: torch.dtype, job: Job, full_name: str, statistics: Statistics
) -> Compressed:
    """Each linear has its own stream of random numbers, drawn on the CPU: neither the order of work, nor resuming,
    nor the device changes them.
    """
    weight = layer.weight.detach().to(dtype)
    key = hashlib.sha256(f"{job.cell.seed}/{full_name}".encode()).digest()
    rng = torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))
    return job.cell.method.compress(weight, statistics, rng)


def errors(weight: Tensor, decoded: Tensor, statistics: Statistics) -> dict[str, float]:
    """Relative squared errors of one layer: of the weight, and of it weighted by diag(XᵀX) where that is known.

    weight, decoded [out, in]. `weight_error` is ‖Ŵ − W‖² / ‖W‖²; `output_error` weights column j by h_j.
    """
    wrong, energy = (decoded - weight).square().sum(0), weight.square().sum(0)  # [in]
    result = {"weight_error": float(wrong.sum() / energy.sum())}
    if statistics.tokens:
        h = statistics.x_sq.to(wrong.device)
        result["output_error"] = float((wrong @ h) / (energy @ h))
    return result


def _block_state(block: Block) -> dict[str, Tensor]:
    return {f"{block.name}.{name}": tensor for name, tensor in block.module.state_dict().items()}


@contextmanager
def _replaced(block: Block, shard: Path) -> Iterator[None]:
    """The block with its linears' weights as the shard on disk decodes them; the dense ones come back after."""
    layers = linears(block)
    dense = {name: layer.weight.data for name, layer in layers.items()}
    formats, _ = read_shard(shard)
    try:
        for name, layer in layers.items():
            decoded = formats[f"{block.name}.{name}.weight"].dequantize()
            layer.weight.data = decoded.to(layer.weight.device, layer.weight.dtype)
        yield
    finally:
        for name, layer in layers.items():
            layer.weight.data = dense[name]


def _add_seconds(shard: Path, seconds: float) -> None:
    notes = json.loads(notes_path(shard).read_text(encoding="utf-8"))
    notes["calibrate_seconds"] += seconds
    write_atomically(notes_path(shard), json.dumps(notes).encode())


def group_key(cell: Cell) -> tuple[Any, ...]:
    """Cells with equal keys can share a walk; a sequential cell only walks alone."""
    alone = cell if cell.mode == "sequential" else None
    return (
        cell.model,
        cell.budget,
        cell.seed if cell.method.needs is not Statistic.NONE else None,
        cell.mode,
        alone,
    )
