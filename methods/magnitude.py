"""Magnitude pruning: drop the smallest |W| of the whole matrix, or of each N:M group."""

import math
from collections.abc import Sequence
from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from kernels.pruning import keep_n_of_m
from methods.method import SETTINGS, Compressed, StatisticsMode, require
from methods.pruning import Sparsity, pattern_of, pruned, pruned_bits, sparsity_variant, threshold, up_to_rank
from methods.statistics import Statistic, Statistics


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Magnitude:
    """All up to the |W| of rank int(numel * sparsity) fall, ties with it too; the audit says how many."""

    sparsity: Sparsity = 0.5

    name: ClassVar[str] = "magnitude"
    title: ClassVar[str] = "Magnitude"
    paper: ClassVar[str | None] = None
    needs: ClassVar[Statistic] = Statistic.NONE
    statistics_mode: ClassVar[StatisticsMode] = "none"
    revision: ClassVar[int] = 1

    @property
    def variant(self) -> str:
        return sparsity_variant(self.sparsity)

    def unsupported(self, shape: tuple[int, int]) -> str | None:
        pattern = pattern_of(self.sparsity)
        return pattern.unsupported(shape) if pattern else None

    def stored_bits(self, shapes: Sequence[tuple[int, int]], width: int = 16) -> int:
        """Those of the kept weights and where they are."""
        return pruned_bits(shapes, self.sparsity, self._dropped, width)

    def _dropped(self, shape: tuple[int, int]) -> int:
        return up_to_rank(math.prod(shape), float(self.sparsity))

    def compress(self, weight: Tensor, statistics: Statistics, rng: Generator) -> Compressed:
        """W [out, in] to its largest entries; neither statistics nor chance play a part."""
        require(self, weight, statistics)
        pattern, score = pattern_of(self.sparsity), weight.float().abs()
        keep = keep_n_of_m(score, pattern) if pattern else score > threshold(score, float(self.sparsity))
        return pruned(weight, keep, pattern)
