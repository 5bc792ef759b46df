"""About how long a piece of work takes, from shapes and settings alone: how pieces compare is what counts.

The unit is a second of one core of a few years ago, or of a large GPU. What a machine really takes corrects it
while a recipe runs (suite/remaining.py); `plan` measures instead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from suite.allocated import Allocated
from suite.derive import Derive, Survey
from suite.evaluations import Evaluation, dense_cache
from suite.jobs import Job
from suite.prepare import bytes_of_reference
from suite.quality import CHANGED, NOISE_WINDOWS, OnWindows
from suite.remaining import Expected
from suite.results import NOISE_ITEMS
from suite.sizes import shapes_of
from suite.work import Bench, Measure, Reference, Stand, Walk, Work
from suite.zeroshot import OnItems

BACKWARD = 3  # forward passes that take as long as one with its way back
SQUARES = 4.5  # the same, with gradients of all weights squared and summed
PROBING = 16  # forward passes by which an allocation finds what each linear matters
CHARACTERS = 3.5  # of a task's items, in a token
OVERHEAD = 0.1  # seconds of a piece that is next to nothing: files, hashes, rows
KEEPING = frozenset({"dense", "magnitude", "wanda", "nowag-p", "sparsegpt"})
"""Methods whose weights are numbers of the storage dtype."""
PASSES = {"none": 0, "dense": 1, "sequential": 2, "true-sequential": 5}


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """What a kind of device takes, in seconds, as it was measured."""

    flops: float  # a second
    statistics: float  # plain forward passes that take as long as one that gathers statistics
    first: float  # of a reference on windows: whatever is begun with it for the first time
    loading: float  # per million weights of a checkpoint
    alone: float  # per million weights of methods that need no data: files take longest
    linear: float  # of any linear, however small
    usual: float  # per million weights of most methods; of the others:
    per_million: Mapping[str, float]
    wide: Mapping[str, float] = field(default_factory=dict)  # the same, in linears of a thousand inputs
    decoded: float = 1.0  # forward passes of the model as long as one with weights that are no stored numbers


CPU = Speeds(
    flops=5e10,
    statistics=1.2,
    first=1.0,
    loading=0.02,
    alone=0.05,
    linear=0.0,
    usual=0.05,
    per_million={"hqq": 0.2, "higgs": 0.3, "nowag-vq": 0.3, "awq": 0.4, "cvxq": 0.1, "qtip": 1.0},
    wide={"gptq": 0.7, "sparsegpt": 0.7, "quip-sharp": 1.4},
)
GPU = Speeds(
    flops=1.0e14,
    statistics=1.35,
    first=6.0,
    loading=0.001,
    alone=0.006,
    linear=0.01,
    usual=0.0002,
    decoded=1.6,  # six products of bfloat16 for three: see kernels/float32.py
    per_million={
        **{"gptq": 0.003, "sparsegpt": 0.0026, "quip-sharp": 0.0086, "nowag-vq": 0.019},
        **{"qtip": 0.05, "cvxq": 0.1, "awq": 0.01},
    },
)


def speeds_of(device: torch.device) -> Speeds:
    """Those of a CPU, or of anything else."""
    return CPU if device.type == "cpu" else GPU


def expected(bench: Bench, work: Work) -> Expected:
    """What is known of a piece of a recipe's work before it is begun."""
    stand, speeds = bench.stand(work.model), speeds_of(bench.device)
    weights = _weights(stand)
    if isinstance(work, Walk):
        jobs = [stand.job(cell) for cell in work.cells]
        done, passed = _parts(work, stand.prepared.blocks)
        seconds = done * _walking(stand, jobs) + passed * _forward(stand, jobs[0])
        return Expected(f"walk {jobs[0].cell.mode}", OVERHEAD + seconds)
    if isinstance(work, Reference):
        return Expected("reference", _referring(stand, work.evaluation))
    if isinstance(work, Measure):
        keeps = stand.job(work.cell).cell.method.name in KEEPING
        times = sum(_scoring(stand, each) for each in work.evaluations) * (1.0 if keeps else speeds.decoded)
        return Expected("measure", OVERHEAD + speeds.loading * weights / 1e6 + times)
    if isinstance(work, Survey | Derive):
        job = stand.job(work.cell)
        kind = "fine-tuning" if job.cell.finetune else type(work).__name__
        return Expected(kind, OVERHEAD + _whole_model(job) * speeds.statistics * _forward(stand, job))
    return Expected(type(work).__name__, OVERHEAD)


def passing(stand: Stand, jobs: Sequence[Job]) -> float:
    """Of the seconds of a block on a walk with these cells, what only running it takes."""
    whole = _walking(stand, jobs)
    return _forward(stand, jobs[0]) / whole if whole else 0.0


def _parts(walk: Walk, blocks: int) -> tuple[float, float]:
    """Of all blocks, how many a walk does, and how many before them it only runs."""
    return (len(walk.blocks) / blocks, walk.blocks.start / blocks) if walk.blocks else (1.0, 0.0)


def _walking(stand: Stand, jobs: Sequence[Job]) -> float:
    """Seconds of a walk over all blocks."""
    passes = PASSES[jobs[0].cell.mode] * speeds_of(stand.bench.device).statistics
    return passes * _forward(stand, jobs[0]) + sum(_compressing(stand, job) for job in jobs)


def _weights(stand: Stand) -> int:
    return sum(rows * columns for rows, columns in shapes_of(stand.subject).values())


def _forward(stand: Stand, job: Job) -> float:
    """Seconds of the calibration tokens through all blocks."""
    entry = stand.prepared.entry(job.cell)
    return entry.count * 2 * _weights(stand) / speeds_of(stand.bench.device).flops if entry else 0.0


def _compressing(stand: Stand, job: Job) -> float:
    name, shapes = job.cell.method.name, shapes_of(stand.subject).values()
    speeds = speeds_of(stand.bench.device)
    if name in speeds.wide:
        return speeds.wide[name] * sum(rows * columns**2 for rows, columns in shapes) / 1e9
    usual = speeds.usual if job.cell.budget else speeds.alone
    return speeds.linear * len(shapes) + speeds.per_million.get(name, usual) * _weights(stand) / 1e6


def _referring(stand: Stand, evaluation_id: str) -> float:
    """Seconds of a dense reference, or of what is begun with it where an earlier run left it."""
    evaluation, scoring = stand.evaluations[evaluation_id], _scoring(stand, evaluation_id, dense=True)
    if not isinstance(evaluation, OnWindows):
        return OVERHEAD + scoring
    missing = bytes_of_reference(stand.subject, evaluation, dense_cache(stand.bench.folder))
    return speeds_of(stand.bench.device).first + scoring * bool(missing)


def _scoring(stand: Stand, evaluation_id: str, *, dense: bool = False) -> float:
    """Seconds of an evaluation; the dense model's own has the noise floor with it."""
    evaluation = stand.evaluations[evaluation_id]
    head = stand.subject.model.get_output_embeddings()
    weights = _weights(stand) + (head.weight.numel() if isinstance(head, nn.Linear) else 0)
    return 2 * weights * _tokens(evaluation, dense) / speeds_of(stand.bench.device).flops


def _tokens(evaluation: Evaluation, dense: bool) -> float:
    """How many go through the model; of a task by its characters, so that nothing has to be cut."""
    if isinstance(evaluation, OnWindows):
        count, length = evaluation.cut.tokens.shape
        return (count + dense * len(CHANGED) * min(count, NOISE_WINDOWS)) * length
    if isinstance(evaluation, OnItems):
        items = evaluation.loaded.items
        some = items[:NOISE_ITEMS]  # whose characters stand for those of all
        tokens = sum(len(text) for item in some for pair in item.pairs for text in pair) / CHARACTERS
        return tokens * (1 + len(CHANGED) if dense else len(items) / max(1, len(some)))
    return 0.0


def _whole_model(job: Job) -> float:
    """Forward passes that take as long as what trains, differentiates or probes: epochs for a fine-tuned cell."""
    if tuning := job.cell.finetune:
        return BACKWARD * (tuning.epochs + (tuning.end_to_end.epochs if tuning.end_to_end else 0))
    return PROBING if isinstance(job.cell.method, Allocated) else SQUARES
