"""Nearest codewords for several problems of weighted k-means at once, and Lloyd's iteration on them.

The cost of codeword c for a vector x with weights w is [w x, w] · [-2 c, c²]. Each factor is nearly the sum of two
bfloat16 numbers, and three of their four products are taken on tensor cores. What is left out, and what the sums
of two miss of their factors, is at most 2^-16 of a term each: three in all.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.segments import add_slices, segment_sums


class Blocks(NamedTuple):
    """How `_assign` is cut: BM vectors by BN codewords at a time, in `warps`, loads `stages` ahead."""

    BM: int
    BN: int
    warps: int
    stages: int


BLOCKS = {
    16: Blocks(128, 64, 8, 4),
    32: Blocks(128, 64, 8, 3),
    64: Blocks(128, 64, 8, 2),
    128: Blocks(64, 64, 4, 2),
}
"""By DK, the length of the products. Three [BM, BN] tiles of float32 must fit into registers."""

REGISTERS = {16: 128}
"""Most registers of a thread, where that makes room for two programs on an SM. The loop spills none."""

LOOK = 8
"""Updates between two looks at whether codes still change: each look lets the GPU run dry."""


@triton.jit
def _factors(x, w, n, rows, D: tl.constexpr, G, DK: tl.constexpr):
    """[w x, w, 0] for `rows` [BM] of x [n, D] and w [G, D]."""
    e = tl.arange(0, DK)[None, :]
    inside = (rows < n)[:, None] & (e < 2 * D)  # [BM, DK]
    at = rows.to(tl.int64)[:, None] * D + e
    weight = tl.load(w + (rows % G)[:, None] * D + e % D, mask=inside, other=0.0)
    return weight * tl.load(x + at, mask=inside & (e < D), other=1.0)  # [BM, DK]


@triton.jit
def _code_factors(codebook, k, D: tl.constexpr, DK: tl.constexpr):
    """[-2 c, c², 0] for rows k [BN] of codebook [K, D]."""
    e = tl.arange(0, DK)[None, :]
    c = tl.load(codebook + k[:, None] * D + e % D, mask=e < 2 * D, other=0.0)
    return tl.where(e < D, -2 * c, c * c)  # [BN, DK]


@triton.jit
def _split_codebook(codebook, high, low, K, SPACE, D: tl.constexpr, DK: tl.constexpr, BN: tl.constexpr):
    """The factors of codebook [B, K, D] as high + low, bfloat16 [B, SPACE, DK]; the last codeword fills SPACE."""
    problem = tl.program_id(1).to(tl.int64)
    k = tl.program_id(0) * BN + tl.arange(0, BN)
    b = _code_factors(codebook + problem * K * D, tl.minimum(k, K - 1), D, DK)
    top = b.to(tl.bfloat16)
    at = problem * SPACE * DK + k[:, None] * DK + tl.arange(0, DK)[None, :]
    tl.store(high + at, top)
    tl.store(low + at, (b - top.to(tl.float32)).to(tl.bfloat16))


@triton.jit
def _assign(
    x, w, codebook, high, low, codes, cost, n, G, K, SPACE,
    D: tl.constexpr, DK: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, OPERAND: tl.constexpr,
):  # fmt: skip
    """Codes [B, n] and the cost of each BM vectors [B, programs]. Products are taken in the type OPERAND."""
    problem = tl.program_id(1).to(tl.int64)
    x += problem * n * D
    w += problem * G * D
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    a = _factors(x, w, n, rows, D, G, DK)
    a_high = a.to(tl.bfloat16)
    a_low = (a - a_high.to(tl.float32)).to(tl.bfloat16).to(OPERAND)
    a_high = a_high.to(OPERAND)

    at = problem * SPACE * DK + tl.arange(0, BN)[None, :] * DK + tl.arange(0, DK)[:, None]  # [DK, BN]
    best = tl.full([BM, BN], float("inf"), tl.float32)
    where = tl.zeros([BM, BN], tl.int32)
    for tile in range(0, SPACE // BN):
        b_high = tl.load(high + at + tile * BN * DK).to(OPERAND)
        b_low = tl.load(low + at + tile * BN * DK).to(OPERAND)
        found = tl.dot(a_low, b_high, input_precision="ieee")
        found = tl.dot(a_high, b_low, found, input_precision="ieee")
        found = tl.dot(a_high, b_high, found, input_precision="ieee")
        nearer = found < best
        best = tl.where(nearer, found, best)
        where = tl.where(nearer, tile, where)

    code = where * BN + tl.arange(0, BN)[None, :]
    code = tl.where(best == tl.min(best, 1)[:, None], code, 2147483647)
    code = tl.minimum(tl.min(code, 1), K - 1)  # [BM]
    tl.store(codes + problem * n + rows, code, mask=rows < n)
    # what is added up comes from float32 factors: a loss must not rise by the rounding of its parts
    chosen = _code_factors(codebook + problem * K * D, code, D, DK) * _factors(x, w, n, rows, D, G, DK)
    total = tl.sum(tl.sum(chosen, 1).to(tl.float64), 0)  # rows past the last have no weight
    tl.store(cost + problem * tl.num_programs(0) + tl.program_id(0), total)


def assign(x: Tensor, w: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """x [B, n, d], w [B, G, d], codebook [B, K, d], float32, to codes int32 [B, n] and costs float64 [B].

    `kernels.kmeans.assign` for B problems, d up to 64. Codewords may change places whose costs differ by less than
    some 2^-15 of their terms (at the very worst, 2^-13); of equal ones the first wins.
    """
    (batch, n, d), size = x.shape, codebook.shape[1]
    length = max(16, triton.next_power_of_2(2 * d))
    blocks = BLOCKS[length]
    space = triton.cdiv(size, blocks.BN) * blocks.BN
    x, w, codebook = x.contiguous(), w.contiguous(), codebook.contiguous()
    high, low = (x.new_empty(batch, space, length, dtype=torch.bfloat16) for _ in range(2))
    _split_codebook[(space // blocks.BN, batch)](
        codebook, high, low, size, space, D=d, DK=length, BN=blocks.BN, num_warps=4
    )
    programs = triton.cdiv(n, blocks.BM)
    codes = torch.empty(batch, n, dtype=torch.int32, device=x.device)
    cost = x.new_empty(batch, programs, 1, dtype=torch.float64)
    _assign[(programs, batch)](
        x, w, codebook, high, low, codes, cost, n, w.shape[1], size, space,
        D=d, DK=length, BM=blocks.BM, BN=blocks.BN,
        OPERAND=tl.bfloat16 if x.is_cuda else tl.float32,  # the interpreter has no products of bfloat16
        num_warps=blocks.warps, num_stages=blocks.stages, maxnreg=REGISTERS.get(length),
    )  # fmt: skip
    return codes, add_slices(cost)[:, 0]


class Run(NamedTuple):
    """codebook [B, K, d], codes [B, n] of each part, and step by step [T, B] costs and whether no code changed."""

    codebook: Tensor
    codes: list[Tensor]
    costs: Tensor
    settled: Tensor


def lloyd(parts: Sequence[tuple[Tensor, Tensor]], codebook: Tensor, iterations: int, dtype: torch.dtype) -> Run:
    """Lloyd's iteration for B problems: parts x [B, n, d] with w [B, G, d], from codebook [B, K, d].

    Steps after a problem has settled repeat it exactly, so all run until the last one has.
    """
    codes: list[Tensor] = []
    costs: list[Tensor] = []
    settled: list[Tensor] = []
    while True:
        previous = codes
        found = [assign(x, w, codebook) for x, w in parts]
        codes = [own for own, _ in found]
        costs.append(sum((cost for _, cost in found[1:]), start=found[0][1]))
        same = [(own == before).all(1) for own, before in zip(codes, previous, strict=False)]
        settled.append(torch.stack(same).all(0) if same else costs[0].new_zeros(len(codebook), dtype=torch.bool))
        if len(costs) > iterations or (len(costs) % LOOK == 0 and bool(settled[-1].all())):
            return Run(codebook, codes, torch.stack(costs), torch.stack(settled))
        total, summed = segment_sums(parts, codes, codebook.shape[1])
        codebook = torch.where(total > 0, summed / total, codebook).float().to(dtype).float()
