"""z = t Pᵀ for the points P of E8 that codes stand for, decoded from tables of nibbles; no rotations here."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.matmul import Tiling, _codes, _inputs, _store, _words, add_parts, partial, plan, pointers
from kernels.lattice import growth
from kernels.prepared import LatticeWords

ONE_TOKEN = Tiling(outputs=8, warps=4)
FEW_TOKENS = Tiling(outputs=32, warps=8)  # 4 warps spill at 4 bits a weight

# Where the tables start, in words; patterns come first.
_SIGNS = tl.constexpr(256)
_SHORT = tl.constexpr(384)


@triton.jit
def _fraction(bits, QUARTERS: tl.constexpr, DTYPE: tl.constexpr):
    """Whole numbers below 64 times 1/4, or times 1/2, as DTYPE: they are the lowest bits of a mantissa already."""
    if DTYPE == tl.float32:
        if QUARTERS:
            return (bits | 0x4A000000).to(tl.float32, bitcast=True) - 2097152.0
        else:
            return (bits | 0x4A800000).to(tl.float32, bitcast=True) - 4194304.0
    elif DTYPE == tl.float16:
        if QUARTERS:
            return (bits | 0x5C00).to(tl.int16).to(tl.float16, bitcast=True) - 256.0
        else:
            return (bits | 0x6000).to(tl.int16).to(tl.float16, bitcast=True) - 512.0
    elif QUARTERS:
        return (bits | 0x4200).to(tl.int16).to(tl.bfloat16, bitcast=True) - 32.0
    else:
        return (bits | 0x4280).to(tl.int16).to(tl.bfloat16, bitcast=True) - 64.0


@triton.jit
def _point(codes, tables, DTYPE: tl.constexpr):
    """Codewords of E8P [.., 8] of codes [..]: a pattern, its signs turned, and 3/4 or 1/4 above the floor."""
    packed = tl.load(tables + (codes & 255)) ^ tl.load(tables + _SIGNS + ((codes >> 8) & 127))
    shift = 3 - 2 * ((codes >> 15) & 1)
    nibbles = (tl.expand_dims(packed, -1) >> (4 * tl.arange(0, 8))[None, None, :]) & 15  # [.., 8]
    return _fraction((nibbles << 2) | tl.expand_dims(shift, -1), True, DTYPE) - 8.0


@triton.jit
def _short_point(codes, tables, DTYPE: tl.constexpr):
    """The points [.., 8] of codes [..] into the 256 shortest."""
    packed = tl.load(tables + _SHORT + codes)
    return _fraction((tl.expand_dims(packed, -1) >> (4 * tl.arange(0, 8))[None, None, :]) & 15, False, DTYPE) - 4.0


@triton.jit
def _residual(codes, tables, HIGH: tl.constexpr, DTYPE: tl.constexpr):
    """What a residual code of HIGH bits stands for, before it is made smaller."""
    if HIGH == 8:
        return _short_point(codes, tables, DTYPE)
    else:
        return _point(codes, tables, DTYPE)


@triton.jit
def _lattice(
    t, low, high, tables, scale, z, tokens, rows, width, blocks, run, growth,
    HIGH: tl.constexpr, LANES: tl.constexpr, BN: tl.constexpr, BM: tl.constexpr, PARTS: tl.constexpr,
    DTYPE: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    first = tl.program_id(1) * run
    acc = tl.zeros((BN, LANES if BM == 1 else BM), tl.float32)
    rest = tl.zeros(acc.shape, tl.float32)
    ahead, ahead_high = _words(low, high, n, rows, blocks * LANES, first, LANES, HIGH)  # [BN, LANES]
    for block in tl.range(first, min(first + run, blocks), num_stages=1):
        lows, highs = ahead, ahead_high
        following = tl.minimum(block + 1, blocks - 1)
        ahead, ahead_high = _words(low, high, n, rows, blocks * LANES, following, LANES, HIGH)
        for plane in tl.static_range(2):
            k = (block * 2 + plane) * LANES * 8 + tl.arange(0, LANES * 8)
            some = _inputs(t, t, k, k < width, tokens, width, BM, False, DTYPE)  # [LANES * 8, BM]
            points = _point(_codes(lows, highs, plane, 16, 0), tables, DTYPE)  # [BN, LANES, 8]
            if BM == 1:
                acc += tl.sum(points * some.reshape(1, LANES, 8), 2)
            else:
                acc = tl.dot(points.reshape(BN, LANES * 8), some, acc)
            if HIGH:
                codes = (highs >> plane * HIGH) & ((1 << HIGH) - 1)
                left = _residual(codes, tables, HIGH, DTYPE)
                if BM == 1:
                    rest += tl.sum(left * some.reshape(1, LANES, 8), 2)
                else:
                    rest = tl.dot(left.reshape(BN, LANES * 8), some, rest)
    if HIGH:
        acc += rest / growth
    if BM == 1:
        acc = tl.sum(acc, 1, keep_dims=True)
    _store(z, acc, scale, n, rows, tokens, BM, True, PARTS)


def matmul(t: Tensor, prepared: LatticeWords, dtype: torch.dtype) -> Tensor:
    """t [tokens <= 16, 8 * groups] float32, contiguous, to t times scale * points, [tokens, out] float32.

    Points and residuals are exact in either dtype and summed apart in float32; more tokens than one round t to
    `dtype`, float16 or bfloat16.
    """
    words, rows = prepared.words, prepared.weight.shape[0]
    launch = plan(t, rows, words, (ONE_TOKEN, FEW_TOKENS), dtype)
    z = t.new_empty(len(t), rows)
    found = partial(z, launch.parts)
    _lattice[launch.grid](
        t,
        *pointers(words),
        prepared.tables,
        prepared.scale_out,
        found,
        *(len(t), rows, t.shape[1], words.blocks, launch.run, growth(prepared.weight.bits)),
        HIGH=words.high_bits,
        **launch.constants,
    )
    return add_parts(found, z, prepared.scale_out)
