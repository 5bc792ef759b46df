"""Optimal brain surgeon, a column at a time: what SparseGPT (arXiv:2301.00774) and GPTQ (arXiv:2210.17323) share.

Both settle one column of W [rows, n] after the other and let the columns to its right make up for its error, as
the upper Cholesky factor U of H⁻¹ = UᵀU says. What a column may become is data, known before its tile is begun;
a fused kernel for `_settle` needs no more than that.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


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


Choose = Callable[[Tensor, slice], OnGrid | Kept]
"""Weights so far [n, rows] and the columns of a tile -> what these columns may become."""


def nearest_code(values: Tensor, scale: Tensor, zero: Tensor, top: int) -> Tensor:
    """The codes, still in float32, of the points scale * (code - zero) nearest to the values."""
    return torch.div(values, scale).round_().add_(zero).clamp_(0, top)


def upper_factor(h: Tensor) -> Tensor:
    """U [n, n], upper triangular, with H⁻¹ = UᵀU. torch.linalg.LinAlgError where H is not positive definite.

    H read backwards is L Lᵀ; then L⁻¹ read backwards is U, and H⁻¹ itself is never formed.
    """
    lower = torch.linalg.cholesky(h.flip(0, 1))
    identity = torch.eye(len(h), dtype=h.dtype, device=h.device)
    inverse: Tensor = torch.linalg.solve_triangular(lower, identity, upper=False)
    return inverse.flip(0, 1)


def solve_columns(weight: Tensor, upper: Tensor, choose: Choose, block: int, tile: int | None = None) -> Tensor:
    """Ŵ [rows, n] for weight [rows, n] and upper [n, n]: each column settled, its error moved to the right.

    `choose` is asked once a tile of columns, by default a block. It finds the tile's own columns up to date, and
    those after them without the updates of the current block, which reach beyond it only when it is done.
    """
    w = weight.T.contiguous()  # [n, rows]: a column is contiguous
    for start in range(0, len(w), block):
        here, later = slice(start, min(start + block, len(w))), slice(start + block, None)
        errors = torch.empty_like(w[here])
        for first in range(start, here.stop, tile or block):
            columns = slice(first, min(first + (tile or block), here.stop))
            known = errors[: first - start]
            w[columns].addmm_(upper[start:first, columns].T, known, alpha=-1)
            _settle(w[columns], upper[columns, columns], choose(w, columns), errors[first - start :])
        w[later].addmm_(upper[here, later].T, errors, alpha=-1)
    return w.T


def _settle(w: Tensor, upper: Tensor, target: OnGrid | Kept, errors: Tensor) -> None:
    """Settle the columns w [columns, rows] in place; errors [columns, rows] become (w - ŵ) / U_jj."""
    for j, pivot in enumerate(upper.diagonal()):
        column = w[j].addmv_(errors[:j].T, upper[:j, j], alpha=-1)
        settled = target.settle(j, column)
        torch.sub(column, settled, out=errors[j]).div_(pivot)
        column.copy_(settled)
