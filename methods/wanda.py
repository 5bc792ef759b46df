"""Wanda (arXiv:2306.11695): in each output row, drop the smallest |W_ij| * ||X_j||.

With `normalize`, W_ij is that of the normalised weight; what is kept is the weight as it came. Needs diag(H)
alone and updates no weight. Scores are compared squared, which keeps their order.
"""

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
class Wanda:
    """Drops int(in * sparsity) weights of each row, or all but N of each M consecutive inputs."""

    sparsity: Sparsity = 0.5
    normalize: Normalize = "none"

    name: ClassVar[str] = "wanda"
    title: ClassVar[str] = "Wanda"
    paper: ClassVar[str | None] = "arXiv:2306.11695"
    needs: ClassVar[Statistic] = Statistic.DIAGONAL
    statistics_mode: ClassVar[StatisticsMode] = "sequential"
    revision: ClassVar[int] = 1

    @property
    def variant(self) -> str:
        return sparsity_variant(self.sparsity) + normalize_variant(self.normalize)

    def unsupported(self, shape: tuple[int, int]) -> str | None:
        pattern = pattern_of(self.sparsity)
        return pattern.unsupported(shape) if pattern else None

    def stored_bits(self, shapes: Sequence[tuple[int, int]], width: int = 16) -> int:
        """Those of the kept weights and where they are."""
        return pruned_bits(shapes, self.sparsity, lambda shape: shape[0] * self._dropped(shape[1]), width)

    def _dropped(self, inputs: int) -> int:
        """Weights that a row of so many inputs loses."""
        return int(inputs * float(self.sparsity))

    def compress(self, weight: Tensor, statistics: Statistics, rng: Generator) -> Compressed:
        """W [out, in] and diag(H) [in] to the weights that matter most in their row."""
        require(self, weight, statistics)
        pattern = pattern_of(self.sparsity)
        score = weighted_squares(weight, statistics.importance(), *norms(weight, how=self.normalize))  # [out, in]
        if pattern:
            keep = keep_n_of_m(score, pattern)
        else:
            keep = keep_largest(score, self._dropped(weight.shape[1]))
        outcome = pruned(weight, keep, pattern)
        return Compressed(outcome.format, {**outcome.audit, **statistics.audit()})
