"""How long pieces of work will take, from seconds of their parts: sums, by cell and phase."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from methods.statistics import Statistic
from suite.demand import request_lengths
from suite.derive import Survey
from suite.dimensions import Dimensions
from suite.evaluations import Evaluation, dense_cache, dense_folder
from suite.gradients import Source
from suite.jobs import Job
from suite.linearity import Probe
from suite.planning.figures import Seconds
from suite.planning.stopwatch import Passes, Stopwatch
from suite.quality import NOISE_WINDOWS, OnWindows
from suite.results import NOISE_ITEMS
from suite.runner import Making
from suite.sizes import Layout, Shape, together
from suite.work import Measure, Reference, Stand, Walk
from suite.zeroshot import OnItems

BACKWARD = 3
"""Forward passes that take as long as one with its way back."""

NOISES = 2
"""Times that the noise floor scores some windows; a task's items are scored once more, as they were."""


@dataclass(frozen=True)
class AtBlock:
    """What one block of a cell takes: seconds to compress and to decode it, bytes on disk."""

    compress: float
    decode: float
    stored_bytes: int


@dataclass
class Forecast:
    """The seconds of one model's work, by the cells that they are for."""

    stand: Stand
    model: Dimensions
    watch: Stopwatch
    load_seconds: float
    seconds_per_byte: float
    forward_tokens: int = 0  # so far, through one block each
    scored_tokens: int = 0  # so far
    _known: dict[tuple[str, int], AtBlock] = field(default_factory=dict)

    @cached_property
    def kinds(self) -> list[int]:
        """Of each block, the first one with the same linears."""
        first: dict[tuple[tuple[Shape, ...], ...], int] = {}
        shapes = (tuple(tuple(group.values()) for group in block) for block in self.model.layout.blocks)
        return [first.setdefault(each, index) for index, each in enumerate(shapes)]

    @cached_property
    def passes(self) -> Passes:
        """Seconds of tokens on their walk: as much is gathered as the most demanding cell needs."""
        fed = [(job, entry) for job in self.stand.jobs.values() if (entry := self.stand.prepared.entry(job.cell))]
        needs = max((job.cell.needs for job, _ in fed), default=Statistic.NONE)
        tokens = fed[0][1].tokens if fed else None
        return self.watch.passes(tokens, sorted(set(self.kinds)), self.stand.bench.recipe.batch_tokens, needs)

    @cached_property
    def scoring(self) -> Mapping[str, tuple[float, float]]:
        """Seconds of one token under each evaluation: of the dense model, and of a cell beside it."""
        return {key: self.watch.scoring(each) for key, each in self.stand.evaluations.items()}

    def making(self, work: Making) -> dict[str, Seconds]:
        """The seconds of work by which cells come about, by their ids."""
        if isinstance(work, Walk):
            return self.walk(work)
        job = self.stand.job(work.cell)
        entry = self.stand.prepared.entry(job.cell)
        tokens = entry.count if entry else 0
        once = tokens * sum(self.passes.through[kind, Statistic.NONE] for kind in self.kinds) if tokens else 0.0
        if isinstance(work, Survey):
            times: float = BACKWARD * Source.passes
        elif job.cell.finetune:
            trained = job.cell.finetune.epochs * (1 - job.cell.finetune.validation)
            together = job.cell.finetune.end_to_end
            times = BACKWARD * (trained + (together.epochs if together else 0)) + job.cell.finetune.epochs
        else:
            probe, linears = Probe(), sum(len(group) for block in self.model.layout.blocks for group in block)
            share = min(1.0, probe.sequences * probe.length / max(1, tokens))
            times = linears * len(probe.levels) * share  # twice each, through half of the blocks
        return {job.id: Seconds(other=times * once)}

    def walk(self, work: Walk) -> dict[str, Seconds]:
        """A walk's seconds by the ids of its cells, which share what they share."""
        jobs = [self.stand.job(cell) for cell in work.cells]
        blocks = work.blocks or range(len(self.kinds))
        wanted = [index for index in blocks if any(index in job.pending for job in jobs)]
        entry = self.stand.prepared.entry(jobs[0].cell)
        found: defaultdict[str, Seconds] = defaultdict(Seconds)
        visited: Sequence[int] = wanted
        if entry and wanted:
            visited = range(wanted[-1] + 1)
            _share(found, jobs, Seconds(other=self.passes.fill * entry.count))
        for index in visited:
            waiting = [job for job in jobs if index in job.pending and index in blocks]
            if entry:
                self._fed(found, waiting or jobs, index, entry.count, pending=bool(waiting))
            for job in waiting:
                here = self._at(job, index)
                found[job.id] += Seconds(compress=here.compress, other=here.stored_bytes * self.seconds_per_byte)
        return found

    def _fed(
        self, found: defaultdict[str, Seconds], jobs: Sequence[Job], index: int, tokens: int, *, pending: bool
    ) -> None:
        """Tokens through one block, as often as the mode of the walk takes."""
        needs, through = max(job.cell.needs for job in jobs), self.passes.through
        forward = tokens * through[self.kinds[index], Statistic.NONE]
        gathering = tokens * through[self.kinds[index], needs]
        if not pending:
            times, seconds = 1, Seconds(other=forward)
        elif not jobs[0].in_sequence:
            times, seconds = 1, Seconds(calibrate=gathering)
        else:
            steps = self._steps(jobs[0], index)
            times = steps + 1  # a pass for the statistics of each step's linears, and one to move on
            seconds = Seconds(calibrate=gathering + steps * forward)
        self.forward_tokens += tokens * times
        _share(found, jobs, seconds)

    def _steps(self, job: Job, index: int) -> int:
        part = Layout((self.model.layout.blocks[index],)).only(job.cell.covers).blocks[0]
        return sum(map(bool, part)) if job.cell.mode == "true-sequential" else 1

    def _at(self, job: Job, index: int) -> AtBlock:
        """One block of a cell; where a cell takes all linears, blocks of one kind are alike."""
        first = self.kinds[index] if job.cell.layers is None else index
        if (job.id, first) not in self._known:
            if not self.watch.shapes:
                self.passes  # noqa: B018 - what methods are timed on comes with it
            part = Layout((self.model.layout.blocks[first],)).only(job.cell.covers)
            tasks = together(job.cell.method, [list(group.values()) for group in part.blocks[0]])
            found = [self.watch.compress(job.cell, task) for task in tasks if task]
            seconds = sum(compressing for compressing, _ in found), sum(decoding for _, decoding in found)
            self._known[job.id, first] = AtBlock(*seconds, self.model.cell_bytes(job.cell, [first]))
        return self._known[job.id, first]

    def measure(self, work: Measure) -> dict[str, Seconds]:
        """The seconds in which a cell is loaded back, decoded and scored, by its id."""
        job = self.stand.job(work.cell)
        decoding = sum(self._at(job, index).decode for index in range(len(self.kinds)))
        scoring = 0.0
        for key in work.evaluations:
            tokens = sum(lengths(self.stand.evaluations[key]))
            self.scored_tokens += tokens
            scoring += tokens * self.scoring[key][1]
        return {job.id: Seconds(evaluate=self.load_seconds + decoding + scoring)}

    def reference(self, work: Reference) -> Seconds:
        """The dense model under an evaluation, and its noise floor, as far as they are not there."""
        evaluation, cache = self.stand.evaluations[work.evaluation], dense_cache(self.stand.bench.folder)
        each, beside = self.scoring[work.evaluation]
        total, folder = lengths(evaluation), dense_folder(cache, self.stand.subject, evaluation.tokens_id)
        seconds, scored, noise = 0.0, 0, 0
        if isinstance(evaluation, OnWindows):
            absent = len(evaluation.reference(self.stand.subject, cache).absent(len(total))) * total[0]
            seconds, scored = absent * each, absent
            noise = NOISES * sum(total[:NOISE_WINDOWS])
        elif isinstance(evaluation, OnItems):
            folder = dense_folder(cache, self.stand.subject, f"{evaluation.id}-{evaluation.tokens_id}")
            requests = sum(len(item.requests) for item in evaluation.loaded.items[:NOISE_ITEMS])
            noise = (NOISES + 1) * sum(total[:requests])
        if not (folder / "noise.json").exists():
            seconds, scored = seconds + noise * beside, scored + noise
        self.scored_tokens += scored
        return Seconds(other=seconds)


def lengths(evaluation: Evaluation) -> list[int]:
    """Tokens of each window, or of each request."""
    if isinstance(evaluation, OnItems):
        return request_lengths(evaluation)
    return (
        [evaluation.cut.tokens.shape[1]] * len(evaluation.cut.tokens) if isinstance(evaluation, OnWindows) else []
    )


def spread(pieces: Sequence[float], workers: int) -> float:
    """Seconds until the last of some workers is done, when the longest piece is always begun first."""
    loads = [0.0] * workers
    for piece in sorted(pieces, reverse=True):
        loads[loads.index(min(loads))] += piece
    return max(loads)


def _share(found: defaultdict[str, Seconds], jobs: Sequence[Job], seconds: Seconds) -> None:
    """Evenly."""
    for job in jobs:
        found[job.id] += seconds / len(jobs)
