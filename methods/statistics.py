"""What a method may know of a layer's inputs X [tokens, in]: sums over tokens, in float32.

H = XᵀX is plain: no factor of two, no division by tokens. Methods divide by what they need, so that any
positive rescaling of H leaves their result unchanged.
"""

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor


class Statistic(IntEnum):
    """How much a method needs; each level contains those below it."""

    NONE = 0
    DIAGONAL = 1
    GRAM = 2


@dataclass(frozen=True, eq=False)
class Statistics:
    """Sums over the tokens that reached one linear layer, all float32.

    x_sq [in] is diag(XᵀX), mean [in] the mean input, gram [in, in] is XᵀX, None where nobody asked.
    """

    x_sq: Tensor
    mean: Tensor
    tokens: int
    gram: Tensor | None = None

    @classmethod
    def none(cls, width: int, device: torch.device | str = "cpu") -> "Statistics":
        """Statistics of no token at all, for methods that need none."""
        return cls(torch.zeros(width, device=device), torch.zeros(width, device=device), tokens=0)

    @property
    def level(self) -> Statistic:
        """The most demanding need that these statistics meet."""
        if self.tokens == 0:
            return Statistic.NONE
        return Statistic.DIAGONAL if self.gram is None else Statistic.GRAM

    def importance(self) -> Tensor:
        """x_sq over its mean [in], which no rescaling of H changes; all ones when every input is dead."""
        mean = self.x_sq.mean()
        return torch.where(mean > 0, self.x_sq / mean, torch.ones_like(self.x_sq))

    def audit(self) -> dict[str, int | float | None]:
        """Dead inputs (never anything but zero), and mean(h) / median(h): how far one input dominates."""
        median = float(self.x_sq.median())
        ratio = float(self.x_sq.mean()) / median if median > 0 else None
        return {"dead_inputs": int((self.x_sq == 0).sum()), "h_mean_over_median": ratio}


class Accumulator:
    """Sums over tokens, batch by batch. On CUDA the caller must have switched TF32 off: it has 10 bits."""

    def __init__(self, needs: Statistic, width: int, device: torch.device | str = "cpu") -> None:
        self._needs = needs
        self._sum = torch.zeros(width, device=device)
        self._squares = torch.zeros(width, device=device)
        self._gram = torch.zeros(width, width, device=device) if needs is Statistic.GRAM else None
        self._tokens = 0

    def add(self, x: Tensor) -> None:
        """Take in inputs [..., in] of any floating dtype. ValueError when the width differs."""
        width = len(self._sum)
        if x.shape[-1] != width:
            raise ValueError(f"inputs of width {x.shape[-1]} do not fit statistics of width {width}")
        if self._needs is Statistic.NONE:
            return
        rows = x.detach().reshape(-1, width).float()
        self._tokens += len(rows)
        self._sum += rows.sum(0)
        if self._gram is None:
            self._squares += rows.square().sum(0)
        else:
            self._gram.addmm_(rows.T, rows)

    def finish(self) -> Statistics:
        """The statistics so far. ValueError when an input was not finite, or its square overflowed."""
        squares = self._squares if self._gram is None else self._gram.diagonal().clone()
        bad = int((~(squares.isfinite() & self._sum.isfinite())).sum())
        if bad:
            raise ValueError(f"{bad} of {len(squares)} inputs have sums that are NaN or infinite")
        return Statistics(squares, self._sum / max(self._tokens, 1), self._tokens, self._gram)
