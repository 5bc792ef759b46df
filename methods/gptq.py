"""GPTQ (arXiv:2210.17323): round one column after the other, and let later columns make up for the error."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Self

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from kernels.format import bits_of, side_dtype
from kernels.obs import OnGrid, solve_columns, upper_factor
from kernels.quantized import GroupedInt
from methods.grids import Bits, GridRule, Grids, GroupSize, Sym, grid_variant, grids_of
from methods.hessian import Damping, factored, for_dead, gram_error, unit_gram
from methods.method import SETTINGS, Compressed, StatisticsMode, require
from methods.normalizer import Normalize, normalize, normalize_variant, norms_of
from methods.settings import COLUMNS
from methods.statistics import Statistic, Statistics

BLOCK, DAMPING = 128, 0.01


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class GPTQ:
    """A row's grid is that of the weight as it came. A group's is found as its block begins, as published.

    So a group that starts inside a block of columns does not see that block's updates. Static groups have the
    grids of the weight as it came, less its dead inputs.
    """

    bits: Bits = 4
    group_size: GroupSize = 64
    act_order: Annotated[bool, Field(description="columns of large h first; groups must then be static")] = False
    static_groups: Annotated[bool, Field(description="the grids of groups fixed before any update")] = False
    sym: Sym = False
    damping: Damping = DAMPING
    block_size: Annotated[
        int, Field(ge=1, description="columns between updates of those right of them"), COLUMNS
    ] = BLOCK
    normalize: Normalize = "none"

    name: ClassVar[str] = "gptq"
    title: ClassVar[str] = "GPTQ"
    paper: ClassVar[str | None] = "arXiv:2210.17323"
    needs: ClassVar[Statistic] = Statistic.GRAM
    statistics_mode: ClassVar[StatisticsMode] = "sequential"
    revision: ClassVar[int] = 1

    @model_validator(mode="after")
    def _groups_can_be_stored(self) -> Self:
        if self.act_order and self.group_size and not self.static_groups:
            raise ValueError(
                "act_order scatters a group over the columns, which no packed format stores: "
                "set static_groups to true, or group_size to null"
            )
        if self.static_groups and not self.group_size:
            raise ValueError("static_groups fixes the grids of groups, and a row's grid is fixed: set group_size")
        return self

    @property
    def variant(self) -> str:
        switches = {
            " act-order": self.act_order,
            " static": self.static_groups,
            f" damping={self.damping:g}": self.damping != DAMPING,
            f" block={self.block_size}": self.block_size != BLOCK,
            normalize_variant(self.normalize): True,
        }
        grid = grid_variant(self.bits, self.group_size, self.sym)
        return grid + "".join(text for text, on in switches.items() if on)

    def unsupported(self, shape: tuple[int, int]) -> str | None:
        return None

    def stored_bits(self, shapes: Sequence[tuple[int, int]], width: int = 16) -> int:
        """Those of codes, grids and norms."""
        grids = self.bits, self.group_size, self.sym, norms_of(self.normalize)
        return sum(bits_of(GroupedInt.planned(shape, *grids), width) for shape in shapes)

    def compress(self, weight: Tensor, statistics: Statistics, rng: Generator) -> Compressed:
        """W [out, in] and H [in, in] to codes on grids; chance plays no part."""
        require(self, weight, statistics)
        dtype, gram = side_dtype(weight.dtype), unit_gram(statistics)
        target, r_out, r_in = normalize(weight.float(), dtype, self.normalize)
        alive = target.masked_fill(statistics.x_sq == 0, 0)
        start = alive if self.group_size else target
        grids = grids_of(start, GridRule(self.bits, self.sym, dtype), self.group_size)
        order = _order(gram, self.act_order)
        ordered = gram[order][:, order] if self.act_order else gram
        found = factored(ordered, self.damping, upper_factor, for_dead(statistics)[order])
        solved = torch.empty_like(alive)
        solved[:, order] = self._solve(alive[:, order], found.factor, grids, order)
        audit = found.audit
        del found, ordered  # [in, in] each: room for what follows
        quantized = grids.encode(solved, r_out, r_in)
        error = gram_error(weight.float(), quantized.dequantize(), gram)
        return Compressed(quantized, {**statistics.audit(), **audit, "gram_error": error})

    def _solve(self, weight: Tensor, upper: Tensor, grids: Grids, order: Tensor) -> Tensor:
        """Ŵ [out, in], columns in `order` [in]; grids that are not static are set as their groups begin."""
        group = self.group_size or len(order)
        fixed = self.group_size is None or self.static_groups
        at = order // group  # [in]: the group of each column

        def choose(w: Tensor, columns: slice) -> OnGrid:
            if not fixed:
                for first in range(-(-columns.start // group) * group, columns.stop, group):
                    grids.refit(first // group, w[first : first + group].T)
            return grids.columns(at[columns])

        return solve_columns(weight, upper, choose, self.block_size)


def _order(gram: Tensor, by_size: bool) -> Tensor:
    """The order [in] in which columns are rounded: as they come, or those of large h first."""
    h = gram.diagonal()
    return h.argsort(descending=True, stable=True) if by_size else torch.arange(len(h), device=h.device)
