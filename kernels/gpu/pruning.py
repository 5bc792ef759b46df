"""Choice by score in few passes over the scores. The references are in `kernels.pruning`; results are the same.

A float32 is ranked by its bits: read as a whole number, the lower 31 of a negative one flipped, they rise as it
does. Counts are whole numbers, so that atomic additions give the same sums in any order. No score is NaN.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

SCORED = 4, 512  # rows and columns of a program of `_squares`
GROUPED = 1024  # scores of a program of `_n_of_m`
IN_REGISTERS = 16384  # the widest row that one program holds: 32 scores a thread
TILE, SPAN = 2048, 8192  # scores at a time, and in all, of a program that shares a wider row
DIGIT = 8  # bits of a rank that one pass over a wider row finds: a divisor of 32
PASSES = 32 // DIGIT
LOWEST = tl.constexpr(-(2**31))
HIGHEST = tl.constexpr(2**31 - 1)


def weighted_squares(weight: Tensor, importance: Tensor, r_out: Tensor | None, r_in: Tensor | None) -> Tensor:
    """(W / r_in / r_out)² * importance, float32 [out, in], where W is of any floating dtype, importance float32.

    Each step is rounded as PyTorch does; r_out [out] and r_in [in] may be None.
    """
    (rows, width), (tall, wide) = weight.shape, SCORED
    score = torch.empty(rows, width, device=weight.device)
    norms = [None if norm is None else norm.contiguous() for norm in (r_out, r_in)]
    grid = triton.cdiv(rows, tall), triton.cdiv(width, wide)
    _squares[grid](
        weight.contiguous(), importance.contiguous(), *norms, score, rows, width, BM=tall, BN=wide, num_warps=4
    )
    return score


def keep_n_of_m(score: Tensor, keep: int, of: int) -> Tensor:
    """Boolean mask [out, in] of the `keep` highest of each `of` float32 scores; of equal ones the first stay."""
    score = score.contiguous()
    mask = torch.empty_like(score, dtype=torch.bool)
    grid = (triton.cdiv(score.numel(), GROUPED),)
    _n_of_m[grid](score, mask.view(torch.uint8), score.numel(), KEEP=keep, OF=of, BN=GROUPED, num_warps=4)
    return mask


def keep_largest(score: Tensor, drop: int) -> Tensor:
    """Boolean mask [rows, n] without the `drop` smallest float32 scores of each row; of equal ones the first fall.

    drop is 1 to n.
    """
    score = score.contiguous()
    rows, n = score.shape
    mask = torch.empty_like(score, dtype=torch.bool)
    if n <= IN_REGISTERS:
        width = max(triton.next_power_of_2(n), 128)
        warps = min(max(width // 1024, 1), 16)
        _rows[(rows,)](score, mask.view(torch.uint8), n, drop, BN=width, num_warps=warps)
        return mask
    counts, grid = _counts(score, drop - 1), (triton.cdiv(n, SPAN), rows)
    ties = torch.empty(rows, grid[0], dtype=torch.int32, device=score.device)
    sizes = {"PASSES": PASSES, "DIGIT": DIGIT, "SPAN": SPAN, "BN": TILE}
    _ties[grid](score, counts, ties, n, drop - 1, **sizes)
    before = ties.cumsum(1, dtype=torch.int32) - ties
    _beyond[grid](score, counts, before, mask.view(torch.uint8), n, drop - 1, **sizes)
    return mask


def kth_smallest(values: Tensor, k: int) -> Tensor:
    """The value [] that comes k-th, from 1, of all float32 values in rising order; -0 is given as 0."""
    row = values.reshape(1, -1)
    found = torch.empty((), device=values.device)
    _value[(1,)](_counts(row, k - 1), found, k - 1, PASSES=PASSES, DIGIT=DIGIT)
    return found


def _counts(score: Tensor, k: int) -> Tensor:
    """How often each digit follows those of the k-th smallest, from 0: int32 [rows, passes, 2^DIGIT]."""
    rows, n = score.shape
    counts = torch.zeros(rows, PASSES, 1 << DIGIT, dtype=torch.int32, device=score.device)
    for step in range(PASSES):
        grid = triton.cdiv(n, SPAN), rows
        _count[grid](score, counts, n, k, PASS=step, PASSES=PASSES, DIGIT=DIGIT, SPAN=SPAN, BN=TILE)
    return counts


@triton.jit
def _rank(score):
    """Whole numbers that rise as float32 scores do; both zeros are one."""
    bits = tl.where(score == 0, 0.0, score).to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & HIGHEST)


@triton.jit
def _squares(weight, importance, r_out, r_in, score, rows, width, BM: tl.constexpr, BN: tl.constexpr):
    row = tl.program_id(0) * BM + tl.arange(0, BM)[:, None]  # [BM, 1]
    column = tl.program_id(1) * BN + tl.arange(0, BN)[None, :]  # [1, BN]
    inside = (row < rows) & (column < width)
    at = row.to(tl.int64) * width + column
    w = tl.load(weight + at, mask=inside, other=0).to(tl.float32)  # [BM, BN]
    if r_in is not None:
        norm = tl.load(r_in + column, mask=column < width, other=1).to(tl.float32)
        w = tl.div_rn(w, tl.broadcast_to(norm, [BM, BN]))
    if r_out is not None:
        norm = tl.load(r_out + row, mask=row < rows, other=1).to(tl.float32)
        w = tl.div_rn(w, tl.broadcast_to(norm, [BM, BN]))
    tl.store(score + at, w * w * tl.load(importance + column, mask=column < width, other=0), mask=inside)


@triton.jit
def _n_of_m(score, mask, size, KEEP: tl.constexpr, OF: tl.constexpr, BN: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BN + tl.arange(0, BN)  # [BN]
    inside = at < size
    own = tl.load(score + at, mask=inside, other=0)
    place = (at % OF).to(tl.int32)
    ahead = tl.zeros([BN], tl.int32)
    for other in tl.static_range(OF):  # the group was read just now: these loads hit L1
        rival = tl.load(score + at - place + other, mask=inside, other=0)
        ahead += ((rival > own) | ((rival == own) & (other < place))).to(tl.int32)
    tl.store(mask + at, (ahead < KEEP).to(tl.uint8), mask=inside)


@triton.jit
def _rows(score, mask, n, drop, BN: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * n
    at = tl.arange(0, BN)
    inside = at < n
    rank = tl.where(inside, _rank(tl.load(score + row + at, mask=inside, other=0)), HIGHEST)  # [BN]
    pivot, bit = tl.full([], LOWEST, tl.int32), tl.full([], LOWEST, tl.int32)
    for _ in range(32):  # the highest rank that fewer than `drop` lie below, from its first bit to its last
        raised = pivot ^ bit
        pivot = tl.where(tl.sum((rank < raised).to(tl.int32)) < drop, raised, pivot)
        bit = (bit >> 1) & HIGHEST
    tie = (rank == pivot) & inside
    room = drop - tl.sum((rank < pivot).to(tl.int32))
    keep = (rank > pivot) | (tie & (tl.cumsum(tie.to(tl.int32)) > room))
    tl.store(mask + row + at, keep.to(tl.uint8), mask=inside)


@triton.jit
def _found(counts, k, FOUND: tl.constexpr, DIGIT: tl.constexpr):
    """The first FOUND digits of the k-th smallest rank, from LOWEST, and its place among those that share them."""
    bins = tl.arange(0, 1 << DIGIT)
    prefix = 0
    for step in tl.static_range(FOUND):
        count = tl.load(counts + (step << DIGIT) + bins)
        digit = tl.sum((tl.cumsum(count) <= k).to(tl.int32))
        k -= tl.sum(tl.where(bins < digit, count, 0))
        prefix = (prefix << DIGIT) | digit
    return prefix, k


@triton.jit
def _count(
    score,
    counts,
    n,
    k,
    PASS: tl.constexpr,
    PASSES: tl.constexpr,
    DIGIT: tl.constexpr,
    SPAN: tl.constexpr,
    BN: tl.constexpr,
):
    row, first = tl.program_id(1).to(tl.int64), tl.program_id(0).to(tl.int64) * SPAN
    counts += row * (PASSES << DIGIT)
    prefix, _ = _found(counts, k, PASS, DIGIT)
    bins = tl.arange(0, 1 << DIGIT)
    total = tl.zeros([1 << DIGIT], tl.int32)
    for start in range(0, SPAN, BN):
        at = first + start + tl.arange(0, BN)  # [BN]
        counted = at < n
        above = _rank(tl.load(score + row * n + at, mask=counted, other=0)) ^ LOWEST
        if PASS > 0:
            counted &= ((above >> (32 - PASS * DIGIT)) & ((1 << PASS * DIGIT) - 1)) == prefix
        digit = (above >> (32 - (PASS + 1) * DIGIT)) & ((1 << DIGIT) - 1)
        total += tl.histogram(digit, 1 << DIGIT, mask=counted)
    tl.atomic_add(counts + (PASS << DIGIT) + bins, total, mask=total > 0, sem="relaxed")


@triton.jit
def _value(counts, found, k, PASSES: tl.constexpr, DIGIT: tl.constexpr):
    prefix, _ = _found(counts, k, PASSES, DIGIT)
    rank = prefix ^ LOWEST
    bits = rank ^ ((rank >> 31) & HIGHEST)
    tl.store(found, bits.to(tl.float32, bitcast=True))


@triton.jit
def _ties(
    score, counts, ties, n, k, PASSES: tl.constexpr, DIGIT: tl.constexpr, SPAN: tl.constexpr, BN: tl.constexpr
):
    row, first = tl.program_id(1).to(tl.int64), tl.program_id(0).to(tl.int64) * SPAN
    prefix, _ = _found(counts + row * (PASSES << DIGIT), k, PASSES, DIGIT)
    count = tl.zeros([BN], tl.int32)
    for start in range(0, SPAN, BN):
        at = first + start + tl.arange(0, BN)
        rank = _rank(tl.load(score + row * n + at, mask=at < n, other=0))
        count += ((rank == prefix ^ LOWEST) & (at < n)).to(tl.int32)
    tl.store(ties + row * tl.num_programs(0) + tl.program_id(0), tl.sum(count))


@triton.jit
def _beyond(
    score,
    counts,
    before,
    mask,
    n,
    k,
    PASSES: tl.constexpr,
    DIGIT: tl.constexpr,
    SPAN: tl.constexpr,
    BN: tl.constexpr,
):
    """Keeps what ranks above the k-th smallest, and the ties of that after itself."""
    row, first = tl.program_id(1).to(tl.int64), tl.program_id(0).to(tl.int64) * SPAN
    prefix, last = _found(counts + row * (PASSES << DIGIT), k, PASSES, DIGIT)
    seen = tl.load(before + row * tl.num_programs(0) + tl.program_id(0))
    for start in range(0, SPAN, BN):
        at = first + start + tl.arange(0, BN)  # [BN]
        inside = at < n
        rank = _rank(tl.load(score + row * n + at, mask=inside, other=0))
        tie = ((rank == prefix ^ LOWEST) & inside).to(tl.int32)
        keep = (rank > prefix ^ LOWEST) | ((tie > 0) & (seen + tl.cumsum(tie) > last + 1))
        tl.store(mask + row * n + at, keep.to(tl.uint8), mask=inside)
        seen += tl.sum(tie)
