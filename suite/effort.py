"""About how long a piece of work takes, from shapes and settings alone: how pieces compare is what counts.

The unit is a second of one core of a few years ago. What a machine really takes corrects it while a recipe runs
(suite/remaining.py); `plan` measures instead.
"""

from torch import nn

from suite.allocated import Allocated
from suite.derive import Derive, Survey
from suite.evaluations import Evaluation
from suite.jobs import Job
from suite.prepare import Prepared
from suite.quality import CHANGED, NOISE_WINDOWS, OnWindows
from suite.remaining import Expected
from suite.results import NOISE_ITEMS
from suite.sizes import shapes_of
from suite.work import Bench, Measure, Reference, Stand, Walk, Work
from suite.zeroshot import OnItems

FLOPS = 5e10  # a second
STATISTICS = 1.2  # plain forward passes that take as long as one that gathers statistics
BACKWARD = 3  # forward passes that take as long as one with its way back
SQUARES = 4.5  # the same, with gradients of all weights squared and summed
PROBING = 16  # forward passes by which an allocation finds what each linear matters
CHARACTERS = 3.5  # of a task's items, in a token
OVERHEAD = 0.1  # seconds of a piece that is next to nothing: files, hashes, rows
FIRST = 1.0  # of a reference on windows: whatever is begun with it for the first time
LOADING = 0.02  # seconds per million weights of a checkpoint
FAST = 0.05  # seconds per million weights of most methods; of the others:
SECONDS_PER_MILLION = {"hqq": 0.2, "higgs": 0.3, "nowag-vq": 0.3, "awq": 0.4, "cvxq": 0.1, "qtip": 1.0}
WIDE = {"gptq": 0.7, "sparsegpt": 0.7, "quip-sharp": 1.4}  # the same, in linears of a thousand inputs
PASSES = {"none": 0, "dense": 1, "sequential": 2, "true-sequential": 5}


def expected(bench: Bench, work: Work) -> Expected:
    """What is known of a piece of a recipe's work before it is begun."""
    stand = bench.stand(work.model)
    weights = _weights(stand)
    if isinstance(work, Walk):
        jobs = [stand.job(cell) for cell in work.cells]
        part = len(work.blocks) / stand.prepared.blocks if work.blocks else 1.0
        passes = PASSES[jobs[0].cell.mode] * _forward(stand.prepared, jobs[0], weights)
        seconds = part * (passes + sum(_compressing(stand, job) for job in jobs))
        return Expected(f"walk {jobs[0].cell.mode}", OVERHEAD + seconds)
    if isinstance(work, Reference):
        first = FIRST if isinstance(stand.evaluations[work.evaluation], OnWindows) else OVERHEAD
        return Expected("reference", first + _scoring(stand, work.evaluation, dense=True))
    if isinstance(work, Measure):
        times = (_scoring(stand, each) for each in work.evaluations)
        return Expected("measure", OVERHEAD + LOADING * weights / 1e6 + sum(times))
    if isinstance(work, Survey | Derive):
        job = stand.job(work.cell)
        kind = "fine-tuning" if job.cell.finetune else type(work).__name__
        return Expected(kind, OVERHEAD + _whole_model(job) * _forward(stand.prepared, job, weights))
    return Expected(type(work).__name__, OVERHEAD)


def _weights(stand: Stand) -> int:
    return sum(rows * columns for rows, columns in shapes_of(stand.subject).values())


def _forward(prepared: Prepared, job: Job, weights: int) -> float:
    """Seconds of the calibration tokens through all blocks, their statistics included."""
    entry = prepared.entry(job.cell)
    return STATISTICS * entry.count * 2 * weights / FLOPS if entry else 0.0


def _compressing(stand: Stand, job: Job) -> float:
    name, shapes = job.cell.method.name, shapes_of(stand.subject).values()
    if name in WIDE:
        return WIDE[name] * sum(rows * columns**2 for rows, columns in shapes) / 1e9
    return SECONDS_PER_MILLION.get(name, FAST) * sum(rows * columns for rows, columns in shapes) / 1e6


def _scoring(stand: Stand, evaluation_id: str, *, dense: bool = False) -> float:
    """Seconds of an evaluation; the dense model's own has the noise floor with it."""
    evaluation = stand.evaluations[evaluation_id]
    head = stand.subject.model.get_output_embeddings()
    weights = _weights(stand) + (head.weight.numel() if isinstance(head, nn.Linear) else 0)
    return 2 * weights * _tokens(evaluation, dense) / FLOPS


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
