"""y = x Wᵀ from integers on a grid for each group: whole numbers are multiplied, a group's sum is scaled."""

import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.matmul import Tiling, _codes, _inputs, _store, _words, add_parts, partial, plan, pointers
from kernels.prepared import GroupedWords

ONE_TOKEN = Tiling(outputs=8, warps=2)
FEW_TOKENS = Tiling(outputs=64, warps=4)
STAGES = 3  # blocks in flight with their x, for more tokens than one; one token only reads words ahead


@triton.jit
def _number(code, BITS: tl.constexpr, DTYPE: tl.constexpr):
    """A code plus a constant of DTYPE, exactly: its bits become the lowest of a mantissa, without a conversion.

    The difference of two such numbers is that of their codes. bfloat16 has no room for 8 bits, and converts.
    """
    if DTYPE == tl.float32:
        return (code | 0x4B000000).to(tl.float32, bitcast=True)
    elif DTYPE == tl.float16:
        return (code | 0x6400).to(tl.int16).to(tl.float16, bitcast=True)
    elif BITS < 8:
        return (code | 0x4300).to(tl.int16).to(tl.bfloat16, bitcast=True)
    else:
        return code.to(tl.bfloat16)


@triton.jit
def _grid(zeros, scale, n, rows, groups, group, BITS: tl.constexpr, ZEROS: tl.constexpr):
    """The scale float32 and the zero point int32 of a group, each in the shape of n and group together."""
    at = n.to(tl.int64) * groups + group
    known = (n < rows) & (group < groups)
    step = tl.load(scale + at, mask=known, other=0).to(tl.float32)
    if ZEROS:
        return step, tl.load(zeros + at, mask=known, other=0).to(tl.int32)
    return step, tl.full(at.shape, 1 << (BITS - 1), tl.int32)


@triton.jit
def _grouped(
    x, low, high, zeros, scale, r_in, r_out, y, tokens, rows, width, groups, group_width, blocks, run,
    BITS: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, ZEROS: tl.constexpr, NORM_IN: tl.constexpr,
    NORM_OUT: tl.constexpr, TOGETHER: tl.constexpr, LANES: tl.constexpr, BN: tl.constexpr, BM: tl.constexpr,
    PARTS: tl.constexpr, STAGES: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    PLANES: tl.constexpr = 32 // LOW
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    first = tl.program_id(1) * run
    acc = tl.zeros((BN, LANES if BM == 1 else BM), tl.float32)
    if STAGES == 1:
        ahead, ahead_high = _words(low, high, n, rows, blocks * LANES, first, LANES, HIGH)  # [BN, LANES]
    for block in tl.range(first, min(first + run, blocks), num_stages=STAGES):
        if STAGES == 1:
            lows, highs = ahead, ahead_high
            following = tl.minimum(block + 1, blocks - 1)
            ahead, ahead_high = _words(low, high, n, rows, blocks * LANES, following, LANES, HIGH)
        else:
            lows, highs = _words(low, high, n, rows, blocks * LANES, block, LANES, HIGH)
        for bundle in tl.static_range(PLANES // TOGETHER):
            start = (block * PLANES + bundle * TOGETHER) * LANES
            step, zero = _grid(zeros, scale, n, rows, groups, start // group_width, BITS, ZEROS)  # [BN]
            middle = _number(zero, BITS, DTYPE)[:, None]  # [BN, 1]
            part = tl.zeros(acc.shape, tl.float32)
            for each in tl.static_range(TOGETHER):
                k = start + each * LANES + tl.arange(0, LANES)
                some = _inputs(x, r_in, k, k < width, tokens, width, BM, NORM_IN, DTYPE)  # [LANES, BM]
                codes = _codes(lows, highs, bundle * TOGETHER + each, LOW, HIGH)
                whole = _number(codes, BITS, DTYPE) - middle  # [BN, LANES]
                if BM == 1:
                    part += whole * tl.trans(some)
                else:
                    part = tl.dot(whole, some, part)
            acc += step[:, None] * part
    if BM == 1:
        acc = tl.sum(acc, 1, keep_dims=True)
    _store(y, acc, r_out, n, rows, tokens, BM, NORM_OUT, PARTS)


def matmul(x: Tensor, prepared: GroupedWords) -> Tensor:
    """x [tokens <= 16, in] float16 or bfloat16, contiguous, to [tokens, out] in its dtype.

    The weight must be one that `streams`. Whole numbers are exact in either dtype, sums are float32; x * r_in is
    rounded to the dtype of x once.
    """
    weight, words, r_in, r_out = prepared.weight, prepared.words, prepared.weight.r_in, prepared.weight.r_out
    rows, width = weight.shape
    launch = plan(x, rows, words, (ONE_TOKEN, FEW_TOKENS), x.dtype)
    y = x.new_empty(len(x), rows)
    found = partial(y, launch.parts)
    _grouped[launch.grid](
        x,
        *pointers(words),
        words.low if prepared.zeros is None else prepared.zeros,
        weight.scale,
        x if r_in is None else r_in,
        x if r_out is None else r_out,
        found,
        *(len(x), rows, width, weight.scale.shape[1], weight.group_width, words.blocks, launch.run),
        BITS=weight.bits,
        LOW=words.low_bits,
        HIGH=words.high_bits,
        ZEROS=prepared.zeros is not None,
        NORM_IN=r_in is not None,
        NORM_OUT=r_out is not None,
        TOGETHER=_planes_together(prepared),
        STAGES=1 if len(x) == 1 else STAGES,
        **launch.constants,
    )
    return add_parts(found, y, r_out)


def _planes_together(prepared: GroupedWords) -> int:
    """Consecutive planes of a block that always share a scale, a divisor of the number of planes."""
    weight, words = prepared.weight, prepared.words
    if weight.scale.shape[1] == 1:
        return words.planes
    planes = weight.group_width // words.lanes
    return max(count for count in (1, 2, 4, 8, 16, 32) if words.planes % count == 0 and planes % count == 0)
