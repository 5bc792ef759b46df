"""What a piece of a recipe's work demands of a machine, from shapes alone: peak memory on host and device, disk.

Tensors are counted where the code makes them. What a method holds for a moment while it works is a number of
copies of its weight, so that a peak is good to a factor of about 1.5.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from methods.method import BatchingMethod
from methods.statistics import Statistic
from suite.blockwise import SWEEP_BYTES
from suite.calibrate import HIDDEN_ON_DEVICE_BYTES
from suite.derive import Derive, Survey
from suite.dimensions import FLOAT, Dimensions
from suite.evaluations import Evaluation, dense_cache
from suite.jobs import Job
from suite.layers import BATCH_WEIGHTS
from suite.offload import IN_FLIGHT
from suite.prepare import bytes_of_reference
from suite.quality import OnWindows
from suite.sizes import Layout, Shape, together
from suite.work import Measure, Reference, Stand, Walk, Work
from suite.zeroshot import OnItems

PROCESS_BYTES = 1100 << 20
"""A process that has imported everything and holds texts and tokenizers."""

CUDA_HOST_BYTES, CUDA_BYTES = 2 << 30, 3 << 29
"""What CUDA's libraries take on the host, and work space on the device, with that of float32 products."""

WEIGHT_COPIES, GRAM_COPIES = 6, 3
"""Of its input, what a method holds at its peak: of the weight, and beside H itself, where it needs that, of H."""

GPU_WEIGHT_COPIES = 9
"""Likewise of the weight on a GPU, where NoWag-VQ sorts vectors by their codes; 8.3 were counted on an H100."""

LOGIT_COPIES = 3
"""Of a window's logits: themselves, their log-probabilities, and what is made of both."""


TRAINED_COPIES = 2
"""Of the model, while gradients are taken or parts of it are trained: itself, and what is found beside it."""


@dataclass(frozen=True)
class Demand:
    """Bytes: peaks on host and device, and what stays on disk. Where the device is the CPU all is on the host."""

    host_bytes: int = 0
    device_bytes: int = 0
    disk_bytes: int = 0

    def then(self, later: "Demand") -> "Demand":
        """One after the other: the higher peaks, and all that stays on disk."""
        peaks = max(self.host_bytes, later.host_bytes), max(self.device_bytes, later.device_bytes)
        return Demand(*peaks, self.disk_bytes + later.disk_bytes)


def demand_of(work: Work, stand: Stand) -> Demand:
    """What a piece of work demands of a process that does nothing else."""
    model = stand.prepared.sizes
    host, on_cpu = PROCESS_BYTES + model.model_bytes, stand.bench.device.type == "cpu"
    if isinstance(work, Walk):
        jobs = [stand.job(cell) for cell in work.cells]
        blocks = work.blocks or range(len(model.block_parameters))
        disk = sum(model.cell_bytes(job.cell, blocks) for job in jobs)
        waiting, device = _walking(model, stand, jobs, on_cpu)
        host += waiting
    elif isinstance(work, Measure):
        disk = 0
        scoring = max(_scoring(model, stand.evaluations[each]) for each in work.evaluations)
        host += 2 * model.model_bytes  # a cell's decoded weights, and the model that they are put in
        device = scoring + model.model_bytes * (not on_cpu)
    elif isinstance(work, Reference):
        evaluation = stand.evaluations[work.evaluation]
        disk = bytes_of_reference(stand.subject, evaluation, dense_cache(stand.bench.folder))
        device = _scoring(model, evaluation) + model.model_bytes * (not on_cpu)
    elif isinstance(work, Survey | Derive):
        job = stand.job(work.cell)
        entry = stand.prepared.entry(job.cell)
        disk = model.cell_bytes(job.cell, range(len(model.block_parameters))) if isinstance(work, Derive) else 0
        device = TRAINED_COPIES * model.model_bytes + model.hidden * FLOAT * 2 * (entry.count if entry else 0)
    else:
        raise TypeError(f"{work.label} is a {type(work).__name__}, whose demand nobody knows")
    if on_cpu:
        return Demand(host + device, 0, disk)
    return Demand(host + CUDA_HOST_BYTES, device + CUDA_BYTES, disk)


def _walking(model: Dimensions, stand: Stand, jobs: Sequence[Job], on_cpu: bool) -> tuple[int, int]:
    """Bytes of a walk on the host, beside the model, and on the device."""
    entry = stand.prepared.entry(jobs[0].cell)
    hidden = batch = 0
    if entry:
        length = entry.tokens.shape[1]
        hidden = entry.count * model.hidden * FLOAT
        batch = min(entry.count, max(1, stand.bench.recipe.batch_tokens // length) * length)
    waits = hidden > HIDDEN_ON_DEVICE_BYTES
    moving = (IN_FLIGHT + 1 if waits else 1) * batch * model.hidden * FLOAT
    kinds = {tuple(tuple(group.values()) for group in block): block for block in model.layout.blocks}
    at_block = max(_at_block(Layout((block,)), jobs, batch, on_cpu) for block in kinds.values())
    block = 0 if on_cpu else max(model.block_parameters) * FLOAT
    return hidden * waits, hidden * (not waits) + moving + block + at_block


def _at_block(layout: Layout, jobs: Sequence[Job], tokens: int, on_cpu: bool) -> int:
    """Bytes at one block: H of each input, and what a batch puts out or the heaviest job makes of the block."""
    shapes = [list(group.values()) for group in layout.blocks[0]]
    needs = max(job.cell.needs for job in jobs)
    grams = sum(group[0][1] ** 2 for group in shapes if group) * FLOAT * (needs is Statistic.GRAM)
    outputs = tokens * sum(rows for group in shapes for rows, _ in group) * FLOAT
    return grams + max([outputs, *(_compressing(layout.only(job.cell.covers), job, on_cpu) for job in jobs)])


def _compressing(layout: Layout, job: Job, on_cpu: bool) -> int:
    """Bytes of decoded weights and of the largest call of the method."""
    method, weights = job.cell.method, layout.weights
    tasks = together(method, [list(group.values()) for group in layout.blocks[0]])
    batch = 0 if on_cpu or not isinstance(method, BatchingMethod) else min(weights, BATCH_WEIGHTS)
    copies = WEIGHT_COPIES if on_cpu else GPU_WEIGHT_COPIES
    calls = (_call(task, method.needs, batch, copies) for task in tasks)
    return weights * FLOAT + max(calls, default=0)


def _call(task: Sequence[Shape], needs: Statistic, batch: int, copies: int) -> int:
    """Bytes that a method holds for linears of these shapes, or for as many as make up a batch of weights.

    `copies` of the weights are there at the peak.
    """
    weights = max(batch, sum(map(math.prod, task)))
    gram = max(width for _, width in task) ** 2 if needs is Statistic.GRAM else 0
    return (copies * weights + GRAM_COPIES * gram) * FLOAT


def _scoring(model: Dimensions, evaluation: Evaluation) -> int:
    """Bytes of the logits that are there at a time, and of the hidden states that go through a streamed model.

    The noise floor takes two windows at once.
    """
    waiting = 0
    if model.streamed and isinstance(evaluation, OnWindows):
        waiting = min(SWEEP_BYTES, evaluation.cut.tokens.numel() * model.hidden * FLOAT)
    return waiting + LOGIT_COPIES * model.vocabulary * FLOAT * max(_tokens_at_once(evaluation), default=0)


def _tokens_at_once(evaluation: Evaluation) -> Iterator[int]:
    if isinstance(evaluation, OnWindows):
        yield 2 * evaluation.cut.tokens.shape[1]
    elif isinstance(evaluation, OnItems):
        yield evaluation.asked.batch_size * max(request_lengths(evaluation), default=0)


def request_lengths(evaluation: OnItems) -> list[int]:
    """Tokens of each request of a task: context and continuation, as one text."""
    texts = ["".join(pair) for item in evaluation.loaded.items for pair in item.pairs]
    return [len(ids) for ids in evaluation.tokenizer(texts, add_special_tokens=False)["input_ids"]]
