"""Fine-tuning of one cell (NoWag, arXiv:2504.14569): the cell that it is made from, block by block, then together.

Each block is trained to put out what the dense block does, and goes to disk before the next one is looked at. With
`end_to_end` these are not yet the cell's own: all of them are trained once more, and replaced together.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property

import torch
from torch import Generator, Tensor, nn

from methods.method import Audit
from methods.statistics import Statistic, Statistics
from suite.architecture import Block, decoder_blocks, linears
from suite.calibrate import Counted, observe
from suite.cell_shards import BLOCKWISE, END_TO_END, CellShards, Notes, published
from suite.finetune.end_to_end import fit_together
from suite.finetune.streams import Split, Streams, distances
from suite.finetune.training import Course, fit
from suite.finetune.tuned import TunedBlock
from suite.finetuning import EndToEnd, Finetune
from suite.jobs import Job
from suite.layers import errors
from suite.models import Subject
from suite.progress import track
from suite.schema import digest
from suite.speed import Phase, measured
from suite.streaming import placed

STALE = ("output_error", "output_loss")  # of the weights before; known again only where statistics are at hand


@dataclass(frozen=True)
class Tuning:
    """One cell, its settings, and the tokens [sequences, length] of its ledger entry."""

    subject: Subject
    job: Job
    settings: Finetune
    tokens: Tensor
    device: torch.device

    @cached_property
    def blocks(self) -> list[Block]:
        """The decoder blocks of the dense model."""
        return decoder_blocks(self.subject.model)

    @cached_property
    def split(self) -> Split:
        """The same for both stages, so that what judges the second was not trained on in the first."""
        return Split.drawn(self.tokens, self.settings.judged_by(len(self.tokens)), self.rng("split"))

    @cached_property
    def counted(self) -> Counted:
        """The part of each token, as the cell's statistics have it."""
        budget = self.job.cell.budget
        return Counted(**budget.counted()) if budget else Counted()

    @property
    def base(self) -> CellShards:
        """The shards of the cell that this one is made from."""
        return CellShards(self.job.bases[0], self.blocks, self.job.bases[0].folder)

    @property
    def blockwise(self) -> CellShards:
        """Where the shards of the first stage go."""
        return CellShards(self.job, self.blocks, self.job.folder, BLOCKWISE if self.settings.end_to_end else "")

    def rng(self, what: str) -> Generator:
        """Random numbers of its own for each part of the work, so that resuming changes none."""
        return Generator().manual_seed(int(digest([self.job.cell.seed, what])[:12], 16))

    def tuned(self, stage: CellShards, index: int) -> TunedBlock:
        """A block as a stage has it, to be trained."""
        return TunedBlock(self.blocks[index], *stage.read(index), norms=self.settings.norms)


@torch.no_grad()
def tune_cell(subject: Subject, job: Job, tokens: Tensor, device: torch.device) -> None:
    """Write every shard that a fine-tuned cell lacks, from those of its base, on the tokens of its budget.

    LayerFailure when nothing that a block could be is finite, CheckpointError when the base is not complete,
    CalibrationError when the budget leaves no sequence to train on.
    """
    if job.cell.finetune is None:
        raise ValueError(f"{job.cell.label} is not fine-tuned")
    tuning = Tuning(subject, job, job.cell.finetune, tokens, device)
    cell = CellShards(job, tuning.blocks, job.folder)
    staged = CellShards(job, tuning.blocks, job.folder / END_TO_END)
    if tuning.settings.end_to_end is None:
        _tune_blocks(tuning)
    elif not published(staged, cell):
        _tune_blocks(tuning)
        _tune_together(tuning, tuning.settings.end_to_end, staged)
        published(staged, cell)


def _tune_blocks(tuning: Tuning) -> None:
    """The first stage, as far as its shards are missing."""
    blocks, stage = tuning.blocks, tuning.blockwise
    missing = [index for index in range(len(blocks)) if not stage.has(index)]
    if not missing:
        return
    streams = Streams.started(tuning.subject.model, tuning.split, tuning.settings.batch, tuning.device)
    for index in track(range(missing[-1] + 1), f"fine-tuning, {tuning.job.cell.label}"):
        with placed(blocks[index].module, tuning.device):
            _tune_block(tuning, streams, index)


def _tune_block(tuning: Tuning, streams: Streams, index: int) -> None:
    """One block, unless its shard is there; the hidden states move on behind it."""
    block, stage, settings = tuning.blocks[index], tuning.blockwise, tuning.settings
    own = tuning.job.covered(block, linears(block))
    if settings.inputs == "dense":
        streams.feed_dense()
    statistics = observe(
        block, index, streams.dense, Statistic.DIAGONAL, tuning.counted, only=list(own), move_on=True
    )
    module: nn.Module = block.module
    if own:
        module = tuned = tuning.tuned(stage if stage.has(index) else tuning.base, index)
        if not stage.has(index):
            _fit_block(tuning, streams, index, tuned, statistics)
    elif not stage.has(index):
        stage.take(tuning.base, index)
    if settings.inputs == "compressed":
        streams.feed_tuned(Block(block.name, module), index)


def _fit_block(
    tuning: Tuning, streams: Streams, index: int, tuned: TunedBlock, statistics: Mapping[str, Statistics]
) -> None:
    """Train one block, and put it on disk."""
    losses = distances(tuned, index, tuning.counted.skip_first, tuning.device)
    name = tuning.blocks[index].name
    with measured() as phase:
        course = fit([tuned], losses, streams.data(), tuning.settings, tuning.rng(name))
    notes = tuning.base.notes(index)
    notes["audit"] = _audit(tuning, index, tuned, notes["audit"], statistics)
    notes |= {"finetune": _told(tuning, course, phase, 1), **_peaks(notes, phase)}
    notes["curves"] = _curves(f"block_{index:03d}", course)
    tuning.blockwise.write(index, tuned.formats(), tuned.others(), notes)


def _tune_together(tuning: Tuning, settings: EndToEnd, staged: CellShards) -> None:
    """The second stage: trains all blocks that are compressed, and stages their shards."""
    model = tuning.subject.model
    with placed(model, tuning.device):
        covered = [index for index in range(len(tuning.blocks)) if staged.covers(index)]
        tuned = {index: tuning.tuned(tuning.blockwise, index) for index in covered}
        with measured() as phase:
            course = fit_together(
                model, tuned, tuning.split, settings, tuning.rng("end to end"), tuning.counted.skip_first
            )
        for index, block in tuned.items():
            notes = tuning.blockwise.notes(index)
            notes["audit"] = _audit(tuning, index, block, notes["audit"], {})
            if index == covered[0]:
                notes |= {"end_to_end": _told(tuning, course, phase, len(tuning.blocks)), **_peaks(notes, phase)}
                notes["curves"] |= _curves("end_to_end", course)
            staged.write(index, block.formats(), block.others(), notes)


def _audit(
    tuning: Tuning,
    index: int,
    tuned: TunedBlock,
    before: Mapping[str, Audit],
    statistics: Mapping[str, Statistics],
) -> dict[str, Audit]:
    """What was noted of each linear, with the errors of what it is now."""
    block, formats = tuning.blocks[index], tuned.formats()
    found = {}
    for name, layer in linears(block).items():
        full = f"{block.name}.{name}"
        if full in before:
            kept = {key: value for key, value in before[full].items() if key not in STALE}
            known = statistics.get(name, Statistics.none(layer.in_features, layer.weight.device))
            found[full] = {**kept, **errors(layer.weight, formats[f"{full}.weight"].dequantize(), known)}
    return found


def _told(tuning: Tuning, course: Course, phase: Phase, blocks: int) -> Notes:
    """A training of so many blocks in the notes of a shard.

    `gradient_passes` over so many `tokens` each are those of the whole model, of which a block is a part.
    """
    return {
        **asdict(course),
        "before": course.before,
        "after": course.after,
        "seconds": phase.seconds,
        "tokens": tuning.split.train.numel(),
        "gradient_passes": len(course.train) * blocks / len(tuning.blocks),
    }


def _peaks(notes: Notes, phase: Phase) -> dict[str, float | None]:
    """The most memory that was in use, then or now."""
    both = phase.after(Phase(0.0, notes["peak_memory_gib"], notes["peak_device_memory_gib"]))
    return {
        "peak_memory_gib": both.peak_memory_gib,
        "peak_device_memory_gib": both.peak_device_memory_gib,
    }


def _curves(where: str, course: Course) -> dict[str, list[float]]:
    """Losses by epoch, under the names that they are tracked by."""
    return {f"finetune/{where}/train": course.train, f"finetune/{where}/validation": course.validation}
