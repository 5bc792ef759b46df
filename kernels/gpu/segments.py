"""Sums over the vectors of each cluster, always in one order: a stable sort, then slices of its segments."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

ELEMENTS = 1024
"""Sums that a program of `_segment_sums` keeps of each kind: two float64 of registers for each."""

NARROW = 2**15
"""Codebooks smaller than this have codes, and a bound above them, in int16."""

PROGRAMS, SLICE = 2048, 512
"""Segments are cut into slices until there are so many programs, or a mean slice has so few vectors."""


@triton.jit
def _segment_sums(
    x, w, order, bounds, total, summed, n, G, K,
    D: tl.constexpr, DP: tl.constexpr, BR: tl.constexpr,
):  # fmt: skip
    """Σ w and Σ w x float64 [B, S, K, D] over one slice of one code's places in order [B, n]."""
    k, part, problem = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    slices = tl.num_programs(1)
    first = tl.load(bounds + problem * (K + 1) + k)
    count = tl.load(bounds + problem * (K + 1) + k + 1) - first
    start, stop = first + count * part // slices, first + count * (part + 1) // slices
    x += problem * n * D
    w += problem * G * D
    e = tl.arange(0, DP)[None, :]
    weights = tl.zeros([BR, DP], tl.float64)
    products = tl.zeros([BR, DP], tl.float64)
    for block in range(start, stop, BR):
        at = block + tl.arange(0, BR)
        row = tl.load(order + problem * n + at, mask=at < stop, other=0)  # [BR]
        inside = (at < stop)[:, None] & (e < D)
        own = tl.load(w + (row % G)[:, None] * D + e, mask=inside, other=0.0).to(tl.float64)
        weights += own
        products += own * tl.load(x + row[:, None] * D + e, mask=inside, other=0.0).to(tl.float64)
    to = ((problem * slices + part) * K + k) * D + tl.arange(0, DP)
    tl.store(total + to, tl.sum(weights, 0), mask=tl.arange(0, DP) < D)
    tl.store(summed + to, tl.sum(products, 0), mask=tl.arange(0, DP) < D)


@triton.jit
def _add_slices(slices, out, S, M, BS: tl.constexpr, BC: tl.constexpr):
    """out [B, M] = Σ over S of slices [B, S, M]."""
    problem = tl.program_id(1).to(tl.int64)
    column = tl.program_id(0) * BC + tl.arange(0, BC)[None, :]
    total = tl.zeros([BS, BC], tl.float64)
    for start in range(0, S, BS):
        row = start + tl.arange(0, BS)[:, None]
        inside = (row < S) & (column < M)
        total += tl.load(slices + (problem * S + row) * M + column, mask=inside, other=0.0)
    column = tl.program_id(0) * BC + tl.arange(0, BC)
    tl.store(out + problem * M + column, tl.sum(total, 0), mask=column < M)


def add_slices(slices: Tensor) -> Tensor:
    """float64 [B, S, M] to its sums over S [B, M], in an order that B does not change, as torch's may."""
    batch, count, width = slices.shape
    if count == 1:
        return slices[:, 0]
    out = slices.new_empty(batch, width)
    columns = min(256, triton.next_power_of_2(width))
    rows = min(2048 // columns, triton.next_power_of_2(count))
    _add_slices[(triton.cdiv(width, columns), batch)](slices, out, count, width, BS=rows, BC=columns, num_warps=8)
    return out


def segment_sums(
    parts: Sequence[tuple[Tensor, Tensor]], codes: Sequence[Tensor], size: int
) -> tuple[Tensor, Tensor]:
    """Σ w and Σ w x, float64 [B, size, d], over the vectors with each code.

    Parts are x [B, n, d] with w [B, G, d], float32; their codes are int32 [B, n], below `size`.
    """
    sums = [_sums(x, w, own, size) for (x, w), own in zip(parts, codes, strict=True)]
    return sum(total for total, _ in sums[1:]) + sums[0][0], sum(summed for _, summed in sums[1:]) + sums[0][1]


def _sums(x: Tensor, w: Tensor, codes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    (batch, n, d), width = x.shape, triton.next_power_of_2(x.shape[2])
    narrow = codes.to(torch.int16) if size < NARROW else codes  # half the digits to sort by
    ordered, order = narrow.sort(dim=1, stable=True)
    codewords = torch.arange(size + 1, dtype=narrow.dtype, device=x.device).expand(batch, -1).contiguous()
    bounds = torch.searchsorted(ordered, codewords)
    slices = max(1, min(-(-PROGRAMS // size), n // (size * SLICE)))
    total, summed = (x.new_empty(batch, slices, size, d, dtype=torch.float64) for _ in range(2))
    _segment_sums[(size, slices, batch)](
        x.contiguous(), w.contiguous(), order, bounds, total, summed, n, w.shape[1], size,
        D=d, DP=width, BR=ELEMENTS // width, num_warps=4,
    )  # fmt: skip
    sizes = batch, size, d
    return add_slices(total.flatten(2)).view(sizes), add_slices(summed.flatten(2)).view(sizes)
