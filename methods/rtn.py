"""Round to nearest: GPTQ's asymmetric grid (arXiv:2210.17323) without its compensation and its data."""

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor
from torch.nn import functional

from kernels.format import side_dtype, stored
from kernels.packing import pack
from kernels.quantized import GroupedInt
from methods.method import SETTINGS, Compressed, StatisticsMode, require
from methods.statistics import Statistic, Statistics


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class RTN:
    """Each weight to the nearest point of its group's grid."""

    bits: Annotated[int, Field(ge=2, le=8, description="bits of a code")] = 4
    group_size: Annotated[
        int | None, Field(ge=1, description="inputs that share a grid; none: one grid per row")
    ] = 64

    name: ClassVar[str] = "rtn"
    title: ClassVar[str] = "RTN"
    paper: ClassVar[str | None] = None
    needs: ClassVar[Statistic] = Statistic.NONE
    statistics_mode: ClassVar[StatisticsMode] = "none"
    revision: ClassVar[int] = 1

    @property
    def variant(self) -> str:
        return f"{self.bits} bits g{self.group_size}" if self.group_size else f"{self.bits} bits per row"

    def unsupported(self, shape: tuple[int, int]) -> str | None:
        return None

    def compress(self, weight: Tensor, statistics: Statistics, rng: Generator) -> Compressed:
        """W [out, in] to codes; neither statistics nor chance play a part."""
        require(self, weight, statistics)
        rows, width = weight.shape
        groups = _grouped(weight.float(), self.group_size or width)  # [out, groups, group]
        scale, zeros = grid(groups, self.bits, side_dtype(weight.dtype))  # [out, groups]
        codes = torch.round(groups / scale.float()[..., None]) + zeros[..., None]
        codes = codes.clamp_(0, 2**self.bits - 1).flatten(1)[:, :width]
        packed = pack(codes, self.bits), pack(zeros, self.bits)
        return Compressed(GroupedInt((rows, width), *packed, scale, self.bits, self.group_size), {})


def grid(values: Tensor, bits: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Scales in `dtype` and whole zero points, both [...], for values [..., group]: W = scale (code - zero).

    Both ends are stretched to contain 0; values that are all zero get the grid of -1 to 1. The zero point is
    that of the stored scale. ValueError when a scale overflows `dtype`.
    """
    low, high = values.amin(-1).clamp_max(0), values.amax(-1).clamp_min(0)
    empty = low == high
    low, high = low.masked_fill(empty, -1), high.masked_fill(empty, 1)
    scale = stored((high - low) / (2**bits - 1), dtype, "scales")
    limits = torch.finfo(dtype)
    scale = scale.clamp_min(limits.smallest_normal * limits.eps)  # a group too small for its dtype
    return scale, torch.round(-low / scale.float()).clamp_(0, 2**bits - 1)


def _grouped(weight: Tensor, group: int) -> Tensor:
    """W [out, in] to [out, groups, group]; zeros, which every grid contains, fill a short last group."""
    padded = functional.pad(weight, (0, -weight.shape[1] % group))
    return padded.view(len(weight), -1, group)
