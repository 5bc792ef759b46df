"""Optimal brain surgeon, a column at a time: what SparseGPT (arXiv:2301.00774) and GPTQ (arXiv:2210.17323) share.

Both settle one column of W [rows, n] after the other and let the columns to its right make up for its error, as
the upper Cholesky factor U of H⁻¹ = UᵀU says. What a column may become is data, known before its tile is begun;
a fused kernel for `_settle` needs no more than that.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.backend import fused
from kernels.pruning import Pattern, keep_n_of_m


@dataclass(frozen=True, eq=False)
class OnGrid:
    """Columns that go to the nearest scale * (code - zero), code in [0, top]; scale, zero [columns, rows]."""

    scale: Tensor
    zero: Tensor
    top: int

    def settle(self, j: int, column: Tensor) -> Tensor:
        """What column j becomes: [rows]."""
        scale, zero = self.scale[j], self.zero[j]
        return nearest_code(column, scale, zero, self.top).sub_(zero).mul_(scale)


@dataclass(frozen=True, eq=False)
class Kept:
    """Columns that lose what the boolean keep [columns, rows] lacks; the rest is rounded to `dtype`."""

    keep: Tensor
    dtype: torch.dtype

    def settle(self, j: int, column: Tensor) -> Tensor:
        """What column j becomes: [rows]."""
        return column.to(self.dtype).float() * self.keep[j]


@dataclass(frozen=True, eq=False)
class Competing:
    """Columns whose runs of `pattern.of` keep the highest (w / scale)² of a row; of equal ones the first stay.

    A run competes once it knows the errors of all columns before it. What stays is rounded to `dtype`.
    scale [columns, 1 or rows]; the boolean chosen [columns, rows] is written: what stayed.
    """

    pattern: Pattern
    scale: Tensor
    chosen: Tensor
    dtype: torch.dtype

    def compete(self, w: Tensor, run: slice) -> Kept:
        """What the columns w [of, rows] of a run may become."""
        score = (w / self.scale[run]).square()
        self.chosen[run] = keep_n_of_m(score.T, self.pattern).T
        return Kept(self.chosen[run], self.dtype)


Target = OnGrid | Kept | Competing
Choose = Callable[[Tensor, slice], Target]
"""Weights so far [n, rows] and the columns of a block -> what these columns may become."""


def nearest_code(values: Tensor, scale: Tensor, zero: Tensor, top: int) -> Tensor:
    """The codes, still in float32, of the points scale * (code - zero) nearest to the values."""
    return torch.div(values, scale).round_().add_(zero).clamp_(0, top)


def upper_factor(h: Tensor) -> Tensor:
    """U [n, n], upper triangular, with H⁻¹ = UᵀU. torch.linalg.LinAlgError where H is not positive definite.

    H read backwards is L Lᵀ; then L⁻¹ read backwards is U, and H⁻¹ itself is never formed.
    """
    lower = h.flip(0, 1).mT  # H is symmetric, and by columns a factor takes its room
    torch.linalg.cholesky(lower, out=lower)
    inverse = torch.eye(len(h), dtype=h.dtype, device=h.device).mT  # laid out by columns: it is solved in place
    torch.linalg.solve_triangular(lower, inverse, upper=False, out=inverse)
    del lower  # [n, n] each: room for the last copy
    return inverse.flip(0, 1)


def solve_columns(weight: Tensor, upper: Tensor, choose: Choose, block: int) -> Tensor:
    """Ŵ [rows, n] for weight [rows, n] and upper [n, n]: each column settled, its error moved to the right.

    `choose` is asked once a block of columns, when all before it are settled and their errors moved. Where columns
    compete, a block is whole runs.
    """
    w = weight.T.contiguous()  # [n, rows]: a column is contiguous
    for start in range(0, len(w), block):
        here, later = slice(start, min(start + block, len(w))), slice(start + block, None)
        errors = torch.empty_like(w[here])
        _settle(w[here], upper[here, here], choose(w, here), errors)
        w[later].addmm_(upper[here, later].T, errors, alpha=-1)
    return w.T


def _settle(w: Tensor, upper: Tensor, target: Target, errors: Tensor) -> None:
    """Settle the columns w [columns, rows] in place; errors [columns, rows] become (w - ŵ) / U_jj."""
    if fused(w):
        from kernels.gpu.obs import settle

        settle(w, upper, target, errors)
    elif isinstance(target, Competing):
        for first in range(0, len(w), target.pattern.of):
            run = slice(first, first + target.pattern.of)
            w[run].addmm_(upper[:first, run].T, errors[:first], alpha=-1)
            _one_by_one(w[run], upper[run, run], target.compete(w[run], run), errors[run])
    else:
        _one_by_one(w, upper, target, errors)


def _one_by_one(w: Tensor, upper: Tensor, target: OnGrid | Kept, errors: Tensor) -> None:
    for j, pivot in enumerate(upper.diagonal()):
        column = w[j].addmv_(errors[:j].T, upper[:j, j], alpha=-1)
        settled = target.settle(j, column)
        torch.sub(column, settled, out=errors[j]).div_(pivot)
        column.copy_(settled)
