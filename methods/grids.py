"""What RTN, GPTQ, AWQ and HQQ share: the grid of a group of weights, its settings, the format of the outcome."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from kernels.format import stored
from kernels.obs import OnGrid, nearest_code
from kernels.packing import pack
from kernels.quantized import GroupedInt
from methods.settings import Search

Bits = Annotated[int, Field(ge=2, le=8, description="bits of a code")]
GroupSize = Annotated[
    int | None,
    Field(ge=1, description="inputs that share a grid; none: one grid per row"),
    Search(low=16, high=256, step=8),
]
Sym = Annotated[bool, Field(description="grids symmetric about zero, for which no zero points are stored")]


@dataclass(frozen=True)
class GridRule:
    """How a group of weights is given its grid: W = scale (code - zero), code in [0, 2^bits)."""

    bits: int
    sym: bool
    dtype: torch.dtype

    @property
    def top(self) -> int:
        """The largest code."""
        return int(2**self.bits - 1)

    def grid(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Scales in `dtype` and whole zero points, both [...], for values [..., group].

        Both ends are stretched to contain 0, and to equal size if symmetric; values that are all zero get the
        grid of -1 to 1. The zero point is that of the stored scale. ValueError when a scale overflows `dtype`.
        """
        low, high = values.amin(-1).clamp_max(0), values.amax(-1).clamp_min(0)
        if self.sym:
            high = torch.maximum(-low, high)
            low = -high
        empty = low == high
        low, high = low.masked_fill(empty, -1), high.masked_fill(empty, 1)
        scale = stored((high - low) / self.top, self.dtype, "scales")
        limits = torch.finfo(self.dtype)
        scale = scale.clamp_min(limits.smallest_normal * limits.eps)  # a group too small for its dtype
        if self.sym:
            return scale, torch.full_like(high, 2 ** (self.bits - 1))
        return scale, torch.round(-low / scale.float()).clamp_(0, self.top)


@dataclass(frozen=True, eq=False)
class Grids:
    """The grids of a weight: scale [out, groups] as stored, zeros [out, groups] whole and float32."""

    rule: GridRule
    scale: Tensor
    zeros: Tensor
    group_size: int | None

    def refit(self, group: int, values: Tensor) -> None:
        """Give one group, in place, the grid of values [out, group]."""
        self.scale[:, group], self.zeros[:, group] = self.rule.grid(values)

    def columns(self, group: Tensor) -> OnGrid:
        """The grids of columns [columns] that belong to these groups."""
        return OnGrid(self.scale.T[group].float(), self.zeros.T[group], self.rule.top)

    def codes(self, values: Tensor) -> Tensor:
        """Those of the points nearest to values [out, groups, group], in float32."""
        return nearest_code(values, self.scale.float()[..., None], self.zeros[..., None], self.rule.top)

    def points(self, values: Tensor) -> Tensor:
        """The points themselves."""
        return self.codes(values).sub_(self.zeros[..., None]).mul_(self.scale.float()[..., None])

    def encode(self, weight: Tensor, r_out: Tensor | None, r_in: Tensor | None) -> GroupedInt:
        """W [out, in] float32 to the nearest codes; r_out and r_in are the norms it was divided by."""
        rows, width = weight.shape
        codes = self.codes(grouped(weight, self.group_size))
        packed = pack(codes.flatten(1)[:, :width], self.rule.bits)
        zeros = None if self.rule.sym else pack(self.zeros, self.rule.bits)
        return GroupedInt((rows, width), packed, zeros, self.scale, self.rule.bits, self.group_size, r_out, r_in)


def grids_of(weight: Tensor, rule: GridRule, group_size: int | None) -> Grids:
    """The grid of each row and group of W [out, in] as it stands."""
    return Grids(rule, *rule.grid(grouped(weight, group_size)), group_size)


def grouped(weight: Tensor, group_size: int | None) -> Tensor:
    """W [out, in] to [out, groups, group]; zeros, which every grid contains, fill a short last group."""
    group = group_size or weight.shape[1]
    padded = functional.pad(weight, (0, -weight.shape[1] % group))
    return padded.view(len(weight), -1, group)


def grid_variant(bits: int, group_size: int | None, sym: bool) -> str:
    """How a table prints the settings: "4 bits g64", "3 bits per row sym"."""
    return f"{bits} bits {f'g{group_size}' if group_size else 'per row'}{' sym' if sym else ''}"
