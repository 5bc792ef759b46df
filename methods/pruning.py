"""What the pruning methods share: the sparsity setting, the score that falls last, the format of the outcome."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import AfterValidator, Field
from torch import Tensor

from kernels.format import bits_of
from kernels.pruning import Pattern, kth_smallest
from kernels.sparse import Masked, NMSparse
from methods.method import Compressed
from methods.settings import Search


def pattern_of(sparsity: float | str) -> Pattern | None:
    """The pattern that "N:M" names, or None for a fraction. ValueError for anything else."""
    if isinstance(sparsity, str):
        said = re.fullmatch("([1-9][0-9]?):([1-9][0-9]?)", sparsity)
        if said and int(said[1]) < int(said[2]) <= 64:
            return Pattern(int(said[1]), int(said[2]))
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
    Search(low=0.3, high=0.95, step=0.005),
]


def sparsity_variant(sparsity: float | str) -> str:
    """How a table prints the setting: "50%" or "2:4"."""
    return sparsity if isinstance(sparsity, str) else f"{100 * sparsity:g}%"


def threshold(score: Tensor, sparsity: float) -> Tensor:
    """The score [] at index int(numel * sparsity) of all scores in rising order; it falls itself."""
    return kth_smallest(score, up_to_rank(score.numel(), sparsity))


def up_to_rank(scores: int, sparsity: float) -> int:
    """How many of so many scores fall with that of index int(numel * sparsity), unless others tie with it."""
    return int(scores * sparsity) + 1


def pruned_bits(
    shapes: Sequence[tuple[int, int]], sparsity: float | str, dropped: Callable[[tuple[int, int]], int], width: int
) -> int:
    """Bits on disk of weights (out, in) in the format of the pattern, or less those `dropped` of a shape."""
    pattern = pattern_of(sparsity)
    if pattern:
        return sum(bits_of(NMSparse.planned(shape, pattern.keep, pattern.of), width) for shape in shapes)
    return sum(bits_of(Masked.planned(shape, math.prod(shape) - dropped(shape)), width) for shape in shapes)


def pruned(weight: Tensor, keep: Tensor, pattern: Pattern | None) -> Compressed:
    """The kept weights, untouched, in the format of the pattern; the audit has the sparsity reached."""
    kept = NMSparse.of_mask(weight, keep, pattern.keep, pattern.of) if pattern else Masked.of(weight, keep)
    return Compressed(kept, {"sparsity": 1 - kept.values.numel() / keep.numel()})
