"""NoWag-P (arXiv:2504.14569): drop the smallest W_bar_ij² * h_j, where W_bar is W normalised.

The whole matrix competes, since rows and columns are on one scale. Kept weights are those that came in.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from kernels.pruning import keep_largest, keep_n_of_m, weighted_squares
from methods.method import SETTINGS, Compressed, StatisticsMode, require
from methods.normalizer import Normalize, normalize_variant, norms
from methods.pruning import Sparsity, pattern_of, pruned, pruned_bits, sparsity_variant
from methods.statistics import Statistic, Statistics


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class NoWagP:
    """Drops int(numel * sparsity) weights of the matrix, or all but N of each M consecutive inputs."""

    sparsity: Sparsity = 0.5
    normalize: Normalize = "nowag"

    name: ClassVar[str] = "nowag-p"
    title: ClassVar[str] = "NoWag-P"
    paper: ClassVar[str | None] = "arXiv:2504.14569"
    needs: ClassVar[Statistic] = Statistic.DIAGONAL
    statistics_mode: ClassVar[StatisticsMode] = "dense"
    revision: ClassVar[int] = 1

    @property
    def variant(self) -> str:
        return sparsity_variant(self.sparsity) + normalize_variant(self.normalize, "nowag")

    def unsupported(self, shape: tuple[int, int]) -> str | None:
        pattern = pattern_of(self.sparsity)
        return pattern.unsupported(shape) if pattern else None

    def stored_bits(self, shapes: Sequence[tuple[int, int]], width: int = 16) -> int:
        """Those of the kept weights and where they are."""
        return pruned_bits(shapes, self.sparsity, lambda shape: self._dropped(math.prod(shape)), width)

    def _dropped(self, weights: int) -> int:
        """Weights that a matrix of so many loses."""
        return int(weights * float(self.sparsity))

    def compress(self, weight: Tensor, statistics: Statistics, rng: Generator) -> Compressed:
        """W [out, in] and diag(H) [in] to the weights that matter most in the matrix."""
        require(self, weight, statistics)
        pattern = pattern_of(self.sparsity)
        score = weighted_squares(weight, statistics.importance(), *norms(weight, how=self.normalize))  # [out, in]
        if pattern:
            keep = keep_n_of_m(score, pattern)
        else:
            keep = keep_largest(score.view(1, -1), self._dropped(weight.numel())).view(score.shape)
        outcome = pruned(weight, keep, pattern)
        return Compressed(outcome.format, {**outcome.audit, **statistics.audit()})
