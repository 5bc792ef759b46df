"""What the kernels that multiply by codes share: reading words, x and norms, and how the work is cut up.

A program owns BN outputs and a run of blocks of the inputs. One token is a product and a sum in float32, for a
column of tl.dot would be one of eight; more tokens, up to 16, are its columns. Where the outputs are too few to
fill the GPU the inputs are cut too, and a second kernel adds the parts in a fixed order.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.prepared import Words

FILL = 512  # programs that keep the 132 multiprocessors of an H100 busy
MOST_SPLITS = 8  # more parts cost more to add than they save
ADD_BLOCK = 256
TOKEN_TILES = (8, 16)
TRITON_DTYPES = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}


@dataclass(frozen=True)
class Tiling:
    """Outputs of a program, and its warps."""

    outputs: int
    warps: int


@triton.jit
def _words(low, high, n, rows, stride, block, LANES: tl.constexpr, HIGH: tl.constexpr):
    """One block of words [BN, LANES] of the outputs n; without high ones, the low ones twice."""
    at = n.to(tl.int64)[:, None] * stride + block * LANES + tl.arange(0, LANES)[None, :]
    known = (n < rows)[:, None]
    lows = tl.load(low + at, mask=known, other=0)  # [BN, LANES]
    if HIGH:
        return lows, tl.load(high + at, mask=known, other=0).to(tl.int32)
    return lows, lows


@triton.jit
def _codes(lows, highs, plane, LOW: tl.constexpr, HIGH: tl.constexpr):
    """The codes of a plane, int32 in the shape of the words."""
    codes = (lows >> plane * LOW) & ((1 << LOW) - 1)
    if HIGH:
        codes |= ((highs >> plane * HIGH) & ((1 << HIGH) - 1)) << LOW
    return codes


@triton.jit
def _inputs(x, r_in, k, known, tokens, width, BM: tl.constexpr, NORMED: tl.constexpr, DTYPE: tl.constexpr):
    """x at the inputs k, times their norms, zero where not `known`: DTYPE [len(k), BM]."""
    m = tl.arange(0, BM)
    some = tl.load(x + m[None, :] * width + k[:, None], mask=known[:, None] & (m < tokens)[None, :], other=0)
    if NORMED:
        some = some.to(tl.float32) * tl.load(r_in + k, mask=known, other=0).to(tl.float32)[:, None]
    return some.to(DTYPE)


@triton.jit
def _store(y, acc, r_out, n, rows, tokens, BM: tl.constexpr, NORMED: tl.constexpr, PARTS: tl.constexpr):
    """acc [BN, BM] to y [tokens, rows] times the norms, or as it is to this program's part of y."""
    if NORMED and PARTS == 1:
        acc *= tl.load(r_out + n, mask=n < rows, other=0).to(tl.float32)[:, None]
    m = tl.arange(0, BM)
    row = tl.program_id(1) * tokens + m
    known = (n < rows)[:, None] & (m < tokens)[None, :]
    tl.store(y + row[None, :] * rows + n[:, None], acc.to(y.dtype.element_ty), mask=known)


@triton.jit
def _add(parts, r_out, y, rows, size, PARTS: tl.constexpr, NORMED: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    known = at < size
    total = tl.zeros((BLOCK,), tl.float32)
    for part in tl.static_range(PARTS):
        total += tl.load(parts + part * size + at, mask=known, other=0)
    if NORMED:
        total *= tl.load(r_out + at % rows, mask=known, other=0).to(tl.float32)
    tl.store(y + at, total.to(y.dtype.element_ty), mask=known)


@dataclass(frozen=True)
class Plan:
    """How a product is launched: blocks of a program, parts that are added afterwards, and the constants."""

    grid: tuple[int, int]
    run: int
    parts: int
    constants: dict[str, Any]


def plan(x: Tensor, rows: int, words: Words, tilings: tuple[Tiling, Tiling], dtype: torch.dtype) -> Plan:
    """The launch for x [tokens, in] in the first of two tilings if there is one token, else in the second.

    `dtype` is that of more tokens than one, which is multiplied in float32.
    """
    tokens = len(x)
    tiling = tilings[tokens > 1]
    columns = 1 if tokens == 1 else next(tile for tile in TOKEN_TILES if tile >= tokens)
    programs = triton.cdiv(rows, tiling.outputs)
    run = triton.cdiv(words.blocks, max(1, min(FILL // programs, words.blocks, MOST_SPLITS)))
    parts = triton.cdiv(words.blocks, run)
    constants = {
        "LANES": words.lanes,
        "BN": tiling.outputs,
        "BM": columns,
        "PARTS": parts,
        "DTYPE": TRITON_DTYPES[torch.float32 if tokens == 1 else dtype],
        "num_warps": tiling.warps,
    }
    return Plan((programs, parts), run, parts, constants)


def pointers(words: Words) -> tuple[Tensor, Tensor]:
    """Low and high words, the low ones twice where there are no high ones."""
    return words.low, words.low if words.high is None else words.high


def partial(y: Tensor, parts: int) -> Tensor:
    """Where programs write: y [tokens, out] itself, or float32 [parts, tokens, out] to be added later."""
    return y if parts == 1 else y.new_empty(parts, *y.shape, dtype=torch.float32)


def add_parts(found: Tensor, y: Tensor, r_out: Tensor | None) -> Tensor:
    """y [tokens, out] = r_out * the sum of parts [parts, tokens, out]; y as it is where programs wrote to it."""
    if found is not y:
        grid = (triton.cdiv(y.numel(), ADD_BLOCK),)
        norms = y if r_out is None else r_out
        sizes = {"PARTS": len(found), "NORMED": r_out is not None, "BLOCK": ADD_BLOCK}
        _add[grid](found, norms, y, y.shape[1], y.numel(), **sizes)
    return y
