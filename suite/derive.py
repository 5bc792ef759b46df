"""Work for cells that take something from the whole model, and for cells that are made from others.

A fine-tuned cell is made from the same cell as it was compressed, an allocated one from those whose layers it
takes. What they are made from is compressed like any cell; it is measured only where the recipe asks for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from suite.allocated import Allocated
from suite.allocation.assemble import assemble, read_choice, totals
from suite.allocation.table import Judge
from suite.compress import marking
from suite.errors import ConfigError
from suite.finetune.cell import tune_cell
from suite.gathered import Source, gather, statistics_cache
from suite.jobs import Job
from suite.ledger import Entry
from suite.linearity import Source as Probed
from suite.linearity import linearity_cache, measure
from suite.stages import inherit, note_stage
from suite.work import Bench, Stand


@dataclass(frozen=True)
class _ForOneCell:
    """Work that one cell waits for."""

    is_one_loop: ClassVar[bool] = False
    model: str
    cell: str

    @property
    def cells(self) -> tuple[str, ...]:
        """The one that it is for."""
        return (self.cell,)


@dataclass(frozen=True)
class Survey(_ForOneCell):
    """What a cell takes from the whole model before its walk; finds that it got into trouble, and why."""

    @property
    def label(self) -> str:
        return f"survey for cell {self.cell}"

    def run(self, bench: Bench) -> Iterator[dict[str, str]]:
        stand = bench.stand(self.model)
        job = stand.job(self.cell)
        with marking(job):
            stand.survey(job)
        yield {job.id: job.trouble} if job.trouble else {}


@dataclass(frozen=True)
class Derive(_ForOneCell):
    """A cell made from its bases, whose shards are there; finds that it got into trouble, and why."""

    @property
    def label(self) -> str:
        return f"making of cell {self.cell} from others"

    def run(self, bench: Bench) -> Iterator[dict[str, str]]:
        stand = bench.stand(self.model)
        job = stand.job(self.cell)
        entry = stand.prepared.entry(job.cell)
        if entry is None:
            raise ValueError(f"{job.cell.label} is made from others without a single token")
        job.trouble = None
        for base in job.bases:
            inherit(job.folder, base.folder)
        with marking(job):
            if job.cell.finetune:
                tune_cell(stand.subject, job, entry.tokens, bench.device)
            else:
                _allocate(stand, job, entry)
        yield {job.id: job.trouble} if job.trouble else {}


def _allocate(stand: Stand, job: Job, entry: Entry) -> None:
    """Measure what each linear matters, and give each the option that this and the target make best."""
    subject, device, folder = stand.subject, stand.bench.device, stand.bench.folder
    linearity = measure(Probed(subject, entry), linearity_cache(folder), device)
    note_stage(job.folder, "linearity", linearity.spent)
    statistics = None
    if isinstance(job.cell.method, Allocated) and job.cell.method.error == "output" and job.cell.budget:
        source = Source(subject, entry, job.cell.budget, stand.bench.recipe.batch_tokens)
        statistics = gather(source, statistics_cache(folder), device)
    try:
        assemble(subject, job, Judge(linearity, device, statistics))
    except ConfigError as error:  # no choice is as small as the target, which only the options' sizes tell
        job.trouble = f"unsupported: {error}"
    if choice := read_choice(job.folder):
        note_stage(job.folder, "allocation", totals(choice))
