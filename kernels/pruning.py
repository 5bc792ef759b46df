"""The score of pruning methods, and choice by score: the largest of a row, N of every M, the value of a rank.

Ties are broken by position, so a choice is the same on every device.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.backend import fused


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


def weighted_squares(weight: Tensor, importance: Tensor, r_out: Tensor | None, r_in: Tensor | None) -> Tensor:
    """(W / r_in / r_out)² * importance, float32 [out, in]: W in its storage dtype, the others [out] or [in].

    The norms r_out and r_in are None where W is not divided by them.
    """
    if fused(weight):
        from kernels.gpu.pruning import weighted_squares

        return weighted_squares(weight, importance, r_out, r_in)
    divided = weight.float()
    if r_in is not None:
        divided = divided / r_in.float()
    if r_out is not None:
        divided = divided / r_out.float()[:, None]
    return divided.square() * importance


def keep_largest(score: Tensor, drop: int) -> Tensor:
    """Mask [rows, n] that drops the `drop` smallest scores of each row; of equal ones the first fall."""
    if drop == 0:
        return torch.ones_like(score, dtype=torch.bool)
    if _fused(score):
        from kernels.gpu.pruning import keep_largest

        return keep_largest(score, drop)
    threshold = score.kthvalue(drop, dim=1, keepdim=True).values  # [rows, 1]
    below, ties = score < threshold, score == threshold
    room = drop - below.sum(1, keepdim=True)
    return ~(below | (ties & (ties.cumsum(1, dtype=torch.int32) <= room)))


def keep_n_of_m(score: Tensor, pattern: Pattern) -> Tensor:
    """Mask [out, in] that keeps the highest scores of each group; of equal ones the first stay."""
    if _fused(score):
        from kernels.gpu.pruning import keep_n_of_m

        return keep_n_of_m(score, pattern.keep, pattern.of)
    groups = score.reshape(-1, pattern.of)
    order = groups.argsort(dim=1, descending=True, stable=True)
    mask = torch.zeros_like(groups, dtype=torch.bool)
    return mask.scatter_(1, order[:, : pattern.keep], True).view(score.shape)


def kth_smallest(values: Tensor, k: int) -> Tensor:
    """The value [] that comes k-th, from 1, of all values in rising order."""
    if _fused(values):
        from kernels.gpu.pruning import kth_smallest

        return kth_smallest(values, k)
    return torch.kthvalue(values.flatten(), k).values


def _fused(score: Tensor) -> bool:
    """Whether a kernel takes these scores: they rank the bits of a float32."""
    return score.dtype == torch.float32 and fused(score)
