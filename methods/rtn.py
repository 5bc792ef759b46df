"""Round to nearest: GPTQ's grid (arXiv:2210.17323) without its compensation and its data."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from kernels.format import bits_of, side_dtype
from kernels.quantized import GroupedInt
from methods.grids import Bits, GridRule, GroupSize, Sym, grid_variant, grids_of
from methods.method import SETTINGS, Compressed, StatisticsMode, require
from methods.normalizer import Normalize, normalize, normalize_variant, norms_of
from methods.statistics import Statistic, Statistics


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class RTN:
    """Each weight to the nearest point of its group's grid."""

    bits: Bits = 4
    group_size: GroupSize = 64
    sym: Sym = False
    normalize: Normalize = "none"

    name: ClassVar[str] = "rtn"
    title: ClassVar[str] = "RTN"
    paper: ClassVar[str | None] = None
    needs: ClassVar[Statistic] = Statistic.NONE
    statistics_mode: ClassVar[StatisticsMode] = "none"
    revision: ClassVar[int] = 1

    @property
    def variant(self) -> str:
        return grid_variant(self.bits, self.group_size, self.sym) + normalize_variant(self.normalize)

    def unsupported(self, shape: tuple[int, int]) -> str | None:
        return None

    def stored_bits(self, shapes: Sequence[tuple[int, int]], width: int = 16) -> int:
        """Those of codes, grids and norms."""
        grids = self.bits, self.group_size, self.sym, norms_of(self.normalize)
        return sum(bits_of(GroupedInt.planned(shape, *grids), width) for shape in shapes)

    def compress(self, weight: Tensor, statistics: Statistics, rng: Generator) -> Compressed:
        """W [out, in] to codes; neither statistics nor chance play a part."""
        require(self, weight, statistics)
        dtype = side_dtype(weight.dtype)
        target, r_out, r_in = normalize(weight.float(), dtype, self.normalize)
        grids = grids_of(target, GridRule(self.bits, self.sym, dtype), self.group_size)
        return Compressed(grids.encode(target, r_out, r_in), {})
