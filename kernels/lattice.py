"""Weights on the lattice E8 (QuIP#, arXiv:2402.04396): codes of 8 inputs of the weight, turned by two rotations.

2 bits a weight are a code of E8P. For 3 and 4 bits a second code stands for what the first left over, made larger:
8 bits of the 256 shortest points of E8, or 16 bits of E8P again.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from kernels import e8p
from kernels.backend import fused
from kernels.format import BYTES, Format, Part
from kernels.packing import row_bytes, unpack
from kernels.turns import Turns, rotated_layout


class Residual(NamedTuple):
    """The codebook of what E8P left over, once that is multiplied by `growth`."""

    bits: int
    growth: float
    quantize: Callable[[Tensor], tuple[Tensor, Tensor]]
    decode: Callable[[Tensor], Tensor]


@functools.cache
def _shortest(device: torch.device) -> Tensor:
    """256 points of E8 [256, 8]: 0, the 240 of squared norm 2, and 15 of squared norm 4.

    Which of 2160 the paper leaves open; here ±2 at one place, without -2 at the last.
    """
    whole = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * e8p.DIM)
    halves = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * e8p.DIM)
    points = torch.cat([whole, halves])
    even = points.sum(1) % 2 == 0
    twice = 2 * torch.cat([torch.eye(e8p.DIM), -torch.eye(e8p.DIM)])[:-1]
    return torch.cat([points[even & (points.square().sum(1) <= 2)], twice]).to(device)


def _decode_short(codes: Tensor) -> Tensor:
    return functional.embedding(codes, _shortest(codes.device))


def _quantize_short(x: Tensor) -> tuple[Tensor, Tensor]:
    points = _shortest(x.device)
    codes = torch.addmm(-points.square().sum(1) / 2, x, points.T).max(1).indices  # far faster than argmax
    return codes.to(torch.int32), points[codes]


RESIDUALS = {
    3: Residual(8, 2.04, _quantize_short, _decode_short),
    4: Residual(16, 3.45, e8p.quantize, e8p.decode),
}


def code_bits(bits: int) -> tuple[int, ...]:
    """The widths of a point's codes at `bits` a weight."""
    return (16, RESIDUALS[bits].bits) if bits in RESIDUALS else (16,)


def growth(bits: int) -> float:
    """What a residual is multiplied by before it is coded; 1 where there is none."""
    return RESIDUALS[bits].growth if bits in RESIDUALS else 1.0


def quantize(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """x [n, 8] float32 to codes int32 [n, 1], or [n, 2] with a residual, and their values [n, 8]."""
    if fused(x):
        from kernels.gpu import lattice

        return lattice.quantize(x, bits)
    codes, values = e8p.quantize(x)
    if bits not in RESIDUALS:
        return codes[:, None], values
    book = RESIDUALS[bits]
    rest, refined = book.quantize((x - values) * book.growth)
    return torch.stack((codes, rest), 1), values + refined / book.growth


@dataclass(frozen=True)
class LatticeQuantizer:
    """What `kernels.ldlq` quantises with at 2, 3 or 4 bits a weight: blocks of 8, whatever their number."""

    bits: int

    def __call__(self, targets: Tensor, block: int) -> tuple[Tensor, Tensor]:
        """targets [rows, 8] float32 to codes int32 [rows, 1 or 2] and their values [rows, 8]."""
        return quantize(targets, self.bits)


@dataclass(frozen=True, eq=False)
class Lattice(Format):
    """W = turned back (scale * points) / rescale, without the inputs that padded it to a multiple of 8.

    codes [out, groups] at 16 bits and residual [out, groups] at 8 or 16 make the points [out, 8 * groups]; signs,
    rotations and factors are those of `kernels.turns`.
    """

    name: ClassVar[str] = "lattice"
    codes: Tensor
    residual: Tensor | None
    sign_in: Tensor
    sign_out: Tensor
    scale: Tensor
    rescale: Tensor | None
    bits: int
    order_in: int
    order_out: int

    def layout(self) -> dict[str, Part]:
        return self.planned(self.shape, self.bits, self.rescale is not None)

    @classmethod
    def planned(cls, shape: tuple[int, int], bits: int, rescaled: bool) -> dict[str, Part]:
        """The layout of a weight (out, in) at 2, 3 or 4 bits, with a factor for each input if it was rescaled."""
        if bits != 2 and bits not in RESIDUALS:
            raise ValueError(f"{cls.name} takes 2, 3 or 4 bits, got {bits}")
        (rows, width), groups = shape, -(-shape[1] // e8p.DIM)
        turned = rotated_layout((rows, groups * e8p.DIM), width if rescaled else None)
        parts = {"codes": Part(BYTES, (rows, row_bytes(groups, 16)), "codes"), **turned}
        if bits in RESIDUALS:
            parts["residual"] = Part(BYTES, (rows, row_bytes(groups, RESIDUALS[bits].bits)), "codes")
        return parts

    @property
    def groups(self) -> int:
        """Codes of a row."""
        return -(-self.shape[1] // e8p.DIM)

    def points(self) -> Tensor:
        """The points of the lattice [out, 8 * groups] in float32."""
        found = e8p.decode(unpack(self.codes, 16, self.groups))
        if self.residual is not None:
            book = RESIDUALS[self.bits]
            found = found + book.decode(unpack(self.residual, book.bits, self.groups)) / book.growth
        return found.flatten(1)

    def turns(self) -> Turns:
        """The rotations of the outputs and of the inputs."""
        sizes = self.shape[0], e8p.DIM * self.groups
        return Turns.stored(sizes, (self.sign_out, self.sign_in), (self.order_out, self.order_in))

    def dequantize(self) -> Tensor:
        weight = self.turns().back(self.points() * self.scale.float())[:, : self.shape[1]]
        return weight.contiguous() if self.rescale is None else weight / self.rescale.float()

    @property
    def nominal_bits(self) -> float:
        return float(self.bits)
