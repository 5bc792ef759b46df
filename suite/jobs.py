"""One cell on its way to disk: where its shards go, which of them are missing, and what stopped it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from methods.method import Method
from methods.statistics import Statistic
from suite.architecture import Block, linears
from suite.cell import Cell
from suite.files import of_each
from suite.layers import Failures
from suite.shards import holds_shard, shard_fingerprint, shard_name
from suite.signed import is_signed

T = TypeVar("T")

IN_SEQUENCE = ("sequential", "true-sequential")


@dataclass
class Job:
    """A cell, its id and its folder."""

    cell: Cell
    id: str
    folder: Path
    model: str = ""  # its fingerprint
    bases: tuple["Job", ...] = ()  # what it is made from: the cell that is fine-tuned, or those it takes layers of
    method: Method | None = None  # the cell's, once it has what it takes from the whole model
    trouble: str | None = None  # why it stopped: `failed: …` or `void: …`
    pending: set[int] = field(default_factory=set)  # blocks without a shard

    @property
    def settled(self) -> Cell:
        """The cell as it is compressed: with what its method takes from the whole model."""
        return self.cell if self.method is None else replace(self.cell, method=self.method)

    def shard(self, index: int) -> Path:
        """Where block `index` goes."""
        return self.folder / shard_name(index)

    @property
    def in_sequence(self) -> bool:
        """Whether each block is fed by the compressed blocks before it."""
        return self.cell.mode in IN_SEQUENCE

    @property
    def failures(self) -> Failures:
        """Where what fails is saved, beside the cells of the recipe."""
        return Failures(self.folder.parent.parent / "failures", self.id)

    def covered(self, block: Block, of: Mapping[str, T]) -> dict[str, T]:
        """Those entries, by the names of linears within a block, whose linears the cell compresses."""
        return {name: value for name, value in of.items() if self.cell.covers(f"{block.name}.{name}")}

    def fingerprint(self, index: int, block: Block) -> str:
        """What the shard of block `index` must carry: a block that the cell leaves alone is every such cell's."""
        return shard_fingerprint(self.id if self.covered(block, linears(block)) else self.model, index)

    def untouched_shard(self, index: int) -> Path:
        """Where block `index` of the dense model is kept for all cells that leave it alone."""
        return self.folder.parent.parent / "shared" / f"{self.model[:16]}-untouched" / shard_name(index)

    def look(self, blocks: Sequence[Block], only: range | None = None) -> None:
        """Find out which blocks, of all or of some, are still to be done."""
        some = only or range(len(blocks))
        held = of_each(self._holds, some, [blocks[index] for index in some])
        self.pending = {index for index, there in zip(some, held, strict=True) if not there}

    def _holds(self, index: int, block: Block) -> bool:
        """Whether a block's shard and its notes are there, as they were written."""
        path = self.shard(index)
        return holds_shard(path, self.fingerprint(index, block)) and is_signed(notes_path(path))

    def needs(self, block: Block) -> Statistic:
        """What of its inputs' statistics the cell needs in a block."""
        return self.cell.needs if self.covered(block, linears(block)) else Statistic.NONE


def notes_path(shard: Path) -> Path:
    """The notes of a shard (audit, seconds), kept beside it because they differ from run to run."""
    return shard.with_suffix(".json")


def group_key(cell: Cell) -> tuple[Any, ...]:
    """Cells with equal keys can share a walk; a sequential cell only walks alone."""
    alone = cell if cell.mode in IN_SEQUENCE else None
    seed = cell.seed if cell.budget else None
    return cell.model, cell.budget, seed, cell.mode, alone


def groups(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs that share a walk, in order of first appearance."""
    found: dict[Any, list[Job]] = {}
    for job in jobs:
        found.setdefault(group_key(job.cell), []).append(job)
    return list(found.values())
