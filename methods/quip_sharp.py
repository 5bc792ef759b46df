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

from kernels.e8p import DIM
from kernels.format import bits_of, side_dtype
from kernels.lattice import Lattice, LatticeQuantizer, code_bits
from kernels.ldlq import ldlq, sweep
from kernels.packing import pack
from kernels.turns import Turns
from methods.hessian import Damping, UnitGram, gram_error, gram_of
from methods.incoherence import Incoherence
from methods.method import SETTINGS, Audit, Compressed, StatisticsMode, require
from methods.settings import Search
from methods.statistics import Statistic, Statistics

SCALES = {2: 1.03, 3: 0.98, 4: 1.03}
"""The published root mean square of what is quantised, by bits."""

DAMPING, SWEEPS = 0.01, 10


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
        turns = Turns.drawn((rows, width + padding), rng, weight.device)
        found = self.solve(
            functional.pad(weight.float(), (0, padding)),
            UnitGram.of(statistics, padding),
            turns,
            side_dtype(weight.dtype),
        )
        outcome = self._packed(found, turns, (rows, width))
        audit = {
            **statistics.audit(),
            **found.audit,
            **turns.audit(),
            "padded_inputs": padding,
            "gram_error": gram_error(weight.float(), outcome.dequantize(), gram_of(statistics)),
        }
        return Compressed(outcome, audit)

    def solve(self, weight: Tensor, gram: UnitGram, turns: Turns, dtype: torch.dtype) -> Points:
        """W [out, in] and H [in, in], float32, to points under these rotations; in is a multiple of 8.

        Scales take `dtype`. ValueError if one overflows it.
        """
        size = self.scale or SCALES[self.bits]
        given = Incoherence(DIM, size, self.damping, self.rescale).process(weight, gram, turns, dtype)
        quantize = LatticeQuantizer(self.bits)
        codes, points = ldlq(given.target, given.lower, quantize, DIM)
        before = after = gram_error(given.target, points, given.gram)
        if self.sweeps:
            codes, points = sweep(given.target, points, given.gram, quantize, DIM, self.sweeps)
            after = gram_error(given.target, points, given.gram)
        audit = {**given.audit, "ldlq_error": before, "swept_error": after}
        return Points(codes, points, given.scale, given.rescale, audit)

    def _packed(self, found: Points, turns: Turns, shape: tuple[int, int]) -> Lattice:
        codes = [pack(part, bits) for part, bits in zip(found.codes.unbind(-1), code_bits(self.bits), strict=True)]
        rescale = None if found.rescale is None else found.rescale[: shape[1]].clone()
        return Lattice(
            shape,
            codes[0],
            codes[1] if len(codes) > 1 else None,
            scale=found.scale,
            rescale=rescale,
            bits=self.bits,
            **turns.fields(),
        )
