"""What a method would store for a model, known before any work: from the shapes of its linears alone."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from methods.method import Method, SharingMethod
from methods.outliers import Outliers
from methods.statistics import Statistic
from methods.target import Targeted
from suite.architecture import Block, decoder_blocks, linears
from suite.calibrate import by_input, first_inputs, observe
from suite.errors import CalibrationError
from suite.models import Subject
from suite.streaming import placed

Shape = tuple[int, int]  # out, in
Names = list[list[str]]  # of linears, in groups of one input
T = TypeVar("T")


@dataclass(frozen=True)
class Layout:
    """The linears of a model's decoder blocks: of each block, in groups of one input, full names to shapes."""

    blocks: tuple[tuple[Mapping[str, Shape], ...], ...]

    def only(self, wanted: Callable[[str], bool]) -> "Layout":
        """The part of it that some linears make up; `wanted` is told full names."""
        return Layout(
            tuple(
                tuple({name: shape for name, shape in group.items() if wanted(name)} for group in block)
                for block in self.blocks
            )
        )

    @property
    def weights(self) -> int:
        """How many there are in all of its linears."""
        return sum(math.prod(shape) for block in self.blocks for group in block for shape in group.values())

    def names(self, index: int) -> list[str]:
        """The full names of a block's linears."""
        return [name for group in self.blocks[index] for name in group]

    @property
    def shapes(self) -> Counter[tuple[tuple[Shape, ...], ...]]:
        """How many blocks there are of each kind: shapes in groups of one input."""
        return Counter(tuple(tuple(group.values()) for group in block if group) for block in self.blocks)


def bits_per_weight(method: Method, layout: Layout, width: int, outliers: Outliers | None = None) -> float:
    """The stored bits per weight that a cell of this method would have; `width` is that of the storage dtype.

    `outliers` are those kept beside it. ValueError when there is no linear, or one that the method cannot take.
    """
    bits = weights = 0
    for block, times in layout.shapes.items():
        shapes = [shape for group in block for shape in group]
        weights += times * sum(rows * columns for rows, columns in shapes)
        if isinstance(method, Targeted):  # of all linears together
            continue
        bits += times * sum(method.stored_bits(own, width) for own in together(method, block))
        if outliers:
            bits += times * sum(outliers.stored_bits(shape, width) for shape in shapes)
    if not weights:
        raise ValueError("no linear is compressed, so there are no bits per weight")
    return (method.target.bits(weights) if isinstance(method, Targeted) else bits) / weights


def together(method: Method, groups: Sequence[Sequence[T]]) -> list[list[T]]:
    """Linears of a block in groups of one input, to groups of those that share something, as the method is set."""
    share = method.share if isinstance(method, SharingMethod) else "linear"
    if share == "input":
        return [list(group) for group in groups]
    flat = [each for group in groups for each in group]
    return [flat] if share == "block" and flat else [[each] for each in flat]


def layout_of(subject: Subject) -> Layout:
    """The layout of a model. One block of each kind is run on a few tokens, to see which linears share an input.

    In a model that cannot be walked each linear stands alone: whatever shares needs statistics, and fails there.
    """
    blocks = decoder_blocks(subject.model)
    kinds: dict[tuple[tuple[str, Shape], ...], int] = {}  # the first block of a kind
    for index, block in enumerate(blocks):
        kinds.setdefault(_kind(block), index)
    try:
        names = _seen(subject, blocks, list(kinds.values()))
    except CalibrationError:
        names = {index: [[name] for name in linears(blocks[index])] for index in kinds.values()}
    return Layout(tuple(_grouped(block, names[kinds[_kind(block)]]) for block in blocks))


def shapes_of(subject: Subject) -> dict[str, Shape]:
    """The shape of every linear that can be compressed, by its full name."""
    blocks = decoder_blocks(subject.model)
    return {f"{block.name}.{name}": shape for block in blocks for name, shape in _shapes(block).items()}


def _shapes(block: Block) -> dict[str, Shape]:
    return {name: (each.out_features, each.in_features) for name, each in linears(block).items()}


def _kind(block: Block) -> tuple[tuple[str, Shape], ...]:
    return tuple(_shapes(block).items())


def _grouped(block: Block, names: Names) -> tuple[Mapping[str, Shape], ...]:
    shapes = _shapes(block)
    return tuple({f"{block.name}.{name}": shapes[name] for name in group} for group in names)


def _seen(subject: Subject, blocks: Sequence[Block], which: Sequence[int]) -> dict[int, Names]:
    """The names of these blocks' linears by the input that each was fed."""
    tokens, host = torch.zeros(1, 4, dtype=torch.int64), torch.device("cpu")
    batches = first_inputs(subject.model, tokens, 1, host)
    seen: dict[int, Names] = {}
    for index in which:
        with placed(blocks[index].module, host):  # which reads a streamed one
            seen[index] = by_input(observe(blocks[index], index, batches, Statistic.DIAGONAL))
    return seen
