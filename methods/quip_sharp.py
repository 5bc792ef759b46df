"""QuIP# (arXiv:2402.04396) without its fine-tuning: rotate W and H, then LDLQ onto the lattice E8, then sweeps.

The rotations are randomised Hadamard transforms, block-diagonal where no matrix of the size can be built: the
audit has their orders.
"""

from collections.abc import Sequence
from dataclasses import dataclass as plain_dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor
from torch.nn import functional

from kernels import hadamard
from kernels.e8p import DIM
from kernels.format import bits_of, side_dtype, stored
from kernels.hadamard import Rotation
from kernels.lattice import Lattice, LatticeQuantizer, code_bits
from kernels.ldlq import block_ldl, ldlq, sweep
from kernels.packing import pack
from methods.hessian import Damping, factored, gram_error, unit_gram
from methods.method import SETTINGS, Audit, Compressed, StatisticsMode, require
from methods.settings import Search
from methods.statistics import Statistic, Statistics

SCALES = {2: 1.03, 3: 0.98, 4: 1.03}
"""The published root mean square of what is quantised, by bits."""

DAMPING, SWEEPS, FLOOR = 0.01, 10, 1e-8


@plain_dataclass(frozen=True, eq=False)
class Turns:
    """The rotations of outputs and inputs: W [out, in] -> U W V and H [in, in] -> Vᵀ H V."""

    out: Rotation
    into: Rotation

    def weight(self, weight: Tensor) -> Tensor:
        return self.into.turn(self.out.turn(weight.T).T)

    def gram(self, gram: Tensor) -> Tensor:
        return self.into.turn(self.into.turn(gram).T)

    def back(self, weight: Tensor) -> Tensor:
        return self.out.back(self.into.back(weight).T).T


@plain_dataclass(frozen=True, eq=False)
class Points:
    """codes int32 [out, in / 8, 1 or 2] of points [out, in]; W = turned back (scale * points) / rescale."""

    codes: Tensor
    points: Tensor
    scale: Tensor
    rescale: Tensor | None
    audit: Audit


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class QuIPSharp:
    """E8P at 2 bits; at 3 and 4 bits a second codebook takes up what E8P leaves."""

    bits: Annotated[Literal[2, 3, 4], Field(description="bits per weight")] = 2
    rescale: Annotated[bool, Field(description="balance W and H by a factor for each input first")] = False
    sweeps: Annotated[
        int, Field(ge=0, le=100, description="tuning sweeps over the columns after LDLQ"), Search(low=0, high=20)
    ] = SWEEPS
    damping: Damping = DAMPING
    scale: Annotated[
        float | None,
        Field(gt=0, le=10, description="root mean square of what is quantised; none: as published"),
        Search(low=0.8, high=1.2),
    ] = None

    name: ClassVar[str] = "quip-sharp"
    title: ClassVar[str] = "QuIP#"
    paper: ClassVar[str | None] = "arXiv:2402.04396"
    needs: ClassVar[Statistic] = Statistic.GRAM
    statistics_mode: ClassVar[StatisticsMode] = "dense"
    revision: ClassVar[int] = 1

    @property
    def variant(self) -> str:
        switches = {
            " rescale": self.rescale,
            f" sweeps={self.sweeps}": self.sweeps != SWEEPS,
            f" damping={self.damping:g}": self.damping != DAMPING,
            f" scale={self.scale}": self.scale is not None,
        }
        return f"{self.bits} bits" + "".join(text for text, on in switches.items() if on)

    def unsupported(self, shape: tuple[int, int]) -> str | None:
        return None

    def stored_bits(self, shapes: Sequence[tuple[int, int]], width: int = 16) -> int:
        """Those of codes, signs and scales."""
        return sum(bits_of(Lattice.planned(shape, self.bits, self.rescale), width) for shape in shapes)

    def compress(self, weight: Tensor, statistics: Statistics, rng: Generator) -> Compressed:
        """W [out, in] and H [in, in] to codes, signs and a scale; rng draws the signs."""
        require(self, weight, statistics)
        rows, width = weight.shape
        padding = -width % DIM
        signs = [torch.randint(2, (n,), generator=rng).to(weight.device) for n in (rows, width + padding)]
        orders = [hadamard.order(len(s)) for s in signs]
        turns = Turns(*(Rotation.hadamard(2.0 * s - 1, order) for s, order in zip(signs, orders, strict=True)))
        gram = unit_gram(statistics)
        padded = functional.pad(weight.float(), (0, padding)), functional.pad(gram, (0, padding, 0, padding))
        found = self.solve(*padded, turns, side_dtype(weight.dtype))
        outcome = self._packed(found, signs, orders, (rows, width))
        audit = {
            **statistics.audit(),
            **found.audit,
            "hadamard_in": outcome.order_in,
            "hadamard_out": outcome.order_out,
            "padded_inputs": padding,
            "gram_error": gram_error(weight.float(), outcome.dequantize(), gram),
        }
        return Compressed(outcome, audit)

    def solve(self, weight: Tensor, gram: Tensor, turns: Turns, dtype: torch.dtype) -> Points:
        """W [out, in] and H [in, in], float32, to points under these rotations; in is a multiple of 8.

        Scales take `dtype`. ValueError if one overflows it.
        """
        rescale = stored(balance(weight, gram, self.damping), dtype, "input scales") if self.rescale else None
        s = torch.ones_like(weight[0]) if rescale is None else rescale.float()

        def factor(damped: Tensor) -> Tensor:
            h = turns.gram(damped / (s[:, None] * s))
            return torch.stack((h, block_ldl(h, DIM)[0]))

        regular = factored(gram, self.damping, factor)
        h, lower = regular.factor
        turned = turns.weight(weight * s)
        size = turned.square().mean().sqrt() / (self.scale or SCALES[self.bits])
        scale = stored(size[None], dtype, "scale")
        target = turned / torch.where(scale > 0, scale.float(), 1)
        quantize = LatticeQuantizer(self.bits)
        codes, points = ldlq(target, lower, quantize, DIM)
        before = after = gram_error(target, points, h)
        if self.sweeps:
            codes, points = sweep(target, points, h, quantize, DIM, self.sweeps)
            after = gram_error(target, points, h)
        audit = {**regular.audit, "ldlq_error": before, "swept_error": after}
        return Points(codes, points, scale, rescale, audit)

    def _packed(self, found: Points, signs: list[Tensor], orders: list[int], shape: tuple[int, int]) -> Lattice:
        codes = [pack(part, bits) for part, bits in zip(found.codes.unbind(-1), code_bits(self.bits), strict=True)]
        sign_out, sign_in = (pack(s[None], 1) for s in signs)
        rescale = None if found.rescale is None else found.rescale[: shape[1]].clone()
        residual = codes[1] if len(codes) > 1 else None
        order_out, order_in = orders
        side = sign_in, sign_out, found.scale, rescale
        return Lattice(shape, codes[0], residual, *side, self.bits, order_in, order_out)


def balance(weight: Tensor, gram: Tensor, damping: float) -> Tensor:
    """(h_j / Σ_i W_ij²)^(1/4) [in], by which W is multiplied and H divided: h damped as set, over its largest."""
    h = gram.diagonal() + damping * gram.diagonal().mean()
    relative = torch.where(h.max() > 0, h / h.max(), 1).clamp_min(FLOOR)
    return (relative / weight.square().sum(0).clamp_min(FLOOR)) ** 0.25
