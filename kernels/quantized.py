"""Formats of codes: a grid for each group of inputs, or one codebook of short vectors.

Either may be of a normalised weight, which is then multiplied by r_out [out] and r_in [in] on decoding.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from kernels.format import BYTES, FLOATS, Format, Norms, Part, denormalized, norms_layout
from kernels.packing import row_bytes, unpack


@dataclass(frozen=True, eq=False)
class GroupedInt(Format):
    """W = scale * (codes - zero), one scale and zero point per row and group of `group_size` inputs.

    scale [out, groups]; codes [out, in] are packed at `bits` each. zeros [out, groups] are whole numbers packed
    likewise, or floats where they lie between codes; without zeros the grid is symmetric, its zero point
    2^(bits - 1). The last group may be short; a `group_size` of None makes the row one group.
    """

    name: ClassVar[str] = "grouped-int"
    codes: Tensor
    zeros: Tensor | None
    scale: Tensor
    bits: int
    group_size: int | None
    r_out: Tensor | None = None
    r_in: Tensor | None = None

    def layout(self) -> dict[str, Part]:
        norms = Norms.among(self.r_out, self.r_in)
        sym, real = self.zeros is None, self.real_zeros
        return self.planned(self.shape, self.bits, self.group_size, sym, norms, real_zeros=real)

    @classmethod
    def planned(
        cls,
        shape: tuple[int, int],
        bits: int,
        group_size: int | None,
        sym: bool,
        norms: Norms,
        *,
        real_zeros: bool = False,
    ) -> dict[str, Part]:
        """The layout of a weight (out, in) that is stored so; symmetric grids have no zeros."""
        if not 1 <= bits <= 8:
            raise ValueError(f"{cls.name} takes codes of 1 to 8 bits, got {bits}")
        (rows, width), groups = shape, -(-shape[1] // (group_size or shape[1]))
        parts = {
            "codes": Part(BYTES, (rows, row_bytes(width, bits)), "codes", rows * width * bits),
            "scale": Part(FLOATS, (rows, groups), "scales"),
        }
        if real_zeros:
            parts["zeros"] = Part(FLOATS, (rows, groups), "zero points")
        elif not sym:
            parts["zeros"] = Part(BYTES, (rows, row_bytes(groups, bits)), "zero points", rows * groups * bits)
        return parts | norms_layout(shape, norms)

    @property
    def group_width(self) -> int:
        """Inputs that share a scale."""
        return self.group_size or self.shape[1]

    @property
    def real_zeros(self) -> bool:
        """Whether zero points are floats, which may lie between codes."""
        return self.zeros is not None and self.zeros.is_floating_point()

    def dequantize(self) -> Tensor:
        groups = self.scale.shape[1]
        codes = unpack(self.codes, self.bits, self.shape[1])  # [out, in]
        codes = functional.pad(codes, (0, groups * self.group_width - self.shape[1]))
        steps = codes.view(self.shape[0], groups, -1)  # [out, groups, group_width]
        if self.zeros is None:
            steps = steps - 2 ** (self.bits - 1)
        elif self.zeros.is_floating_point():
            steps = steps - self.zeros.float()[..., None]
        else:
            steps = steps - unpack(self.zeros, self.bits, groups)[..., None]
        weight = (self.scale.float()[..., None] * steps).flatten(1)[:, : self.shape[1]]
        return denormalized(weight, self.r_out, self.r_in)

    @property
    def nominal_bits(self) -> float:
        return float(self.bits)


@dataclass(frozen=True, eq=False)
class Codebook(Format):
    """W = codebook[codes], times the norms if it has any.

    codebook [K, d]; codes [out, ceil(in / d)] packed at log2 K bits, which must be whole. Elements past the last
    input are dropped. Several weights may share one codebook: then it is one tensor, stored once.
    """

    name: ClassVar[str] = "codebook"
    codes: Tensor
    codebook: Tensor
    r_out: Tensor | None = None
    r_in: Tensor | None = None

    def layout(self) -> dict[str, Part]:
        size, dim = self.codebook.shape
        if size != 2**self.code_bits:
            raise ValueError(f"{self.name} takes a power of two of codewords, got {size}")
        return self.planned(self.shape, self.code_bits, dim, Norms.among(self.r_out, self.r_in))

    @staticmethod
    def planned(shape: tuple[int, int], code_bits: int, dim: int, norms: Norms) -> dict[str, Part]:
        """The layout of a weight (out, in) in codes of `code_bits` for `dim` inputs each."""
        rows, groups = shape[0], -(-shape[1] // dim)
        packed, used = (rows, row_bytes(groups, code_bits)), rows * groups * code_bits
        return {
            "codes": Part(BYTES, packed, "codes", used),
            "codebook": Part(FLOATS, (2**code_bits, dim), "codebooks"),
        } | norms_layout(shape, norms)

    @property
    def code_bits(self) -> int:
        """Bits of one code."""
        return (len(self.codebook) - 1).bit_length()

    def dequantize(self) -> Tensor:
        rows, width = self.shape
        codes = unpack(self.codes, self.code_bits, -(-width // self.codebook.shape[1]))
        weight = functional.embedding(codes, self.codebook.float()).view(rows, -1)[:, :width]
        return denormalized(weight, self.r_out, self.r_in)

    @property
    def nominal_bits(self) -> float:
        return self.code_bits / self.codebook.shape[1]
