"""H = XᵀX for the methods that invert it: what is added to its diagonal, what if that fails, what was lost."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Protocol, TypeVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from methods.method import Audit
from methods.settings import Search
from methods.statistics import Statistics

RAISE, MOST = 10.0, 1.0

Damping = Annotated[
    float,
    Field(gt=0, le=MOST, description="added to the diagonal of H, as a share of its mean"),
    Search(low=1e-3, high=1e-1, log=True),
]


class HasDiagonal(Protocol):
    """A matrix, all of it or some rows at a time."""

    def diagonal(self) -> Tensor:
        """Its diagonal [n], a view: what is written there is in the matrix."""


Matrix = TypeVar("Matrix", bound=HasDiagonal)


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


def unit_gram(statistics: Statistics) -> Tensor:
    """H / mean(h) [in, in], which no rescaling of H changes; zeros when every input is dead.

    ValueError when the statistics have no gram matrix.
    """
    gram = gram_of(statistics)
    return gram / _positive(gram.diagonal().mean())


@dataclass(frozen=True, eq=False)
class UnitGram:
    """H / mean(h), some rows at a time, with inputs that are always zero after its own.

    All of it would be another matrix as large as H, and what is made of it needs that room.
    """

    gram: Tensor  # H [in, in], which stays as it is
    mean: Tensor  # []
    own_diagonal: Tensor  # [in + padding]

    @classmethod
    def of(cls, statistics: Statistics, padding: int) -> "UnitGram":
        """That of some statistics; ValueError when they have no gram matrix."""
        gram = gram_of(statistics)
        mean = _positive(gram.diagonal().mean())
        return cls(gram, mean, functional.pad(gram.diagonal() / mean, (0, padding)))

    def __len__(self) -> int:
        return len(self.own_diagonal)

    def diagonal(self) -> Tensor:
        """h [in + padding], in the units of `rows`; what is written there, they have."""
        return self.own_diagonal

    def rows(self, part: slice) -> Tensor:
        """A slice of the rows [rows, in + padding], a tensor of its own."""
        found = self.gram[part] / self.mean
        if padding := len(self) - len(self.gram):  # else it would be copied once more
            found = functional.pad(found, (0, padding, 0, len(self.own_diagonal[part]) - len(found)))
        found.diagonal(part.start).copy_(self.own_diagonal[part])
        return found


def gram_of(statistics: Statistics) -> Tensor:
    """H [in, in]. ValueError when the statistics have none."""
    if statistics.gram is None:
        raise ValueError(f"H is wanted, the statistics have {statistics.level.name} alone")
    return statistics.gram


def padded_gram(gram: Tensor, inputs: int) -> Tensor:
    """H [in, in] with so many more inputs that are always zero; H itself, and no copy, for none."""
    return functional.pad(gram, (0, inputs, 0, inputs)) if inputs else gram


def for_dead(statistics: Statistics) -> Tensor:
    """What SparseGPT's and GPTQ's code puts for the h_j of dead inputs: 1 in the units of H [in], 0 for others.

    All it does is enter mean(h), hence the damping, and that by next to nothing where H is a sum over many tokens.
    Where H is small it would not be: no dead input counts for more than the mean.
    """
    one = (1 / _positive(statistics.x_sq.mean())).clamp_max(1)
    return one * (statistics.x_sq == 0)


def factored(
    gram: Matrix, damping: float, factor: Callable[[Matrix], Tensor], extra: Tensor | None = None
) -> Factored:
    """factor(H + damping * mean(h) * I) for gram H [in, in]; ten times the damping after each failure.

    `extra` [in] is added to the diagonal before that. H is large, so damping goes into its own diagonal, which in
    the end is as it was; `factor` must leave H alone. A failure is a torch.linalg.LinAlgError or a result that is
    not finite. ValueError once `MOST` has failed. Dead inputs need nothing else: damping alone makes their pivots
    positive, and no other input feels it.
    """
    diagonal, raised = gram.diagonal(), 0
    before = diagonal.clone()
    start = before if extra is None else before + extra
    mean = _positive(start.mean())
    while True:
        try:
            diagonal.copy_(start + damping * mean)
            result = factor(gram)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            result = None
        finally:
            diagonal.copy_(before)
        if result is not None and _is_finite(result):
            return Factored(result, damping, raised)
        if damping >= MOST:
            raise ValueError(f"H is not positive definite, even with {damping:g} x mean(h) added to its diagonal")
        damping, raised = min(damping * RAISE, MOST), raised + 1


def _is_finite(matrix: Tensor) -> bool:
    """Whether all of a matrix is, without another as large: aminmax copies what is not laid out by rows."""
    by_rows = matrix if matrix.is_contiguous() else matrix.mT
    return bool(torch.stack(by_rows.aminmax()).isfinite().all())


def gram_error(weight: Tensor, decoded: Tensor, gram: Tensor) -> float | None:
    """tr(E H Eᵀ) / tr(W H Wᵀ) for E = W - Ŵ, all float32: the share of the output's energy that is lost.

    None when the output is zero whatever the tokens.
    """
    error, energy = float(output_energy(weight - decoded, gram)), float(output_energy(weight, gram))
    return error / energy if energy > 0 else None


def output_energy(rows: Tensor, gram: Tensor) -> Tensor:
    """tr(R H Rᵀ) [] for R [out, in]: the sum of squares of what R makes of the inputs behind H [in, in]."""
    return ((rows @ gram) * rows).sum()


def _positive(mean: Tensor) -> Tensor:
    """A mean of h [], or one when every input is dead."""
    return torch.where(mean > 0, mean, torch.ones_like(mean))
