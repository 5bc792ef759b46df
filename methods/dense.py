"""No compression: the reference that every table needs, and the bits it costs."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from kernels.format import bits_of
from kernels.sparse import Dense
from methods.method import SETTINGS, Compressed, StatisticsMode, require
from methods.statistics import Statistic, Statistics


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class DenseMethod:
    """The weight as it came."""

    name: ClassVar[str] = "dense"
    title: ClassVar[str] = "Dense"
    paper: ClassVar[str | None] = None
    needs: ClassVar[Statistic] = Statistic.NONE
    statistics_mode: ClassVar[StatisticsMode] = "none"
    revision: ClassVar[int] = 1

    @property
    def variant(self) -> str:
        return ""

    def unsupported(self, shape: tuple[int, int]) -> str | None:
        return None

    def stored_bits(self, shapes: Sequence[tuple[int, int]], width: int = 16) -> int:
        """Those of the weights."""
        return sum(bits_of(Dense.planned(shape), width) for shape in shapes)

    def compress(self, weight: Tensor, statistics: Statistics, rng: Generator) -> Compressed:
        """W [out, in] to itself."""
        require(self, weight, statistics)
        return Compressed(Dense((weight.shape[0], weight.shape[1]), weight.clone()), {})
