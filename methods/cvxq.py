"""CVXQ (arXiv:2409.02026), the later Radio (arXiv:2505.03031): a depth of 0 to 8 bits for each group of weights.

A group is one input of some rows, which are alike in variance times sensitivity. Its error costs about
E[(W - median)²] g 2^(-2 depth), g the mean squared gradient of the model's output, so that a bit is worth the same
everywhere where depth = log2(E[(W - median)²] g) / 2 - log2(λ) / 2. One λ serves all linears and is bisected until
their stored bits meet the target. Gradients are those of the dense model, taken once; both papers take them again
as depths change.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from functools import partial
from typing import Annotated, ClassVar, Self

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from kernels.companded import MAX_DEPTH, Companded, compand, expand
from kernels.format import bits_of, side_dtype, stored
from methods.method import SETTINGS, Audit, Compressed, Demand, StatisticsMode, gradient_of, require
from methods.settings import Search
from methods.statistics import Statistic, Statistics
from methods.target import Target

LAPLACE = 3 / 2**0.5
"""The compander's scale in units of the weights' root mean square: it follows the cube root of their density."""

SHIFTS = [step / 8 for step in range(16, -17, -1)]
"""Powers of two that the scale is tried at; of equal errors the widest."""

BIASES = [step / 8 for step in range(-16, 17)]
"""Where the centre is tried, in units of the scale without its factor LAPLACE."""

MULTIPLIERS = -512.0, 512.0
"""log2 λ at which every group of any energy is at 8 bits, and at none: float32 ends at 2^-149 and 2^128."""

HALVINGS = 48


@plain_dataclass(frozen=True, eq=False)
class Groups:
    """Groups of a weight (out, in): log2 of E[(W - median)²] g [row groups, in], and the row group of each row.

    Both on the CPU, so that depths come out the same wherever they are asked for. `width` is that of side
    parameters in bits, `beside` what is stored beside the format.
    """

    log_energy: Tensor
    rows: Tensor
    width: int
    beside: int

    @property
    def shape(self) -> tuple[int, int]:
        """That of the weight: (out, in)."""
        return len(self.rows), self.log_energy.shape[1]

    @property
    def weights(self) -> int:
        """How many there are."""
        return len(self.rows) * self.log_energy.shape[1]

    def depths(self, multiplier: float) -> Tensor:
        """Bits [row groups, in] of a code of each group, where a bit is worth 2^multiplier."""
        return ((self.log_energy.double() - multiplier) / 2).clamp(0, MAX_DEPTH).round().int()

    def bits(self, multiplier: float) -> int:
        """Bits on disk with these depths."""
        depths, sizes = self.depths(multiplier), self.rows.bincount().double()
        codes = sizes[:, None].expand(depths.shape).flatten()
        counts = depths.flatten().bincount(codes, MAX_DEPTH + 1).long().tolist()[1:]
        layout = Companded.planned(self.shape, len(depths), counts, int((depths > 0).sum()))
        return bits_of(layout, self.width) + self.beside


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class CVXQ:
    """Bits where they save most error of the output, until the linears have the size that is asked for."""

    target: Annotated[Target, Field(description="stored size, all included: bits_per_weight or bytes")] = Target(
        bits_per_weight=3.0
    )
    group_rows: Annotated[
        int,
        Field(ge=1, le=65536, description="rows at most that share a depth, by input"),
        Search(choices=(128, 256, 512, 1024)),
    ] = 512
    multiplier: Annotated[
        float | None, Field(allow_inf_nan=False, description="log2 λ; none: as the target asks")
    ] = None
    bias_correction: Annotated[bool, Field(description="keep the mean output, by a bias of 16 bits for a row")] = (
        True
    )

    name: ClassVar[str] = "cvxq"
    title: ClassVar[str] = "CVXQ"
    paper: ClassVar[str | None] = "arXiv:2409.02026"
    needs: ClassVar[Statistic] = Statistic.DIAGONAL
    needs_gradient: ClassVar[bool] = True
    statistics_mode: ClassVar[StatisticsMode] = "dense"
    revision: ClassVar[int] = 1

    @model_validator(mode="after")
    def _within_reach(self) -> Self:
        asked = self.target.bits_per_weight
        if asked is not None and asked > MAX_DEPTH:
            raise ValueError(f"target.bits_per_weight is {asked:g}, but depths end at {MAX_DEPTH}; lower it")
        return self

    @property
    def variant(self) -> str:
        size = str(self.target) if self.multiplier is None else f"log2 λ={self.multiplier:g}"
        return f"{size} g{self.group_rows}" + ("" if self.bias_correction else " no bias")

    def unsupported(self, shape: tuple[int, int]) -> str | None:
        return None

    def stored_bits(self, shapes: Sequence[tuple[int, int]], width: int = 16) -> int:
        """What the target asks for, biases included; what is stored stays below by less than one group's step.

        With a `multiplier` of one's own only the work tells.
        """
        return self.target.bits(sum(out * inputs for out, inputs in shapes))

    def demand(self, weight: Tensor, statistics: Statistics) -> Groups:
        """The groups of W [out, in] in its storage dtype, and so its size under any λ; `grad_sq` is enough."""
        target, grad_sq = weight.float(), gradient_of(self, weight, statistics)
        rows = row_groups(target, grad_sq.mean(1), self.group_rows)
        parts = [grad_sq[some].mean(0) for some in members(rows)]
        width = 8 * side_dtype(weight.dtype).itemsize
        return Groups(
            log_energy=log_energies(target, rows, torch.stack(parts)).cpu(),
            rows=rows.cpu(),
            width=width,
            beside=width * len(weight) if self.bias_correction else 0,
        )

    def settled(self, demands: Sequence[Demand]) -> Self:
        """With the λ by which these weights together have the size of the target, or with the `multiplier` it has.

        What is left of it is less than a group's next bit, or all groups are at 8 bits. ValueError when it is less
        than means and depths take by themselves.
        """
        return self if self.multiplier is not None else replace(self, multiplier=self._met(demands))

    def _met(self, demands: Sequence[Demand]) -> float:
        budget = self.target.bits(sum(each.weights for each in demands))
        low, high = MULTIPLIERS
        if (least := _bits(demands, high)) > budget:
            raise ValueError(
                f"{self.name}.target is {self.target}, {budget:,} bits, but means and depths take {least:,}; "
                "raise it or group_rows"
            )
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            if _bits(demands, middle) > budget:
                low = middle
            else:
                high = middle
        return high

    def compress(self, weight: Tensor, statistics: Statistics, rng: Generator) -> Compressed:
        """W [out, in] and E[x] [in] to codes and a bias [out]; chance plays no part. Overflow is a ValueError."""
        require(self, weight, statistics)
        groups = self.demand(weight, statistics)
        multiplier = self._met([groups]) if self.multiplier is None else self.multiplier
        depths, rows = groups.depths(multiplier).to(weight.device), groups.rows.to(weight.device)
        dtype = side_dtype(weight.dtype)
        centre, scale = fitted(weight.float(), rows, depths)
        sides = stored(centre, dtype, "group means"), stored(scale, dtype, "scales")
        outcome = Companded.encoded(weight.float(), rows, depths, *sides)
        bias = None
        if self.bias_correction:
            bias = stored((weight.float() - outcome.dequantize()) @ statistics.mean, dtype, "bias corrections")
        audit: Audit = {
            **statistics.audit(),
            "log2_multiplier": multiplier,
            "row_groups": len(depths),
            "groups_of_no_bits": int((depths == 0).sum()),
            "groups_of_most_bits": int((depths == MAX_DEPTH).sum()),
        }
        return Compressed(outcome, audit, bias)


def row_groups(weight: Tensor, grad_sq: Tensor, most: int) -> Tensor:
    """The row group [out] of each row of W [out, in], by log2 var(row) + log2 of its mean squared gradient [out].

    As few groups of at most `most` rows as there can be, of equal size but for the last.
    """
    out = len(weight)
    size = -(-out // -(-out // most))
    order = (weight.var(1, correction=0).log2() + grad_sq.log2()).argsort(stable=True)
    rows = torch.empty_like(order)
    rows[order] = torch.arange(out, device=weight.device) // size
    return rows


def members(rows: Tensor) -> Sequence[Tensor]:
    """The rows of each row group, from rows [out], the row group of each."""
    return torch.split(rows.argsort(stable=True), rows.bincount().tolist())


def log_energies(weight: Tensor, rows: Tensor, grad_sq: Tensor) -> Tensor:
    """log2 of E[(W - median)²] g [row groups, in]; grad_sq is g, of that shape. -inf where either is 0.

    ValueError where one is not finite.
    """
    spread = torch.stack([_centred(weight[some])[1] for some in members(rows)])
    if not bool((spread.isfinite() & grad_sq.isfinite()).all()):
        raise ValueError("weights or their squared gradients are NaN or infinite")
    return spread.log2() + grad_sq.log2()


def fitted(weight: Tensor, rows: Tensor, depths: Tensor) -> tuple[Tensor, Tensor]:
    """The centre and scale [row groups, in] of least squared error on the published grid: shifts, then biases.

    W [out, in] in float32, rows [out], depths [row groups, in].
    """
    found = [_fit(weight[some], depth) for some, depth in zip(members(rows), depths, strict=True)]
    return torch.stack([centre for centre, _ in found]), torch.stack([scale for _, scale in found])


def _fit(weight: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """Those of one row group: W [members, in], depth [in]."""
    median, spread = _centred(weight)
    error = partial(_error, weight, depth)
    root = spread.sqrt()
    unit = root * 2 ** _best(SHIFTS, lambda shift: error(median, LAPLACE * root * 2**shift), depth)
    bias = _best(BIASES, lambda bias: error(median + bias * unit, LAPLACE * unit), depth)
    return median + bias * unit, LAPLACE * unit


def _best(values: Iterable[float], error: Callable[[float], Tensor], like: Tensor) -> Tensor:
    """For each input the value of least error [in], of equals the first."""
    best = torch.zeros_like(like, dtype=torch.float32)
    least = torch.full_like(best, torch.inf)
    for value in values:
        found = error(value)
        best = torch.where(found < least, value, best)
        least = torch.minimum(found, least)
    return best


def _error(weight: Tensor, depth: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
    """Squared error [in] of W [members, in], in the mean."""
    level = expand(compand(weight, centre, scale, depth), depth)
    return (centre + scale * level - weight).square().mean(0)


def _centred(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The median [in] of W [members, in], and the mean squared distance from it."""
    median = weight.median(0).values
    return median, (weight - median).square().mean(0)


def _bits(demands: Sequence[Demand], multiplier: float) -> int:
    return sum(each.bits(multiplier) for each in demands)
