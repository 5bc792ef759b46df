"""HQQ ("Half-Quadratic Quantization of Large Machine Learning Models", Badri and Shaji 2023): RTN, zeros fitted.

The scales stay, and zero points become real numbers that make the sum of |e|^p over a group small, e = W - Ŵ.
Half-quadratic splitting does so without data: E = shrink(e, β), which is what p lets outliers be, then the zero
point for which e - E has mean zero, then the next β.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from kernels.format import Norms, bits_of, side_dtype
from kernels.packing import pack
from kernels.quantized import GroupedInt
from methods.grids import Bits, GridRule, GroupSize, grid_variant, grouped
from methods.method import SETTINGS, Audit, Compressed, StatisticsMode, require
from methods.settings import Search
from methods.statistics import Statistic, Statistics

P, BETA, KAPPA, ITERATIONS = 0.7, 10.0, 1.01, 20
"""As published; κ is the growth of β in an iteration."""


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class HQQ:
    """The published code stops once the mean |e| of a layer rises; here each group keeps its best zero point.

    It starts at RTN's grid, which contains 0 where the published one need not: no group ends with more than RTN's
    sum of |e|^p. β is in the units of the weight: at the published 10 and p = 0.7 only errors beyond 0.17 count as
    outliers, which is more than those of most models.
    """

    bits: Bits = 4
    group_size: GroupSize = 64
    p: Annotated[
        float, Field(gt=0, le=1, description="the power of an error that is summed"), Search(low=0.3, high=1.0)
    ] = P
    beta: Annotated[
        float,
        Field(gt=0, le=1e9, description="how closely outliers follow the errors, at first"),
        Search(low=1.0, high=1e4, log=True),
    ] = BETA
    iterations: Annotated[
        int, Field(ge=0, le=1000, description="updates of the zero points"), Search(low=5, high=40)
    ] = ITERATIONS

    name: ClassVar[str] = "hqq"
    title: ClassVar[str] = "HQQ"
    paper: ClassVar[str | None] = "Badri and Shaji 2023, mobiusml.github.io/hqq_blog"
    needs: ClassVar[Statistic] = Statistic.NONE
    statistics_mode: ClassVar[StatisticsMode] = "none"
    revision: ClassVar[int] = 1

    @property
    def variant(self) -> str:
        switches = {
            f" p={self.p:g}": self.p != P,
            f" beta={self.beta:g}": self.beta != BETA,
            f" iterations={self.iterations}": self.iterations != ITERATIONS,
        }
        grid = grid_variant(self.bits, self.group_size, sym=False)
        return grid + "".join(text for text, on in switches.items() if on)

    def unsupported(self, shape: tuple[int, int]) -> str | None:
        return None

    def stored_bits(self, shapes: Sequence[tuple[int, int]], width: int = 16) -> int:
        """Those of codes, scales and zero points, which take as much as scales."""
        grids = self.bits, self.group_size, False, Norms()
        return sum(bits_of(GroupedInt.planned(shape, *grids, real_zeros=True), width) for shape in shapes)

    def compress(self, weight: Tensor, statistics: Statistics, rng: Generator) -> Compressed:
        """W [out, in] to codes and real zero points; neither statistics nor chance play a part."""
        require(self, weight, statistics)
        rows, width = weight.shape
        rule = GridRule(self.bits, sym=False, dtype=side_dtype(weight.dtype))
        values = grouped(weight.float(), self.group_size)  # [out, groups, group]
        counted = grouped(torch.ones(1, width, device=weight.device), self.group_size)
        scale, start = rule.grid(values)
        zeros, audit = self._fitted(values, counted, scale, start)
        codes = _nearest(values, scale, zeros, rule.top).flatten(1)[:, :width]
        outcome = GroupedInt((rows, width), pack(codes, self.bits), zeros, scale, self.bits, self.group_size)
        return Compressed(outcome, audit)

    def _fitted(self, values: Tensor, counted: Tensor, scale: Tensor, start: Tensor) -> tuple[Tensor, Audit]:
        """The best zero points [out, groups] as they are stored, and what they are worth.

        values [out, groups, group], of which counted [1, groups, group] is one where there is an input, else zero.
        """
        step, beta, top = scale.float()[..., None], self.beta, 2**self.bits - 1
        zeros, losses = [start.to(scale.dtype)], []
        for _ in range(self.iterations + 1):
            codes = _nearest(values, scale, zeros[-1], top)
            error = values - step * (codes - zeros[-1].float()[..., None])
            losses.append((error.abs().pow(self.p) * counted).sum(-1))
            wanted = codes - (values - _shrunk(error, beta, self.p)) / step  # the zero point of each weight alone
            zeros.append(((wanted * counted).sum(-1) / counted.sum(-1)).to(scale.dtype))
            beta *= KAPPA
        found = torch.stack(losses)  # [iterations + 1, out, groups]
        best = found.argmin(0, keepdim=True)
        before, after = float(found[0].sum()), float(found.gather(0, best).sum())
        audit: Audit = {"error_over_rtn": after / before if before > 0 else None}
        return torch.stack(zeros).gather(0, best)[0], audit


def _nearest(values: Tensor, scale: Tensor, zero: Tensor, top: int) -> Tensor:
    """Codes in float32: unlike `nearest_code`, rounded with the zero point, which is not whole."""
    return (values / scale.float()[..., None]).add_(zero.float()[..., None]).round_().clamp_(0, top)


def _shrunk(error: Tensor, beta: float, p: float) -> Tensor:
    """The E that makes |E|^p + β/2 (E - e)² small, nearly: 0 for what is small, else nearer to 0 than e."""
    size = error.abs()
    return error.sign() * (size - size.pow(p - 1) / beta).clamp_min_(0)
