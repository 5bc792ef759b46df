"""Run-time layouts: compressed weights as GPU kernels read them, made once from a format and never saved.

A stored row is a byte stream of odd length, which cannot be read in wide words. In `words` a row is whole blocks
of `lanes` words, and a word holds one code of each of several planes, so that a plane of a block is `lanes` codes
in the order of the inputs and takes one shift to read. `fragments` are codes as CUDA C++ reads them for few
tokens. Each is made when it is first asked for, and the stored tensors stay: a layer that has seen few tokens and
many holds its codes three times. Side parameters are shared with the format.
"""

import functools
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from kernels import e8p, lattice
from kernels.format import Format
from kernels.hadamard import Rotation
from kernels.lattice import Lattice
from kernels.packing import unpack
from kernels.quantized import Codebook, GroupedInt
from kernels.sparse import NMSparse

if TYPE_CHECKING:
    from kernels.gpu.matvec import Layout

HALVES = (torch.float16, torch.bfloat16)
GROUP_LANES = 32  # a plane of integers must lie within a group, so this divides the group sizes that stream
TILE_INPUTS = 128  # what a plane of codewords covers, padding of codewords to a power of two included
FEWEST_LANES, MOST_LANES = 4, 32
POINT_LANES = 16
SEMI_STRUCTURED = (32, 64)  # rows and inputs of a 2:4 weight that both of PyTorch's sparse back ends take

SPLITS = {
    1: (1, 0),
    2: (2, 0),
    3: (2, 1),
    4: (4, 0),
    5: (4, 1),
    6: (4, 2),
    8: (8, 0),
    10: (8, 2),
    12: (8, 4),
    16: (16, 0),
}
"""Bits of a code in a word of `low` and in one of `high`. A width that is not here is kept as the next that is."""


@dataclass(frozen=True, eq=False)
class Words:
    """Codes [rows, count]: low int32 [rows, blocks * lanes], and high int8, int16 or int32 of that shape or None.

    Code s * lanes + l of a block has its low bits in word l from bit s * low_bits on, its high bits likewise.
    """

    low: Tensor
    high: Tensor | None
    low_bits: int
    high_bits: int
    lanes: int

    @property
    def planes(self) -> int:
        """Codes that share a word."""
        return 32 // self.low_bits

    @property
    def blocks(self) -> int:
        """Blocks of a row."""
        return self.low.shape[1] // self.lanes


@dataclass(frozen=True, eq=False)
class _Coded:
    """What weights of codes have in common."""

    weight: GroupedInt | Codebook | Lattice

    @cached_property
    def fragments(self) -> "tuple[Layout, ...] | None":
        """The layouts of CUDA C++, or None where that has no kernel for the weight or cannot be compiled."""
        device = self.weight.codes.device
        if device.type != "cuda":
            return None
        from kernels.gpu.matvec import layouts, usable

        parts = layouts(self.weight) if usable(device) else None
        if parts is None or not all(part.most_tokens for part in parts):
            return None
        torch.cuda.synchronize(device)  # a product may read its weights before the launch ahead of it has ended
        return parts


@dataclass(frozen=True, eq=False)
class GroupedWords(_Coded):
    """GroupedInt for kernels."""

    weight: GroupedInt

    @cached_property
    def words(self) -> Words:
        """The codes."""
        weight = self.weight
        return words(unpack(weight.codes, weight.bits, weight.shape[1]), split_of(weight.bits), GROUP_LANES)

    @cached_property
    def zeros(self) -> Tensor | None:
        """Zero points uint8 [out, groups], or None where the grid is symmetric."""
        weight = self.weight
        if weight.zeros is None:
            return None
        return unpack(weight.zeros, weight.bits, weight.scale.shape[1]).to(torch.uint8).contiguous()

    @property
    def streams(self) -> bool:
        """Whether a plane never straddles two groups, which multiplying from the words relies on."""
        return self.weight.scale.shape[1] == 1 or self.weight.group_width % GROUP_LANES == 0


@dataclass(frozen=True, eq=False)
class CodebookWords(_Coded):
    """Codebook for kernels and x of `dtype`. Codewords are padded with zeros to a power of two of elements."""

    weight: Codebook
    dtype: torch.dtype

    @cached_property
    def words(self) -> Words:
        """The codes."""
        weight, dim = self.weight, self.weight.codebook.shape[1]
        lanes = min(max(TILE_INPUTS // self.stored.shape[1], FEWEST_LANES), MOST_LANES)
        codes = unpack(weight.codes, weight.code_bits, -(-weight.shape[1] // dim))
        return words(codes, split_of(weight.code_bits), lanes)

    @cached_property
    def stored(self) -> Tensor:
        """The codebook [K, padded] in the stored dtype."""
        dim = self.weight.codebook.shape[1]
        return functional.pad(self.weight.codebook, (0, (1 << (dim - 1).bit_length()) - dim)).contiguous()

    @cached_property
    def computed(self) -> Tensor:
        """The codebook [K, padded] in the dtype of x."""
        return self.stored.to(self.dtype)


@dataclass(frozen=True, eq=False)
class LatticeWords(_Coded):
    """Lattice for kernels: the codes of a point in `low`, its residual in `high`.

    scale_in [in] float32 is 1 / rescale, by which x is multiplied before it is turned, or None; scale_out [out]
    float32 repeats the scale, by which kernels multiply a row.
    """

    weight: Lattice
    turn_in: Rotation
    turn_out: Rotation
    scale_in: Tensor | None
    scale_out: Tensor

    @cached_property
    def words(self) -> Words:
        """The codes, residuals above them."""
        weight, high_bits = self.weight, 0
        codes = unpack(weight.codes, 16, weight.groups)
        if weight.residual is not None:
            high_bits = lattice.RESIDUALS[weight.bits].bits
            codes = codes | unpack(weight.residual, high_bits, weight.groups) << 16
        return words(codes, (16, high_bits), POINT_LANES)

    @property
    def tables(self) -> Tensor:
        """What decodes them, int32 [640]."""
        return _tables(self.weight.codes.device)


@dataclass(frozen=True, eq=False)
class DenseWeight:
    """A weight without a kernel of its own, for x of `dtype`.

    Decoded it takes as much memory as before it was compressed, which is the honest price of masks; the sparse
    form takes 9/16 of that in addition.
    """

    weight: Format
    dtype: torch.dtype

    @cached_property
    def dense(self) -> Tensor:
        """The decoded weight [out, in]."""
        return self.weight.dequantize().to(self.dtype)

    @cached_property
    def sparse(self) -> Tensor | None:
        """The same as a semi-structured tensor, where the GPU's sparse tensor cores take it."""
        if not (isinstance(self.weight, NMSparse) and _semi_structured(self.weight, self.dense)):
            return None
        with warnings.catch_warnings():  # that the tensor's interface may change, once a process
            warnings.simplefilter("ignore", UserWarning)
            found: Tensor = torch.sparse.to_sparse_semi_structured(self.dense)
            return found


Prepared = GroupedWords | CodebookWords | LatticeWords | DenseWeight


def prepare(weight: Format, dtype: torch.dtype) -> Prepared:
    """The layout in which kernels multiply x of this dtype by the weight, on the weight's device."""
    if isinstance(weight, GroupedInt) and not weight.real_zeros:  # kernels subtract whole zero points
        return GroupedWords(weight)
    if isinstance(weight, Codebook):
        return CodebookWords(weight, dtype)
    if isinstance(weight, Lattice):
        return _lattice(weight)
    return DenseWeight(weight, dtype)


def words(codes: Tensor, split: tuple[int, int], lanes: int) -> Words:
    """Codes int32 [rows, count] as words; the high bits of a code are those above the low ones."""
    low_bits, high_bits = split
    planes = 32 // low_bits
    padded = functional.pad(codes, (0, -codes.shape[1] % (planes * lanes)))
    blocks = padded.view(len(codes), -1, planes, lanes)
    low = _joined(blocks & (1 << low_bits) - 1, low_bits)
    if not high_bits:
        return Words(low, None, low_bits, 0, lanes)
    high_dtype = {8: torch.int8, 16: torch.int16, 32: torch.int32}[high_bits * planes]
    high = _joined(blocks >> low_bits & (1 << high_bits) - 1, high_bits).to(high_dtype)
    return Words(low, high, low_bits, high_bits, lanes)


def split_of(bits: int) -> tuple[int, int]:
    """How codes of 1 to 16 bits are split over two words."""
    return SPLITS[min(width for width in SPLITS if width >= bits)]


def _joined(blocks: Tensor, bits: int) -> Tensor:
    """Codes int32 [rows, blocks, planes, lanes] of `bits` each to words int32 [rows, blocks * lanes]."""
    joined = torch.zeros_like(blocks[:, :, 0])
    for plane in range(blocks.shape[2]):
        joined |= blocks[:, :, plane] << plane * bits
    return joined.flatten(1)


def _lattice(weight: Lattice) -> LatticeWords:
    turns = weight.turns()
    return LatticeWords(
        weight,
        turns.into,
        turns.out,
        None if weight.rescale is None else weight.rescale.float().reciprocal(),
        weight.scale.float().repeat(weight.shape[0]),
    )


@functools.cache
def _tables(device: torch.device) -> Tensor:
    """int32 [640], in nibbles of 8 elements, the first lowest: E8P's patterns, its signs, the 256 shortest points.

    A nibble of pattern v is v + 15/2, so inverting its bits turns v into -v; that is what the nibbles of the
    signs [128] are for, the eighth of which is the parity of seven. A nibble of a short point v is 2 v + 8.
    """
    patterns = e8p.patterns() + 7.5
    seven = torch.arange(128)[:, None] >> torch.arange(7) & 1
    signs = 15 * torch.cat([seven, seven.sum(1, keepdim=True) & 1], 1)
    short = 2 * lattice.RESIDUALS[3].decode(torch.arange(256)) + 8
    nibbles = torch.cat([patterns, signs, short]).to(torch.int32)  # [640, 8]
    return _joined(nibbles[:, None, :, None], 4)[:, 0].to(device)


def _semi_structured(weight: NMSparse, dense: Tensor) -> bool:
    """Whether the GPU's sparse tensor cores take the decoded weight."""
    rows, width = weight.shape
    fits = (weight.keep, weight.of) == (2, 4) and not rows % SEMI_STRUCTURED[0] and not width % SEMI_STRUCTURED[1]
    return fits and dense.is_cuda and dense.dtype in HALVES and torch.backends.cusparselt.is_available()
