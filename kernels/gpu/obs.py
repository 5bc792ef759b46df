"""A block of columns settled in one launch, rows in parallel. The reference is `kernels.obs`.

A program holds its rows of all columns in registers and corrects every later column as soon as one is settled; the
reference sums the same products when it gets there. Results differ by that order alone: by a few last bits, and by
a whole step of the grid, or by a weight, where those bits decide.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.obs import Competing, OnGrid, Target

WIDEST = 128  # columns of a launch; wider blocks are settled in pieces
ROWS = 8  # rows of a program: 4096 rows are 512 programs, one for each of the 528 schedulers of an H100
WARPS = 1  # more would have to meet in shared memory at every column
STORED = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
WHOLE = tl.constexpr(1.5 * 2**23)  # added to a float32 of size up to 2^22, it leaves no bit for a fraction


def settle(w: Tensor, upper: Tensor, target: Target, errors: Tensor) -> None:
    """Settle the columns w [columns, rows] in place; errors [columns, rows] become (w - ŵ) / U_jj.

    upper [columns, columns] is the block of U. All float32; ValueError when w or errors are not contiguous.
    """
    if not (w.is_contiguous() and errors.is_contiguous()):
        raise ValueError("columns are settled in place: they and their errors must be contiguous")
    first, second, constants = _data(target, w.shape[1])
    widest = WIDEST // constants["OF"] * constants["OF"]  # a run is never cut
    for start in range(0, len(w), widest):
        piece = slice(start, min(start + widest, len(w)))
        if start:
            w[piece].addmm_(upper[:start, piece].T, errors[:start], alpha=-1)
        _launch(w[piece], upper[piece, piece], errors[piece], (first[piece], second[piece]), constants)


def _data(target: Target, rows: int) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """The two tensors [columns, rows] and the constants by which the kernel knows a target."""
    if isinstance(target, OnGrid):
        constants = {"KIND": "grid", "TOP": target.top, "STORED": tl.float32, "KEEP": 1, "OF": 1}
        return target.scale, target.zero, constants
    constants = {"KIND": "kept", "TOP": 0, "STORED": STORED[target.dtype], "KEEP": 1, "OF": 1}
    if isinstance(target, Competing):
        constants |= {"KIND": "competing", "KEEP": target.pattern.keep, "OF": target.pattern.of}
        return target.scale.expand(-1, rows), target.chosen.view(torch.uint8), constants
    keep = target.keep.view(torch.uint8)
    return keep, keep, constants


def _launch(
    w: Tensor, upper: Tensor, errors: Tensor, data: tuple[Tensor, Tensor], constants: dict[str, Any]
) -> None:
    columns, rows = w.shape
    _settle[(triton.cdiv(rows, ROWS),)](
        w,
        upper.contiguous(),
        errors,
        *data,
        columns,
        rows,
        *data[0].stride(),
        *data[1].stride(),
        **constants,
        BC=triton.next_power_of_2(columns),
        BR=ROWS,
        num_warps=WARPS,
    )


@triton.jit
def _settle(
    w,
    upper,
    errors,
    first,
    second,
    columns,
    rows,
    first_column,
    first_row,
    second_column,
    second_row,
    KIND: tl.constexpr,
    TOP: tl.constexpr,
    STORED: tl.constexpr,
    KEEP: tl.constexpr,
    OF: tl.constexpr,
    BC: tl.constexpr,
    BR: tl.constexpr,
):
    """first and second are scale and zero of a grid, what is kept (twice), or the scale and place of a choice."""
    index, at = tl.arange(0, BC), tl.program_id(0) * BR + tl.arange(0, BR)
    here, inside = index < columns, at < rows
    first, second = first + at.to(tl.int64) * first_row, second + at.to(tl.int64) * second_row
    w, errors = w + at, errors + at
    held = here[:, None] & inside[None, :]
    tile = tl.load(w[None, :] + index[:, None] * rows, mask=held, other=0)  # [BC, BR]
    score, scale = tile, tile
    if KIND == "competing":
        scale = tl.load(first[None, :] + index[:, None] * first_column, mask=held, other=1)
    # Whatever a column needs from memory is asked for while the one before it is settled.
    pull, pivot = tl.load(upper + index, mask=here, other=0), tl.load(upper)
    a, b = tl.load(first, mask=inside, other=1), tl.load(second, mask=inside, other=0)
    for j in range(columns):
        after = tl.minimum(j + 1, columns - 1)
        next_pull = tl.load(upper + after * columns + index, mask=here, other=0)
        next_pivot = tl.load(upper + after * columns + after)
        next_a = tl.load(first + after * first_column, mask=inside, other=1)
        next_b = tl.load(second + after * second_column, mask=inside, other=0)
        own = index[:, None] == j
        column = tl.sum(tl.where(own, tile, 0), axis=0)  # [BR]
        if KIND == "grid":
            code = _even(tl.div_rn(column, a)) + b
            settled = (tl.minimum(tl.maximum(code, 0), TOP) - b) * a
        else:
            keep = a != 0
            if KIND == "competing":
                if j % OF == 0:
                    score = tl.div_rn(tile, scale)
                    score *= score
                keep = _ahead(score, own, index, j, OF) < KEEP
                tl.store(second + j * second_column, keep.to(tl.uint8), mask=inside)
            settled = column.to(STORED).to(tl.float32) * keep.to(tl.float32)
        error = tl.div_rn(column - settled, pivot)  # [BR]
        tl.store(w + j * rows, settled, mask=inside)
        tl.store(errors + j * rows, error, mask=inside)
        tile -= pull[:, None] * error[None, :]
        pull, pivot, a, b = next_pull, next_pivot, next_a, next_b


@triton.jit
def _even(x):
    """The nearest whole number, of two the even one; what is too large for that lies beyond every grid."""
    return (x + WHOLE) - WHOLE


@triton.jit
def _ahead(score, own, index, j, OF: tl.constexpr):
    """How many of the run of column j [BC, BR] come before it: by a higher score, or an equal one to its left."""
    mine = tl.sum(tl.where(own, score, 0), axis=0)[None, :]  # [1, BR]
    before = (score > mine) | ((score == mine) & (index < j)[:, None])
    return tl.sum((before & (index // OF == j // OF)[:, None]).to(tl.int32), axis=0)
