"""Codes of inputs that a rotation has made Gaussian, so that one grid of points suits them all (HIGGS)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kernels.format import BYTES, FLOATS, Format, Norms, Part
from kernels.hadamard import Rotation
from kernels.packing import row_bytes
from kernels.quantized import Codebook


@dataclass(frozen=True, eq=False)
class RotatedCodebook(Format):
    """W = turned back (scale * codebook[codes]), one scale per row and group of `group_size` inputs.

    codebook [K, d] and codes [out, ceil(in / d)] are those of `Codebook`; scale [out, in / group_size]. The
    rotation is its signs [in], a bit each, set where +1 is, and the order of its Hadamard matrix, which repeats
    along the diagonal. Several weights may share one codebook: then it is one tensor, stored once.
    """

    name: ClassVar[str] = "rotated-codebook"
    codes: Tensor
    codebook: Tensor
    scale: Tensor
    signs: Tensor
    group_size: int
    order: int

    def layout(self) -> dict[str, Part]:
        size, dim = self.codebook.shape
        return self.planned(self.shape, (size - 1).bit_length(), dim, self.group_size)

    @classmethod
    def planned(cls, shape: tuple[int, int], code_bits: int, dim: int, group_size: int) -> dict[str, Part]:
        """The layout of a weight (out, in) in codes of `code_bits` for `dim` inputs each."""
        rows, width = shape
        if width % group_size:
            raise ValueError(f"{cls.name} takes whole groups of inputs, got {width} in groups of {group_size}")
        return Codebook.planned(shape, code_bits, dim, Norms()) | {
            "scale": Part(FLOATS, (rows, width // group_size), "scales"),
            "signs": Part(BYTES, (1, row_bytes(width, 1)), "signs", width),
        }

    @property
    def turn(self) -> Rotation:
        """The rotation of the inputs."""
        return Rotation.stored(self.signs, self.shape[1], self.order)

    def dequantize(self) -> Tensor:
        points = Codebook(self.shape, self.codes, self.codebook).dequantize()
        groups = points.reshape(*self.scale.shape, self.group_size)
        return self.turn.back((groups * self.scale.float()[..., None]).view(self.shape))

    @property
    def nominal_bits(self) -> float:
        return Codebook(self.shape, self.codes, self.codebook).nominal_bits
