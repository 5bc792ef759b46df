"""Factors of H = XᵀX for the methods that invert it: how much is added to the diagonal, and what if that fails."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from methods.method import Audit

RAISE, MOST = 10.0, 1.0

Damping = Annotated[float, Field(gt=0, le=MOST, description="added to the diagonal of H, as a share of its mean")]


@dataclass(frozen=True, eq=False)
class Factored:
    """A factor of the damped H, and how much damping it took."""

    factor: Tensor
    damping: float
    raised: int

    @property
    def audit(self) -> Audit:
        """The damping really used, as a share of mean(h), and how often it was raised to get there."""
        return {"damping": self.damping, "damping_raised": self.raised}


def factored(gram: Tensor, damping: float, factor: Callable[[Tensor], Tensor]) -> Factored:
    """factor(H + damping * mean(h) * I) for gram H [in, in]; ten times the damping after each failure.

    A failure is a torch.linalg.LinAlgError or a result that is not finite. ValueError once `MOST` has failed.
    """
    mean, raised = gram.diagonal().mean(), 0
    while True:
        damped = gram.clone()
        damped.diagonal().add_(damping * mean)
        try:
            result = factor(damped)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            result = None
        if result is not None and bool(result.isfinite().all()):
            return Factored(result, damping, raised)
        if damping >= MOST:
            raise ValueError(f"H is not positive definite, even with {damping:g} x mean(h) added to its diagonal")
        damping, raised = min(damping * RAISE, MOST), raised + 1
