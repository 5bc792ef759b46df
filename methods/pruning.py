"""What the pruning methods share: the sparsity setting, the score that falls last, the format of the outcome."""

from typing import Annotated

from pydantic import AfterValidator, Field
from torch import Tensor

from kernels.pruning import Pattern, kth_smallest
from kernels.sparse import Masked, NMSparse
from methods.method import Compressed


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


def threshold(score: Tensor, sparsity: float) -> Tensor:
    """The score [] at index int(numel * sparsity) of all scores in rising order; it falls itself."""
    return kth_smallest(score, int(score.numel() * sparsity) + 1)


def pruned(weight: Tensor, keep: Tensor, pattern: Pattern | None) -> Compressed:
    """The kept weights, untouched, in the format of the pattern; the audit has the sparsity reached."""
    kept = NMSparse.of_mask(weight, keep, pattern.keep, pattern.of) if pattern else Masked.of(weight, keep)
    return Compressed(kept, {"sparsity": 1 - kept.values.numel() / keep.numel()})
