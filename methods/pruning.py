"""What the pruning methods share: the sparsity setting, the choice by score, and the format of the outcome.

Ties are broken by position, so a choice is the same on every device.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from kernels.sparse import Masked, NMSparse
from methods.method import Compressed


@dataclass(frozen=True)
class Pattern:
    """Semi-structured sparsity: `keep` weights stay of each `of` consecutive inputs."""

    keep: int
    of: int

    def __str__(self) -> str:
        return f"{self.keep}:{self.of}"

    def unsupported(self, shape: tuple[int, int]) -> str | None:
        """Why the pattern cannot be laid over a weight (out, in), or None."""
        if shape[1] % self.of:
            return f"{self} needs inputs in multiples of {self.of}, this weight has {shape[1]}"
        return None


def pattern_of(sparsity: float | str) -> Pattern | None:
    """The pattern that "N:M" names, or None for a fraction. ValueError for anything else."""
    if isinstance(sparsity, str):
        keep, _, of = sparsity.partition(":")
        if keep.isdecimal() and of.isdecimal() and 1 <= int(keep) < int(of) <= 64:
            return Pattern(int(keep), int(of))
    elif 0 < sparsity < 1:
        return None
    raise ValueError(
        f"sparsity {sparsity!r} is neither a fraction between 0 and 1 nor a quoted pattern "
        '"N:M" (N kept of M consecutive inputs, N < M <= 64) such as "2:4"'
    )


def _known(sparsity: float | str) -> float | str:
    pattern_of(sparsity)
    return sparsity


Sparsity = Annotated[
    float | str,
    AfterValidator(_known),
    Field(description='fraction of weights removed, between 0 and 1, or "N:M": N kept of M inputs'),
]


def sparsity_variant(sparsity: float | str) -> str:
    """How a table prints the setting: "50%" or "2:4"."""
    return sparsity if isinstance(sparsity, str) else f"{100 * sparsity:g}%"


def keep_largest(score: Tensor, drop: int) -> Tensor:
    """Mask [rows, n] that drops the `drop` smallest scores of each row; of equal ones the first fall."""
    if drop == 0:
        return torch.ones_like(score, dtype=torch.bool)
    threshold = score.kthvalue(drop, dim=1, keepdim=True).values  # [rows, 1]
    below, ties = score < threshold, score == threshold
    room = drop - below.sum(1, keepdim=True)
    return ~(below | (ties & (ties.cumsum(1, dtype=torch.int32) <= room)))


def threshold(score: Tensor, sparsity: float) -> Tensor:
    """The score [] at index int(numel * sparsity) of all scores in rising order; it falls itself."""
    return torch.kthvalue(score.flatten(), int(score.numel() * sparsity) + 1).values


def keep_n_of_m(score: Tensor, pattern: Pattern) -> Tensor:
    """Mask [out, in] that keeps the highest scores of each group; of equal ones the first stay."""
    groups = score.reshape(-1, pattern.of)
    order = groups.argsort(dim=1, descending=True, stable=True)
    mask = torch.zeros_like(groups, dtype=torch.bool)
    return mask.scatter_(1, order[:, : pattern.keep], True).view(score.shape)


def pruned(weight: Tensor, keep: Tensor, pattern: Pattern | None) -> Compressed:
    """The kept weights, untouched, in the format of the pattern; the audit has the sparsity reached."""
    kept = NMSparse.of_mask(weight, keep, pattern.keep, pattern.of) if pattern else Masked.of(weight, keep)
    return Compressed(kept, {"sparsity": 1 - int(keep.sum()) / keep.numel()})
