"""The sizes of a model, without its weights, and those of the cells that are made of it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from suite.architecture import decoder_blocks
from suite.cell import Cell
from suite.models import Subject
from suite.sizes import Layout, bits_per_weight, layout_of
from suite.streaming import is_streamed

FLOAT = 4  # bytes of the float32 in which everything is computed
NOTES_BYTES = 64 << 10
"""Of a block of a cell: the header of its shard, and the notes beside it."""


@dataclass(frozen=True)
class Dimensions:
    """The sizes of a model, without its weights."""

    layout: Layout
    parameters: int
    block_parameters: tuple[int, ...]  # of each block
    hidden: int
    vocabulary: int
    storage_width: int  # bits of a stored number
    streamed: bool = False

    @property
    def model_bytes(self) -> int:
        """At work: all of it, or where it is streamed what is outside its blocks, and the largest of them."""
        within = sum(self.block_parameters) - max(self.block_parameters)
        return (self.parameters - within * self.streamed) * FLOAT

    @property
    def rest_bytes(self) -> int:
        """On disk, of what is outside the blocks and so in every cell."""
        return (self.parameters - sum(self.block_parameters)) * self.storage_width // 8

    def bits_per_weight(self, cell: Cell) -> float:
        """Stored, of the linears that a cell compresses. ValueError for one that its method cannot take."""
        return bits_per_weight(cell.method, self.layout.only(cell.covers), self.storage_width, cell.outliers)

    def cell_bytes(self, cell: Cell, blocks: Sequence[int]) -> int:
        """On disk, of some blocks of a cell: its method's bits, and the rest of each block as it was."""
        part = Layout(tuple(self.layout.blocks[index] for index in blocks)).only(cell.covers)
        weights = part.weights
        bits = (sum(self.block_parameters[index] for index in blocks) - weights) * self.storage_width
        if weights:
            bits += round(weights * bits_per_weight(cell.method, part, self.storage_width, cell.outliers))
        return bits // 8

    def together_bytes(self, cells: Collection[Cell]) -> int:
        """On disk, of whole cells. What is outside the blocks, and a block that several cells leave alone, is
        there once, as a hard link for each.
        """
        total, alone = self.rest_bytes, set[int]()
        for cell in cells:
            blocks = range(len(self.layout.blocks))
            own = [index for index in blocks if any(map(cell.covers, self.layout.names(index)))]
            total += self.cell_bytes(cell, own) + NOTES_BYTES * len(blocks)
            alone |= set(blocks).difference(own)
        return total + sum(self.block_parameters[index] for index in alone) * self.storage_width // 8


def dimensions_of(subject: Subject) -> Dimensions:
    """The sizes of a loaded model."""
    blocks = decoder_blocks(subject.model)
    return Dimensions(
        layout=layout_of(subject),
        parameters=sum(p.numel() for p in subject.model.parameters()),
        block_parameters=tuple(sum(p.numel() for p in block.module.parameters()) for block in blocks),
        hidden=subject.model.config.get_text_config().hidden_size,
        vocabulary=len(subject.model.get_input_embeddings().weight),
        storage_width=8 * subject.storage_dtype.itemsize,
        streamed=is_streamed(subject.model),
    )
