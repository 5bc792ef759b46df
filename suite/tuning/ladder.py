"""The rungs that a trial climbs, each dearer than the one before: proxy loss, a few windows, all windows.

The proxy is the loss that layer-wise compression minimises: tr(E H Eᵀ) / tr(W H Wᵀ) of each linear, E = Ŵ - W as
stored and H of the dense model, on a few blocks. H is of other tokens than those that were compressed with, drawn
from the same source: by its own H a method that fits H closely looks better than it is. The shards are kept, so
that a cell which goes on does not compress those blocks again. A cell with sequential statistics is judged there
by its twin with dense ones; from the next rung on it walks over the tokens as it should.

Everything else is measured on the checkpoint that came back from disk, and becomes a row in the journal like that
of any run: what was measured once is not measured again.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from methods.hessian import gram_error
from methods.statistics import Statistics
from suite.architecture import Block, decoder_blocks, linears
from suite.cell import Cell
from suite.compress import Fed, walk
from suite.derive import Derive
from suite.evaluations import Evaluation, Noise
from suite.gathered import Gathered
from suite.jobs import IN_SEQUENCE, Job
from suite.prepare import Prepared
from suite.results import Row
from suite.scoring import Desk, row_id
from suite.shards import read_shard
from suite.tuning.candidates import mean
from suite.work import Bench, Measure, Stand, empty_row

PROXY = "proxy"


class Stopped(Exception):
    """A trial that cannot go on: a layer failed, or the model's output is not finite."""


@dataclass(frozen=True)
class Proxy:
    """The rung of the proxy loss: statistics of tokens that no trial was compressed with, and of which blocks."""

    held_out: Gathered
    blocks: range


@dataclass(frozen=True)
class Scored:
    """A rung of some windows."""

    name: str
    evaluation: Evaluation


@dataclass(frozen=True)
class Step:
    """What a trial was found to be on a rung, averaged over seeds. Smaller is better, on each window, too."""

    rung: str
    value: float
    windows: tuple[float, ...] = ()  # nats per token
    figures: Mapping[str, float] = field(default_factory=dict)  # by the names of objectives


@dataclass
class Ladder:
    """All that the trials of a search share."""

    bench: Bench  # of the model, prepared without cells
    prepared: Prepared
    desk: Desk
    rungs: Sequence[Proxy | Scored]
    objective: str  # kl or perplexity: what rungs with an evaluation are judged by
    gathered: Mapping[int, Gathered]  # by seed; empty where no method needs data
    noise: dict[str, Noise] = field(default_factory=dict)
    known: dict[str, Row] = field(default_factory=dict)  # rows that need not be measured again, by row_id
    proxies: dict[tuple[str, ...], float] = field(default_factory=dict)  # by the ids of the cells

    def climb(self, cells: Sequence[Cell]) -> Iterator[Step]:
        """One step after another, as long as somebody asks. Stopped when a cell gets into trouble."""
        stand = self.stand(cells)
        jobs = {job.cell: job for job in stand.jobs.values()}
        for rung in self.rungs:
            if isinstance(rung, Proxy):
                yield Step(PROXY, self._proxy(rung, stand, [jobs[cell] for cell in cells], jobs))
            else:
                rows = [self._row(stand, jobs[cell], rung.evaluation) for cell in cells]
                yield _step(rung.name, rows, self.objective)

    def stand(self, cells: Sequence[Cell]) -> Stand:
        """The model with these cells, and the twins that stand for them on the proxy's rung."""
        prepared = replace(self.prepared, cells=tuple(dict.fromkeys([*cells, *map(_dense_twin, cells)])))
        bench = replace(self.bench, prepared={prepared.model: prepared}, stands={})
        stand = bench.stand(prepared.model)
        stand.noise = self.noise
        return stand

    def _proxy(self, rung: Proxy, stand: Stand, own: Sequence[Job], jobs: Mapping[Cell, Job]) -> float:
        """The mean over seeds and over the linears of some blocks; one that a cell leaves alone has no loss."""
        key = tuple(job.id for job in own)
        if key not in self.proxies:
            twins = [jobs[_dense_twin(job.cell)] for job in own]
            self.proxies[key] = mean([loss for twin in twins for loss in self._losses(rung, stand, twin)])
            for twin in twins:
                if twin not in own:
                    shutil.rmtree(twin.folder)
        return self.proxies[key]

    def _losses(self, rung: Proxy, stand: Stand, job: Job) -> Iterator[float]:
        """tr(E H Eᵀ) / tr(W H Wᵀ) of each linear, on the device."""
        self._walk(stand, job, rung.blocks)
        blocks, dtype = decoder_blocks(stand.subject.model), stand.subject.storage_dtype
        for index in rung.blocks:
            yield from _losses(job.shard(index), blocks[index], rung.held_out(index), dtype)

    def _row(self, stand: Stand, job: Job, evaluation: Evaluation) -> Row:
        """From the journal, or measured on the checkpoint after it came back from disk."""
        row = self.known.get(row_id(job.id, evaluation))
        if row is None:
            self._walk(stand, job, None, evaluation)
            for row, found in Measure(stand.prepared.model, job.id, (evaluation.id,)).run(stand.bench):
                self.known[row.row_id] = self.desk.record(row, found)
            row = self.known[row_id(job.id, evaluation)]
        if row.status != "ok":
            raise Stopped(f"{row.status}: {row.reason}")
        return row

    def _walk(self, stand: Stand, job: Job, only: range | None, evaluation: Evaluation | None = None) -> None:
        """Write what shards are missing. Stopped, with a row that says why, when that fails."""
        if job.bases:
            for base in job.bases:
                self._walk(stand, base, only)
            for _ in Derive(stand.prepared.model, job.id).run(stand.bench):
                pass  # the job is marked
        elif job.in_sequence:
            entry, gradients = stand.prepared.entry(job.cell), stand.survey(job)
            fed = Fed(entry.tokens if entry else None, stand.bench.recipe.batch_tokens, gradients=gradients)
            walk(stand.subject, [job], fed, stand.bench.device)
        else:
            statistics = self.gathered.get(job.cell.seed) if job.cell.budget else None
            fed = Fed(statistics=statistics, only=only, gradients=stand.survey(job))
            walk(stand.subject, [job], fed, stand.bench.device)
        if job.trouble is None:
            return
        if evaluation:
            status, _, reason = job.trouble.partition(": ")
            row = empty_row(stand, job, evaluation)
            self.desk.record(row.model_copy(update={"status": status, "reason": reason}))
        raise Stopped(job.trouble)


def _dense_twin(cell: Cell) -> Cell:
    """What stands for a cell on the proxy's rung: fine-tuning is not what tr(E H Eᵀ) could judge."""
    plain = cell.bases[0] if cell.finetune else cell
    return replace(plain, mode="dense") if plain.mode in IN_SEQUENCE else plain


def _losses(
    shard: Path, block: Block, statistics: Mapping[str, Statistics], dtype: torch.dtype
) -> Iterator[float]:
    formats, _ = read_shard(shard)
    for name, layer in linears(block).items():
        stored, gram = formats.get(f"{block.name}.{name}.weight"), statistics[name].gram
        loss = None
        if stored is not None and gram is not None:
            weight = layer.weight.to(gram.device, dtype).float()
            loss = gram_error(weight, stored.dequantize().to(gram.device).float(), gram)
        yield loss or 0.0


def _step(rung: str, rows: Sequence[Row], objective: str) -> Step:
    """Rows of one candidate under different seeds as one step."""
    figures = {
        "kl": mean([row.quality.kl_mean or 0.0 for row in rows if row.quality]),
        "perplexity": mean([row.quality.perplexity for row in rows if row.quality]),
        "stored_bits": mean([row.size.stored_bits_per_weight for row in rows if row.size]),
    }
    totals = [
        [
            window * len(row.quality.window_nll) / row.quality.scored_tokens
            for window in (row.quality.window_kl if objective == "kl" else row.quality.window_nll)
        ]
        for row in rows
        if row.quality
    ]
    return Step(rung, figures[objective], tuple(map(mean, zip(*totals, strict=True))), figures)
