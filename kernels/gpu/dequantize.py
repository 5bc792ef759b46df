"""Weights from the run-time layout in one launch, bit for bit those of the formats' `dequantize`, rounded once."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.grouped import _grid
from kernels.gpu.lattice_matmul import _point, _residual
from kernels.gpu.matmul import _codes, _words, pointers
from kernels.lattice import growth
from kernels.prepared import CodebookWords, GroupedWords, LatticeWords

OUTPUTS, INPUTS, WARPS = 16, 128, 4


@triton.jit
def _denormalized(weight, r_out, r_in, n, k, rows, width, NORM_OUT: tl.constexpr, NORM_IN: tl.constexpr):
    """weight [BN, BK] times the norms of the outputs n and the inputs k, in the order of the reference."""
    if NORM_OUT:
        weight *= tl.load(r_out + n, mask=n < rows, other=0).to(tl.float32)[:, None]
    if NORM_IN:
        weight *= tl.load(r_in + k, mask=k < width, other=0).to(tl.float32)[None, :]
    return weight


@triton.jit
def _put(out, weight, n, k, rows, width):
    at = n.to(tl.int64)[:, None] * width + k[None, :]
    tl.store(out + at, weight.to(out.dtype.element_ty), mask=(n < rows)[:, None] & (k < width)[None, :])


@triton.jit
def _grouped_weight(
    low, high, zeros, scale, r_out, r_in, out, rows, width, groups, group_width, blocks,
    BITS: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, ZEROS: tl.constexpr, NORM_OUT: tl.constexpr,
    NORM_IN: tl.constexpr, WHOLE: tl.constexpr, LANES: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    block = tl.program_id(1)
    lows, highs = _words(low, high, n, rows, blocks * LANES, block, LANES, HIGH)  # [BN, LANES]
    for plane in tl.static_range(32 // LOW):
        start = (block * (32 // LOW) + plane) * LANES
        k = start + tl.arange(0, LANES)
        if WHOLE:
            step, zero = _grid(zeros, scale, n, rows, groups, start // group_width, BITS, ZEROS)  # [BN]
            step, zero = step[:, None], zero[:, None]
        else:
            group, n2 = (k // group_width)[None, :], n[:, None]
            step, zero = _grid(zeros, scale, n2, rows, groups, group, BITS, ZEROS)  # [BN, LANES]
        weight = step * (_codes(lows, highs, plane, LOW, HIGH) - zero).to(tl.float32)
        weight = _denormalized(weight, r_out, r_in, n, k, rows, width, NORM_OUT, NORM_IN)
        _put(out, weight, n, k, rows, width)


@triton.jit
def _codebook_weight(
    low, high, book, r_out, r_in, out, rows, width, stride,
    DIM: tl.constexpr, PADDED: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, NORM_OUT: tl.constexpr,
    NORM_IN: tl.constexpr, LANES: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    PLANES: tl.constexpr = 32 // LOW
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    k = tl.program_id(1) * BK + tl.arange(0, BK)
    group = k // DIM
    plane = (group // LANES % PLANES)[None, :]
    word = group // (LANES * PLANES) * LANES + group % LANES
    at = n.to(tl.int64)[:, None] * stride + word[None, :]
    known = (n < rows)[:, None] & (k < width)[None, :]
    lows = tl.load(low + at, mask=known, other=0)  # [BN, BK]
    highs = lows
    if HIGH:
        highs = tl.load(high + at, mask=known, other=0).to(tl.int32)
    codes = _codes(lows, highs, plane, LOW, HIGH)
    weight = tl.load(book + codes * PADDED + (k % DIM)[None, :]).to(tl.float32)
    _put(out, _denormalized(weight, r_out, r_in, n, k, rows, width, NORM_OUT, NORM_IN), n, k, rows, width)


@triton.jit
def _points(
    low, high, tables, scale, out, rows, width, blocks, growth,
    HIGH: tl.constexpr, LANES: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    block = tl.program_id(1)
    lows, highs = _words(low, high, n, rows, blocks * LANES, block, LANES, HIGH)  # [BN, LANES]
    step = tl.load(scale)
    for plane in tl.static_range(2):
        k = (block * 2 + plane) * LANES * 8 + tl.arange(0, LANES * 8)
        points = _point(_codes(lows, highs, plane, 16, 0), tables, tl.float32)  # [BN, LANES, 8]
        if HIGH:
            codes = (highs >> plane * HIGH) & ((1 << HIGH) - 1)
            points += tl.div_rn(_residual(codes, tables, HIGH, tl.float32), growth)
        _put(out, points.reshape(BN, LANES * 8) * step, n, k, rows, width)


def grouped(prepared: GroupedWords, dtype: torch.dtype) -> Tensor:
    """The weight [out, in] in float16, bfloat16 or float32."""
    weight, words = prepared.weight, prepared.words
    out = words.low.new_empty(weight.shape, dtype=dtype)
    _grouped_weight[triton.cdiv(len(out), OUTPUTS), words.blocks](
        *pointers(words),
        words.low if prepared.zeros is None else prepared.zeros,
        weight.scale,
        out if weight.r_out is None else weight.r_out,
        out if weight.r_in is None else weight.r_in,
        out,
        *weight.shape,
        weight.scale.shape[1],
        weight.group_width,
        words.blocks,
        BITS=weight.bits,
        LOW=words.low_bits,
        HIGH=words.high_bits,
        ZEROS=prepared.zeros is not None,
        NORM_OUT=weight.r_out is not None,
        NORM_IN=weight.r_in is not None,
        WHOLE=prepared.streams,
        LANES=words.lanes,
        BN=OUTPUTS,
        num_warps=WARPS,
    )
    return out


def codebook(prepared: CodebookWords, dtype: torch.dtype) -> Tensor:
    """The weight [out, in] in float16, bfloat16 or float32."""
    weight, words = prepared.weight, prepared.words
    out = words.low.new_empty(weight.shape, dtype=dtype)
    _codebook_weight[triton.cdiv(len(out), OUTPUTS), triton.cdiv(out.shape[1], INPUTS)](
        *pointers(words),
        prepared.stored,
        out if weight.r_out is None else weight.r_out,
        out if weight.r_in is None else weight.r_in,
        out,
        *weight.shape,
        words.low.shape[1],
        DIM=weight.codebook.shape[1],
        PADDED=prepared.stored.shape[1],
        LOW=words.low_bits,
        HIGH=words.high_bits,
        NORM_OUT=weight.r_out is not None,
        NORM_IN=weight.r_in is not None,
        LANES=words.lanes,
        BN=OUTPUTS,
        BK=INPUTS,
        num_warps=WARPS,
    )
    return out


def points(prepared: LatticeWords, dtype: torch.dtype) -> Tensor:
    """scale * points of a lattice [out, 8 * groups], not turned back, in float16, bfloat16 or float32."""
    weight, words = prepared.weight, prepared.words
    out = words.low.new_empty(weight.shape[0], 8 * weight.groups, dtype=dtype)
    _points[triton.cdiv(len(out), OUTPUTS), words.blocks](
        *pointers(words),
        prepared.tables,
        prepared.scale_out,
        out,
        *out.shape,
        words.blocks,
        growth(weight.bits),
        HIGH=words.high_bits,
        LANES=words.lanes,
        BN=OUTPUTS,
        num_warps=WARPS,
    )
    return out
