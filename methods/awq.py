"""AWQ (arXiv:2306.00978): inputs that are large have their weights scaled up before all are rounded on a grid.

W diag(s) is rounded, and divided by s again: s_j = (mean |x_j|)^α, for the α of a few whose rounded weights change
the output least. Then the grid of each group is narrowed as far as its part of the output gains by it.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor
from torch.nn import functional

from kernels.format import Norms, bits_of, side_dtype, stored
from kernels.quantized import GroupedInt
from methods.grids import Bits, GridRule, Grids, GroupSize, Sym, grid_variant, grids_of, grouped
from methods.hessian import gram_error, output_energy, unit_gram
from methods.method import SETTINGS, Audit, Compressed, StatisticsMode, require
from methods.settings import Search
from methods.statistics import Statistic, Statistics

ALPHAS, SMALLEST = 20, 1e-4
"""Values of α, as published, and the least size of an input, as a share of the mean size."""

CLIPS = tuple(1 - step / 20 for step in range(10))
"""What remains of a group's largest |w|, as published."""


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class AWQ:
    """The published code folds s into the layer before, and scales no linear where that cannot be done.

    Here a linear is compressed without the layers around it: 1/s is stored, once for the linears of one input.
    Their loss is the error of their own outputs together, the published one that of the attention or MLP they are
    in. It clips all but queries and keys; a method does not know which those are, and treats all alike.
    """

    bits: Bits = 4
    group_size: GroupSize = 64
    sym: Sym = False
    alphas: Annotated[
        int, Field(ge=1, le=1000, description="values of α tried, from 0 to just below 1"), Search(low=5, high=40)
    ] = ALPHAS
    clip: Annotated[bool, Field(description="narrow the grid of a group where its output gains by it")] = True
    share: Annotated[
        Literal["linear", "input"], Field(description="linears with one s: each its own, or those of one input")
    ] = "input"

    name: ClassVar[str] = "awq"
    title: ClassVar[str] = "AWQ"
    paper: ClassVar[str | None] = "arXiv:2306.00978"
    needs: ClassVar[Statistic] = Statistic.GRAM
    statistics_mode: ClassVar[StatisticsMode] = "dense"
    revision: ClassVar[int] = 1

    @property
    def variant(self) -> str:
        switches = {
            f" alphas={self.alphas}": self.alphas != ALPHAS,
            " no-clip": not self.clip,
            f" share={self.share}": self.share != "input",
        }
        grid = grid_variant(self.bits, self.group_size, self.sym)
        return grid + "".join(text for text, on in switches.items() if on)

    def unsupported(self, shape: tuple[int, int]) -> str | None:
        return None

    def stored_bits(self, shapes: Sequence[tuple[int, int]], width: int = 16) -> int:
        """Those of codes, grids and one 1/s, or of one for each weight where none is shared."""
        grids = self.bits, self.group_size, self.sym, Norms(columns=True)
        spared = 0 if self.share == "linear" else len(shapes) - 1  # times 1/s
        bits = sum(bits_of(GroupedInt.planned(shape, *grids), width) for shape in shapes)
        return bits - spared * shapes[0][1] * width

    def compress(self, weight: Tensor, statistics: Statistics, rng: Generator) -> Compressed:
        """W [out, in], H [in, in] and mean |x| [in] to codes on grids; chance plays no part."""
        return self.compress_together([weight], [statistics], rng)[0]

    def compress_together(
        self, weights: Sequence[Tensor], statistics: Sequence[Statistics], rng: Generator
    ) -> list[Compressed]:
        """The same for linears of one input, hence one H. Their 1/s is one tensor in all formats."""
        for each in zip(weights, statistics, strict=True):
            require(self, *each)
        originals, gram = [weight.float() for weight in weights], unit_gram(statistics[0])
        rule = GridRule(self.bits, self.sym, side_dtype(weights[0].dtype))
        alpha, r_in = self._searched(originals, gram, _sizes(statistics[0]), rule)
        audit: Audit = {**statistics[0].audit(), "alpha": alpha, "shared_by": len(weights)}
        return [self._compressed(weight, gram, r_in, rule, audit) for weight in originals]

    def _compressed(self, weight: Tensor, gram: Tensor, r_in: Tensor, rule: GridRule, audit: Audit) -> Compressed:
        """W [out, in] in float32 under the 1/s [in] that was found."""
        norms = r_in.float()
        target = weight / norms
        if self.clip:
            grids = self._clipped(target, gram * norms[:, None] * norms, rule)
        else:
            grids = grids_of(target, rule, self.group_size)
        outcome = grids.encode(target, None, r_in)
        return Compressed(outcome, {**audit, "gram_error": gram_error(weight, outcome.dequantize(), gram)})

    def _searched(
        self, weights: Sequence[Tensor], gram: Tensor, sizes: Tensor, rule: GridRule
    ) -> tuple[float, Tensor]:
        """The α of the least tr(E H Eᵀ), summed over weights [out, in], and its 1/s [in] as stored."""
        tried: list[tuple[float, float, Tensor]] = []
        for alpha in (step / self.alphas for step in range(self.alphas)):
            s = sizes**alpha
            r_in = stored((s.max() * s.min()).sqrt() / s, rule.dtype, "input scales")
            errors = (weight - self._rounded(weight / r_in.float(), rule) * r_in.float() for weight in weights)
            tried.append((sum(float(output_energy(error, gram)) for error in errors), alpha, r_in))
        _, alpha, r_in = min(tried, key=lambda each: each[0])
        return alpha, r_in

    def _rounded(self, target: Tensor, rule: GridRule) -> Tensor:
        """The points [out, in] nearest to the target on the grids of its groups."""
        points = grids_of(target, rule, self.group_size).points(grouped(target, self.group_size))
        return points.flatten(1)[:, : target.shape[1]]

    def _clipped(self, target: Tensor, gram: Tensor, rule: GridRule) -> Grids:
        """The grids [out, groups] of the least e H_gg eᵀ of each group g, for H [in, in] of the inputs x / s.

        What lies beyond a grid goes to its end.
        """
        groups = grouped(target, self.group_size)  # [out, groups, group]
        blocks, limit = _blocks(gram, groups.shape[2]), groups.abs().amax(-1, keepdim=True)
        tried = [rule.grid(groups.clamp(-clip * limit, clip * limit)) for clip in CLIPS]
        losses: list[Tensor] = []
        for scale, zeros in tried:
            error = (groups - Grids(rule, scale, zeros, self.group_size).points(groups)).transpose(0, 1)
            losses.append(((error @ blocks) * error).sum(-1).T)
        best = torch.stack(losses).argmin(0, keepdim=True)
        scale, zeros = (torch.stack(each).gather(0, best)[0] for each in zip(*tried, strict=True))
        return Grids(rule, scale, zeros, self.group_size)


def _sizes(statistics: Statistics) -> Tensor:
    """mean |x| [in] over its own mean, which no rescaling of x changes; ones when every input is dead.

    ValueError when the statistics do not have it.
    """
    if statistics.x_abs is None:
        raise ValueError(f"{AWQ.name} needs the mean |x| of each input, which these statistics are without")
    mean = statistics.x_abs.mean()
    sizes = torch.where(mean > 0, statistics.x_abs / mean, torch.ones_like(statistics.x_abs))
    return sizes.clamp_min(SMALLEST)


def _blocks(gram: Tensor, group: int) -> Tensor:
    """The blocks [groups, group, group] of H [in, in] on its diagonal; zeros fill the last."""
    padding = -len(gram) % group
    padded = functional.pad(gram, (0, padding, 0, padding))
    count = len(padded) // group
    return padded.view(count, group, count, group).diagonal(dim1=0, dim2=2).permute(2, 0, 1).contiguous()
