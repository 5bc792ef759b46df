"""A depth of 0 to 8 bits for each group of weights, and codes that are finest where a Laplace density is high.

Companded quantisation (Radio, arXiv:2505.03031, section 3.2): a weight is squeezed by a Laplace distribution
function, rounded there to the middle of one of 2^depth equal cells, and stretched again.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar, Self

import torch
from torch import Tensor

from kernels.format import BYTES, FLOATS, Format, Part
from kernels.packing import pack, row_bytes, unpack

MAX_DEPTH = 8
DEPTH_BITS = MAX_DEPTH.bit_length()


@dataclass(frozen=True, eq=False)
class Companded(Format):
    """W = centre + scale * level, the level by a code of its group's depth.

    A group is one input of one row group: depths [row groups, in] packed at 4 bits, centre [row groups, in]. scale
    holds one entry for each group deeper than 0, in the order of `depths`. codes [bytes] are those of all weights
    of depth 1, then 2, to 8, each in row order from a byte on; `counts` says how many there are. rows [1, …] is
    the row group of each row, None where there is one alone.
    """

    name: ClassVar[str] = "companded"
    codes: Tensor
    depths: Tensor
    centre: Tensor
    scale: Tensor
    rows: Tensor | None
    counts: list[int]

    @classmethod
    def encoded(cls, weight: Tensor, rows: Tensor, depths: Tensor, centre: Tensor, scale: Tensor) -> Self:
        """W [out, in] in float32 with rows [out], the row group of each; the rest [row groups, in], as stored."""
        of_weight = depths[rows]
        codes = compand(weight, centre[rows].float(), scale[rows].float(), of_weight)
        found = [codes[of_weight == depth] for depth in range(1, MAX_DEPTH + 1)]
        streams = [pack(each[None], depth)[0] for depth, each in enumerate(found, 1) if len(each)]
        return cls(
            shape=(weight.shape[0], weight.shape[1]),
            codes=torch.cat([codes.new_empty(0, dtype=torch.uint8), *streams]),
            depths=pack(depths, DEPTH_BITS),
            centre=centre,
            scale=scale[depths > 0],
            rows=pack(rows[None], _row_bits(len(depths))) if len(depths) > 1 else None,
            counts=[len(each) for each in found],
        )

    def layout(self) -> dict[str, Part]:
        return self.planned(self.shape, len(self.depths), self.counts, len(self.scale))

    @staticmethod
    def planned(shape: tuple[int, int], row_groups: int, counts: Sequence[int], scales: int) -> dict[str, Part]:
        """The layout of a weight (out, in) with so many codes of each depth, and so many groups deeper than 0."""
        out, width = shape
        used = sum(depth * count for depth, count in enumerate(counts, 1))
        parts = {
            "codes": Part(BYTES, (sum(_stream_bytes(counts)),), "codes", used),
            "depths": Part(
                BYTES, (row_groups, row_bytes(width, DEPTH_BITS)), "bit depths", row_groups * width * DEPTH_BITS
            ),
            "centre": Part(FLOATS, (row_groups, width), "means"),
            "scale": Part(FLOATS, (scales,), "scales"),
        }
        if row_groups > 1:
            bits = _row_bits(row_groups)
            parts["rows"] = Part(BYTES, (1, row_bytes(out, bits)), "row groups", out * bits)
        return parts

    def dequantize(self) -> Tensor:
        out, width = self.shape
        groups = len(self.depths)
        depths = unpack(self.depths, DEPTH_BITS, width)  # [row groups, in]
        scale = torch.zeros_like(depths, dtype=torch.float32).masked_scatter(depths > 0, self.scale.float())
        if self.rows is None:
            rows = torch.zeros(out, dtype=torch.int32, device=depths.device)
        else:
            rows = unpack(self.rows, _row_bits(groups), out)[0]
        of_weight = depths[rows]
        codes = torch.zeros_like(of_weight)
        starts = accumulate(_stream_bytes(self.counts), initial=0)
        for depth, (start, count) in enumerate(zip(starts, self.counts, strict=False), 1):
            if count:
                stream = self.codes[None, start : start + row_bytes(count, depth)]
                codes[of_weight == depth] = unpack(stream, depth, count)[0]
        return self.centre.float()[rows] + scale[rows] * expand(codes, of_weight)

    @property
    def nominal_bits(self) -> float:
        used = sum(depth * count for depth, count in enumerate(self.counts, 1))
        return used / (self.shape[0] * self.shape[1])


def compand(weight: Tensor, centre: Tensor, scale: Tensor, depths: Tensor) -> Tensor:
    """The codes int32, each in [0, 2^depth), of weights in float32; the other three broadcast against them."""
    u = (weight - centre) / torch.where(scale > 0, scale, 1)
    share = 0.5 - 0.5 * u.sign() * torch.expm1(-u.abs())  # of the weights that lie below, in a Laplace density
    cells = 1 << depths
    return torch.minimum((share * cells).floor().to(torch.int32), cells - 1)


def expand(codes: Tensor, depths: Tensor) -> Tensor:
    """The levels, float32, in units of the scale: the middles of the cells, stretched; 0 at depth 0."""
    return torch.nn.functional.embedding(codes + (1 << depths) - 1, _levels(codes.device)[:, None])[..., 0]


@functools.cache
def _levels(device: torch.device) -> Tensor:
    """Those of depth 0, then 1, to 8 [511]: the ones of a depth begin at 2^depth - 1."""
    middles = [(torch.arange(2**depth, dtype=torch.float64) + 0.5) / 2**depth for depth in range(MAX_DEPTH + 1)]
    off = 2 * torch.cat(middles) - 1
    return (-off.sign() * torch.log1p(-off.abs())).float().to(device)


def _row_bits(row_groups: int) -> int:
    return (row_groups - 1).bit_length()


def _stream_bytes(counts: Sequence[int]) -> list[int]:
    """Bytes of the codes of depth 1, 2, …"""
    return [row_bytes(count, depth) for depth, count in enumerate(counts, 1)]
