"""Nearest codewords for several problems of weighted k-means at once, and Lloyd's iteration on them.

The cost of codeword c for a vector x with weights w is [w x, w] · [-2 c, c²]. Each factor is nearly the sum of two
bfloat16 numbers, and three of their four products are taken on tensor cores. What is left out, and what the sums
of two miss of their factors, is at most 2^-16 of a term each: three in all.

Looking for the least cost takes longer than these products: a minimum is one operation, remembering where it was
two more. So only bundles of codewords that follow one another are told apart in the loop. Each vector then has its
nearest bundle, and of the few codewords in it the one whose cost is least in float32.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.segments import add_slices, segment_sums


class Blocks(NamedTuple):
    """How `_assign` is cut: BM vectors by BN bundles of codewords at a time, in 4 warps, loads `stages` ahead.

    More `registers` of a thread leave room for fewer programs on an SM. The loop spills none.
    """

    BM: int
    BN: int
    bundle: int
    stages: int
    registers: int | None

    @property
    def codewords(self) -> int:
        """How many are looked at in one turn of the loop."""
        return self.BN * self.bundle


BLOCKS = {
    16: Blocks(64, 64, 4, 3, 168),
    32: Blocks(64, 64, 4, 2, 168),
    64: Blocks(64, 64, 1, 2, None),
    128: Blocks(64, 64, 1, 2, None),
}
"""By DK, the length of the products, the fastest of ten on an H100. Four [BM, BN] tiles of float32 must fit into
registers, and a bundle's codewords, as often as they are ahead, into shared memory."""

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
def _split_codebook(
    codebook, high, low, K, SPACE, D: tl.constexpr, DK: tl.constexpr, BN: tl.constexpr, BUNDLE: tl.constexpr
):
    """The factors of codebook [B, K, D] as high + low, bfloat16 [B, SPACE, DK]; the last codeword fills SPACE.

    Of BN bundles in a row the first codewords come first, then the second ones, and so on.
    """
    problem = tl.program_id(1).to(tl.int64)
    tile = tl.program_id(0)
    k = (tile // BUNDLE * BN + tl.arange(0, BN)) * BUNDLE + tile % BUNDLE
    b = _code_factors(codebook + problem * K * D, tl.minimum(k, K - 1), D, DK)
    top = b.to(tl.bfloat16)
    at = problem * SPACE * DK + (tile * BN + tl.arange(0, BN))[:, None] * DK + tl.arange(0, DK)[None, :]
    tl.store(high + at, top)
    tl.store(low + at, (b - top.to(tl.float32)).to(tl.bfloat16))


@triton.jit
def _nearest_of(codebook, first, a, K, D: tl.constexpr, DK: tl.constexpr, BUNDLE: tl.constexpr):
    """Of codewords first [BM] and the BUNDLE - 1 that follow, the first of the nearest; its cost for a [BM, DK].

    Costs come from float32 factors: a loss must not rise by the rounding of its parts.
    """
    code = tl.minimum(first, K - 1)
    cost = tl.sum(_code_factors(codebook, code, D, DK) * a, 1)
    for each in tl.static_range(1, BUNDLE):
        other = tl.minimum(first + each, K - 1)
        found = tl.sum(_code_factors(codebook, other, D, DK) * a, 1)
        code = tl.where(found < cost, other, code)
        cost = tl.minimum(found, cost)
    return code, cost


@triton.jit
def _assign(
    x, w, codebook, high, low, codes, cost, n, G, K, SPACE,
    D: tl.constexpr, DK: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BUNDLE: tl.constexpr,
    OPERAND: tl.constexpr,
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
    for turn in range(0, SPACE // (BN * BUNDLE)):
        least = best  # overwritten by the first of each bundle
        for each in tl.static_range(BUNDLE):
            tile = at + (turn * BUNDLE + each) * BN * DK
            b_high, b_low = tl.load(high + tile).to(OPERAND), tl.load(low + tile).to(OPERAND)
            found = tl.dot(a_low, b_high, input_precision="ieee")
            found = tl.dot(a_high, b_low, found, input_precision="ieee")
            found = tl.dot(a_high, b_high, found, input_precision="ieee")
            least = found if each == 0 else tl.minimum(least, found)
        nearer = least < best
        best = tl.where(nearer, least, best)
        where = tl.where(nearer, turn, where)

    bundle = where * BN + tl.arange(0, BN)[None, :]
    bundle = tl.min(tl.where(best == tl.min(best, 1)[:, None], bundle, 2147483647), 1)  # [BM]
    codebook += problem * K * D
    a = _factors(x, w, n, rows, D, G, DK)
    code, total = _nearest_of(codebook, bundle * BUNDLE, a, K, D, DK, BUNDLE)
    tl.store(codes + problem * n + rows, code, mask=rows < n)
    # rows past the last have no weight
    tl.store(cost + problem * tl.num_programs(0) + tl.program_id(0), tl.sum(total.to(tl.float64), 0))


def assign(x: Tensor, w: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """x [B, n, d], w [B, G, d], codebook [B, K, d], float32, to codes int32 [B, n] and costs float64 [B].

    `kernels.kmeans.assign` for B problems, d up to 64. Codewords may change places whose costs differ by less than
    some 2^-15 of their terms (at the very worst, 2^-13); of equal ones the first wins.
    """
    (batch, n, d), size = x.shape, codebook.shape[1]
    length = max(16, triton.next_power_of_2(2 * d))
    blocks = BLOCKS[length]
    space = triton.cdiv(size, blocks.codewords) * blocks.codewords
    x, w, codebook = x.contiguous(), w.contiguous(), codebook.contiguous()
    high, low = (x.new_empty(batch, space, length, dtype=torch.bfloat16) for _ in range(2))
    _split_codebook[(space // blocks.BN, batch)](
        codebook, high, low, size, space, D=d, DK=length, BN=blocks.BN, BUNDLE=blocks.bundle, num_warps=4
    )
    programs = triton.cdiv(n, blocks.BM)
    codes = torch.empty(batch, n, dtype=torch.int32, device=x.device)
    cost = x.new_empty(batch, programs, 1, dtype=torch.float64)
    _assign[(programs, batch)](
        x, w, codebook, high, low, codes, cost, n, w.shape[1], size, space,
        D=d, DK=length, BM=blocks.BM, BN=blocks.BN, BUNDLE=blocks.bundle,
        OPERAND=tl.bfloat16 if x.is_cuda else tl.float32,  # the interpreter has no products of bfloat16
        num_warps=4, num_stages=blocks.stages, maxnreg=blocks.registers,
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
