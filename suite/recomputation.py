"""Blocks of finished cells compressed once more, from the model and the tokens, beside what is on disk.

The work is that of a run, done in a folder of its own: a dense walk up to the block, a sequential one with the
shards of the blocks before it, or for a cell that is made from others all of what makes it.
"""

import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from suite.derive import Derive
from suite.environment import describe
from suite.errors import SuiteError
from suite.files import file_sha256
from suite.jobs import Job, groups
from suite.progress import track
from suite.shards import read_shard
from suite.speed import at_work
from suite.work import Bench, Stand, Walk

logger = logging.getLogger(__name__)

AGREEMENT = 0.05
"""Of a weight's norm: how far it may be from the same weight that another machine or PyTorch made."""


@dataclass(frozen=True)
class Again:
    """A block that was compressed again: the same file to the bit, or how it differs."""

    cell: str
    block: int
    same: bool
    trouble: str | None = None  # why it could not be compared
    error: float = 0.0  # the largest relative error of a decoded weight, ‖Ŵ' − Ŵ‖ / ‖Ŵ‖
    worst: str = ""  # the weight that has it


def recompute(bench: Bench, chosen: Mapping[str, Collection[int]]) -> Iterator[Again]:
    """Compress blocks of cells, by the cells' ids, again -> what came of each.

    `bench` is that of the run. Cells that no model of its recipe has are passed over. SuiteError for a model or
    text that cannot be had.
    """
    for model in bench.recipe.models:
        stand = bench.stand(model)
        jobs = [job for job in stand.with_bases.values() if job.id in chosen]
        for group in groups([job for job in jobs if not job.bases]):
            for index in sorted({index for job in group for index in chosen[job.id]}):
                yield from _in_passing(stand, [job for job in group if index in chosen[job.id]], index)
        for job in jobs:
            if job.bases:
                yield from _derived(stand, job, sorted(chosen[job.id]))


def differences(then: Mapping[str, Any], device: torch.device) -> list[str]:
    """What of a row's environment is not as it is here, as far as it may move a bit."""
    now = describe() | {"device": str(device)}
    pairs = {name: (then.get(name), now[name]) for name in ("platform", "processor", "cores", "gpus", "device")}
    pairs["torch"] = then.get("versions", {}).get("torch"), now["versions"].get("torch")
    return [f"{name} {old} then, {new} now" for name, (old, new) in pairs.items() if old != new]


def _in_passing(stand: Stand, jobs: list[Job], index: int) -> Iterator[Again]:
    """One block of cells that share a walk."""
    with tempfile.TemporaryDirectory() as room:
        bench = _beside(stand, Path(room))
        for job in jobs:
            if job.in_sequence:
                _lend(job, bench.stand(stand.prepared.model).job(job.id), range(index))
        work = Walk(stand.prepared.model, tuple(job.id for job in jobs), range(index, index + 1))
        yield from _compared(stand, bench, work, jobs, [index])


def _derived(stand: Stand, job: Job, indices: list[int]) -> Iterator[Again]:
    """Blocks of a cell that is made from others."""
    with tempfile.TemporaryDirectory() as room:
        bench = _beside(stand, Path(room))
        for base in bench.stand(stand.prepared.model).job(job.id).bases:
            base.folder.parent.mkdir(parents=True, exist_ok=True)
            base.folder.symlink_to(stand.job(base.id).folder, target_is_directory=True)
        yield from _compared(stand, bench, Derive(stand.prepared.model, job.id), [job], indices)


def _beside(stand: Stand, room: Path) -> Bench:
    """The bench of a run in another folder, with what was prepared for the first."""
    own = stand.bench
    return Bench(own.recipe, room / "run", own.device, own.offline, {stand.prepared.model: stand.prepared})


def _lend(job: Job, to: Job, blocks: range) -> None:
    """Have the shards of some blocks where another job looks for them."""
    to.folder.mkdir(parents=True, exist_ok=True)
    for index in blocks:
        to.shard(index).symlink_to(job.shard(index))


def _compared(
    stand: Stand, bench: Bench, work: Walk | Derive, jobs: list[Job], indices: list[int]
) -> Iterator[Again]:
    troubles: dict[str, str] = {}
    try:
        with at_work(bench.device):
            for found in work.run(bench):
                troubles |= found
    except SuiteError as error:
        troubles = {job.id: str(error) for job in jobs}
    made = bench.stand(stand.prepared.model)
    for job in jobs:
        for index in track(indices, f"comparison, {job.cell.label}"):
            if job.id in troubles:
                yield Again(job.id, index, same=False, trouble=troubles[job.id])
            else:
                yield _compare(job.id, index, job.shard(index), made.job(job.id).shard(index))


def _compare(cell: str, index: int, stored: Path, made: Path) -> Again:
    """Shards have nothing in them that depends on time: what is the same is the same file."""
    if file_sha256(stored) == file_sha256(made):
        return Again(cell, index, same=True)
    (old, kept), (new, also_kept) = read_shard(stored), read_shard(made)
    if old.keys() != new.keys() or kept.keys() != also_kept.keys():
        return Again(cell, index, same=False, trouble="it has other tensors")
    errors = {name: _error(old[name].dequantize(), each.dequantize()) for name, each in new.items()}
    errors |= {name: _error(kept[name], each) for name, each in also_kept.items()}
    worst = max(errors, key=lambda name: errors[name])
    return Again(cell, index, same=False, error=errors[worst], worst=worst)


def _error(stored: torch.Tensor, made: torch.Tensor) -> float:
    """‖made − stored‖ / ‖stored‖ of tensors of one shape; infinite where the shapes differ."""
    if stored.shape != made.shape:
        return float("inf")
    off, norm = (made.double() - stored.double()).norm(), stored.double().norm()
    return float(off / norm) if norm > 0 else float(off)
