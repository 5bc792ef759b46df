"""Statistics of the dense model, gathered once and kept on disk: for as many cells as a search likes to try.

One walk over the calibration tokens leaves two files for each decoder block: the sums as safetensors, of linears
that are fed the same tensor once, and a note with their sha256, written last. A block takes in * in * 4 bytes for
the H of each distinct input: 13 MiB in a model of 135 million parameters, 0.7 GiB in one of 7 billion. What comes
back is to the bit what the walk would have given.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from methods.statistics import Statistic, Statistics
from suite.architecture import Block, decoder_blocks, linears
from suite.budget import Budget
from suite.calibrate import Counted, advance, first_inputs, observe
from suite.kept import BlockFiles, refuse_full_disk
from suite.ledger import Entry
from suite.models import Subject
from suite.progress import track
from suite.schema import digest
from suite.streaming import placed

logger = logging.getLogger(__name__)

LAYOUT = 2  # rises when the files change


def statistics_cache(folder: Path) -> Path:
    """Beside the results folder of a recipe, shared by all of them, as the dense reference is."""
    return folder.parent / ".statistics"


@dataclass(frozen=True)
class Source:
    """What statistics depend on: a model, tokens, and the part that each token has."""

    subject: Subject
    entry: Entry
    budget: Budget
    batch_tokens: int = 4096

    @property
    def id(self) -> str:
        """A hash of all of it; the batch decides in which order tokens are added."""
        counted = self.budget.counted()
        return digest([LAYOUT, self.subject.fingerprint, self.entry.id, counted, self.batch_tokens])[:16]


@dataclass(frozen=True)
class Gathered:
    """Statistics on disk. Call it with the index of a block: it can be a walk's `Fed.statistics`."""

    folder: Path
    device: torch.device

    def __call__(self, index: int) -> dict[str, Statistics]:
        """By the names of a block's linears, on the device; those of one input share one Statistics object."""
        tensors, note = self._files.tensors(index, self.device), self._files.note(index)
        found = {
            leader: Statistics.from_tensors(tensors, note["tokens"], f"{leader}.")
            for leader in note["leaders"].values()
        }
        return {name: found[leader] for name, leader in note["leaders"].items()}

    def holds(self, index: int) -> bool:
        """Whether a block is there with the bytes that were written."""
        return self._files.holds(index)

    def keep(self, index: int, statistics: Mapping[str, Statistics]) -> None:
        """Put a block on disk."""
        first = {id(each): name for name, each in reversed(list(statistics.items()))}
        leaders = {name: first[id(each)] for name, each in statistics.items()}
        tensors: dict[str, Tensor] = {}
        for leader in first.values():
            tensors |= statistics[leader].tensors(f"{leader}.")
        tokens = next(iter(statistics.values())).tokens
        self._files.keep(index, tensors, tokens=tokens, leaders=leaders)

    @property
    def _files(self) -> BlockFiles:
        return BlockFiles(self.folder)


@torch.no_grad()
def gather(source: Source, cache: Path, device: torch.device, only: Sequence[int] | None = None) -> Gathered:
    """Walk over the dense model as far as statistics, of all blocks or some, are missing in `cache`.

    A walk that was cut short goes on at its block, once the hidden states were brought there again.
    EnvironmentProblem when the disk has no room for them.
    """
    blocks = decoder_blocks(source.subject.model)
    found = Gathered(cache / source.id, device)
    wanted = range(len(blocks)) if only is None else only
    missing = [index for index in wanted if not found.holds(index)]
    if not missing:
        return found
    refuse_full_disk(cache, _most_bytes([blocks[index] for index in missing]), "statistics")
    tokens = source.entry.tokens
    batches = first_inputs(source.subject.model, tokens, max(1, source.batch_tokens // tokens.shape[1]), device)
    counted = Counted(**source.budget.counted())
    for index in track(range(missing[-1] + 1), "statistics"):
        block = blocks[index]
        with placed(block.module, device):
            if index in missing:
                found.keep(index, observe(block, index, batches, Statistic.GRAM, counted, move_on=True))
            else:
                advance(block, index, batches)
    return found


def _most_bytes(blocks: Sequence[Block]) -> int:
    """What statistics take at most: q, k and v have one H, but which linears share one only a walk can tell."""
    widths = [layer.in_features for block in blocks for layer in linears(block).values()]
    return sum(4 * width * (width + 3) for width in widths)
