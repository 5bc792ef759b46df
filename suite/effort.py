"""About how long a piece of work takes, from shapes and settings alone: how pieces compare is what counts.

The unit is a second of one core of a few years ago. What a machine really takes corrects it while a recipe runs
(suite/remaining.py); `plan` measures instead.
"""

from suite.derive import Derive, Survey
from suite.jobs import Job
from suite.prepare import Prepared
from suite.quality import NOISE_WINDOWS, OnWindows
from suite.remaining import Expected
from suite.sizes import shapes_of
from suite.work import Bench, Measure, Reference, Stand, Walk, Work

FLOPS = 4e10  # a second
SLOW_FLOPS = 1e10  # of statistics and of methods
BACKWARD = 3  # forward passes that take as long as one with its way back
OVERHEAD = 0.5  # seconds of a piece, or of a cell on a walk, that is next to nothing: files, hashes, rows
FIRST = 2.0  # of a reference: whatever is begun with it for the first time
SECONDS_PER_MILLION = {  # weights, of methods that are not as fast as most
    **{"gptq": 0.8, "sparsegpt": 0.8, "awq": 1.0, "hqq": 0.5, "higgs": 0.3},
    **{"cvxq": 1.0, "quip-sharp": 2.0, "nowag-vq": 3.0, "qtip": 6.0},
}
FAST = 0.1  # seconds per million weights of the others
PASSES = {"none": 0, "dense": 1, "sequential": 2, "true-sequential": 5}


def expected(bench: Bench, work: Work) -> Expected:
    """What is known of a piece of a recipe's work before it is begun."""
    stand = bench.stand(work.model)
    weights = _weights(stand)
    if isinstance(work, Walk):
        jobs = [stand.job(cell) for cell in work.cells]
        part = len(work.blocks) / stand.prepared.blocks if work.blocks else 1.0
        passes = PASSES[jobs[0].cell.mode] * _forward(stand.prepared, jobs[0], weights)
        seconds = part * (passes + sum(_compressing(job, weights) for job in jobs))
        return Expected(f"walk {jobs[0].cell.mode}", OVERHEAD * (1 + len(jobs)) + seconds)
    if isinstance(work, Reference):
        return Expected("reference", FIRST + _scoring(stand, work.evaluation, weights, dense=True))
    if isinstance(work, Measure):
        times = (_scoring(stand, each, weights) for each in work.evaluations)
        return Expected("measure", OVERHEAD + FAST * weights / 1e6 + sum(times))
    if isinstance(work, Survey | Derive):
        return Expected(type(work).__name__, OVERHEAD + _whole_model(stand, stand.job(work.cell), weights))
    return Expected(type(work).__name__, OVERHEAD)


def _weights(stand: Stand) -> int:
    return sum(rows * columns for rows, columns in shapes_of(stand.subject).values())


def _forward(prepared: Prepared, job: Job, weights: int) -> float:
    """Seconds of the calibration tokens through all blocks, their statistics included."""
    entry = prepared.entry(job.cell)
    return entry.count * weights * (2 / FLOPS + 1 / SLOW_FLOPS) if entry else 0.0


def _compressing(job: Job, weights: int) -> float:
    return weights / 1e6 * SECONDS_PER_MILLION.get(job.cell.method.name, FAST)


def _scoring(stand: Stand, evaluation_id: str, weights: int, *, dense: bool = False) -> float:
    """Seconds of an evaluation; the dense model's own has the noise floor with it."""
    evaluation = stand.evaluations[evaluation_id]
    if not isinstance(evaluation, OnWindows):
        return 0.0
    count, length = evaluation.cut.tokens.shape
    return (count + dense * 2 * min(count, NOISE_WINDOWS)) * length * 2 * weights / FLOPS


def _whole_model(stand: Stand, job: Job, weights: int) -> float:
    """Seconds of what trains or differentiates: epochs of it for a fine-tuned cell."""
    tuning = job.cell.finetune
    epochs = tuning.epochs + (tuning.end_to_end.epochs if tuning.end_to_end else 0) if tuning else 1
    return epochs * BACKWARD * _forward(stand.prepared, job, weights)
