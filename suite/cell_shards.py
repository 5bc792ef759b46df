"""Where the shards of a cell are between the stages of its fine-tuning, and how they become the cell's."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from kernels.format import Format
from suite.architecture import Block, linears
from suite.checkpoint import read_manifest
from suite.errors import CheckpointError
from suite.files import link_or_copy
from suite.jobs import Job, notes_path
from suite.shards import holds_shard, read_shard, shard_name, write_shard
from suite.signed import is_signed, read_signed, write_signed

END_TO_END = "end-to-end"  # folder within the cell's, of shards that are not yet all there
BLOCKWISE = "/blockwise"  # after the fingerprint of a shard that the second stage has yet to change

Notes = dict[str, Any]


@dataclass(frozen=True)
class CellShards:
    """The shards of one stage: in `folder`, with a fingerprint that says which stage it is."""

    job: Job
    blocks: Sequence[Block]
    folder: Path
    suffix: str = ""

    def covers(self, index: int) -> bool:
        """Whether the cell compresses anything of a block, and so has something to tune."""
        return bool(self.job.covered(self.blocks[index], linears(self.blocks[index])))

    def shard(self, index: int) -> Path:
        """Where block `index` goes."""
        return self.folder / shard_name(index)

    def fingerprint(self, index: int) -> str:
        """What its shard must carry. A block that the cell leaves alone is the same in all stages."""
        return self.job.fingerprint(index, self.blocks[index]) + (self.suffix if self.covers(index) else "")

    def has(self, index: int) -> bool:
        """Whether block `index` is there, notes and all."""
        return holds_shard(self.shard(index), self.fingerprint(index)) and is_signed(notes_path(self.shard(index)))

    @property
    def is_whole(self) -> bool:
        """Whether the shards of all blocks are there: the notes of a finished cell are in its manifest."""
        every = range(len(self.blocks))
        return all(holds_shard(self.shard(index), self.fingerprint(index)) for index in every)

    def read(self, index: int) -> tuple[dict[str, Format], dict[str, Tensor]]:
        """The compressed weights and the other tensors of a block. CheckpointError when they are not there."""
        if not holds_shard(self.shard(index), self.fingerprint(index)):
            raise CheckpointError(
                f"{self.shard(index)} is not that of {self.job.cell.label}; run the recipe again"
            )
        return read_shard(self.shard(index))

    def notes(self, index: int) -> Notes:
        """Those of a block; once the cell is finished, what its manifest kept of them."""
        path = notes_path(self.shard(index))
        if path.exists():
            return read_signed(path)
        manifest = read_manifest(self.folder)
        own = {name for name in manifest["layers"] if name.startswith(f"{self.blocks[index].name}.")}
        return {
            "audit": {name: manifest["layers"][name] for name in own},
            **{key: seconds / len(self.blocks) for key, seconds in manifest["seconds"].items()},
            **{key: manifest[key] for key in ("peak_memory_gib", "peak_device_memory_gib")},
        }

    def write(self, index: int, formats: Mapping[str, Format], others: Mapping[str, Tensor], notes: Notes) -> None:
        """Put a block on disk, its notes first."""
        write_signed(notes_path(self.shard(index)), notes)
        write_shard(self.shard(index), formats, others, self.fingerprint(index))

    def take(self, other: "CellShards", index: int) -> None:
        """Have a block as another stage has it."""
        write_signed(notes_path(self.shard(index)), other.notes(index))
        link_or_copy(other.shard(index), self.shard(index))


def published(staged: CellShards, cell: CellShards) -> bool:
    """Make the shards of the last stage the cell's, if all that the cell lacks are there. A kill does no harm."""
    if not all(cell.has(index) or staged.has(index) for index in range(len(cell.blocks))):
        return False
    for index in range(len(cell.blocks)):
        if not cell.has(index):
            cell.take(staged, index)
    shutil.rmtree(staged.folder, ignore_errors=True)
    return True
