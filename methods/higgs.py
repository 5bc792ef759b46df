"""HIGGS (arXiv:2411.17525): turn each group of inputs, divide it by its norm, round to a grid for the Gaussian.

A random Hadamard transform makes any weight all but Gaussian, so the grid of least squared error is known before
there is a weight. That error, relative to the weight's own energy, is then nearly the same for every layer; the
paper's theorem makes the growth of perplexity linear in it.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor
from torch.nn import functional

from kernels import hadamard
from kernels.format import side_dtype, stored
from kernels.gaussian import gaussian_grid
from kernels.hadamard import Rotation
from kernels.kmeans import assign
from kernels.packing import pack
from kernels.rotated_codebook import RotatedCodebook
from methods.codewords import bits_of_sharing, width_of_code
from methods.method import SETTINGS, Audit, Compressed, StatisticsMode, require
from methods.settings import Search
from methods.statistics import Statistic, Statistics

MOST_CODE_BITS = 12
"""A grid of 4096 points takes some 20 seconds of a core, and twice that with each further bit."""

GROUP_SIZE = 1024
"""As published."""


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class HIGGS:
    """Grids of 2^(bits * dim) points; neither data nor the weights have a say in them."""

    bits: Annotated[
        float,
        Field(gt=0, le=8, description="bits per weight, before grid, scales and signs"),
        Search(low=1.0, high=4.0, step=0.5),
    ] = 2.0
    dim: Annotated[
        int,
        Field(ge=1, le=8, description="weights per point of the grid; bits * dim must be whole"),
        Search(low=1, high=4),
    ] = 2
    group_size: Annotated[
        int,
        Field(ge=8, description="most inputs that are turned together and share a scale"),
        Search(choices=(64, 128, 256, 512, 1024)),
    ] = GROUP_SIZE
    share: Annotated[
        Literal["linear", "block"], Field(description="store the grid beside each linear, or once in each block")
    ] = "block"

    name: ClassVar[str] = "higgs"
    title: ClassVar[str] = "HIGGS"
    paper: ClassVar[str | None] = "arXiv:2411.17525"
    needs: ClassVar[Statistic] = Statistic.NONE
    statistics_mode: ClassVar[StatisticsMode] = "none"
    revision: ClassVar[int] = 1

    @model_validator(mode="after")
    def _codes_are_whole_bits(self) -> Self:
        width_of_code(self.bits, self.dim, MOST_CODE_BITS)
        return self

    @property
    def code_bits(self) -> int:
        """Bits of one code; the grid has 2^code_bits points."""
        return width_of_code(self.bits, self.dim, MOST_CODE_BITS)

    @property
    def variant(self) -> str:
        switches = {
            f" g{self.group_size}": self.group_size != GROUP_SIZE,
            f" share={self.share}": self.share != "block",
        }
        return f"{self.bits:g} bits d{self.dim}" + "".join(text for text, on in switches.items() if on)

    def unsupported(self, shape: tuple[int, int]) -> str | None:
        return None

    def stored_bits(self, shapes: Sequence[tuple[int, int]], width: int = 16) -> int:
        """Those of codes, scales, signs and one grid, or of one for each weight where none is shared."""
        layouts = [
            RotatedCodebook.planned(shape, self.code_bits, self.dim, self.groups(shape[1])[1]) for shape in shapes
        ]
        return bits_of_sharing(layouts, self.share, width)

    def groups(self, width: int) -> tuple[int, int]:
        """The order of the Hadamard matrix and the inputs of one scale, for `width` inputs.

        The order is the largest up to `group_size` that divides `width`. A scale is for one block of it, or, where
        blocks are small because few orders divide `width`, for as many whole ones as fit.
        """
        order, most = hadamard.order(width, self.group_size), min(self.group_size, width)
        return order, max(size for size in range(order, most + 1, order) if width % size == 0)

    def compress(self, weight: Tensor, statistics: Statistics, rng: Generator) -> Compressed:
        """W [out, in] to codes, scales and signs; rng draws the signs."""
        return self.compress_together([weight], [statistics], rng)[0]

    def compress_together(
        self, weights: Sequence[Tensor], statistics: Sequence[Statistics], rng: Generator
    ) -> list[Compressed]:
        """The same for weights of one dtype beside which one grid is stored."""
        for weight, own in zip(weights, statistics, strict=True):
            require(self, weight, own)
        points = gaussian_grid(2**self.code_bits, self.dim).points
        codebook = points.to(weights[0].device, side_dtype(weights[0].dtype), copy=True)
        return [self._compressed(weight, codebook, rng) for weight in weights]

    def _compressed(self, weight: Tensor, codebook: Tensor, rng: Generator) -> Compressed:
        rows, width = weight.shape
        order, group = self.groups(width)
        signs = torch.randint(2, (width,), generator=rng).to(weight.device)
        turned = Rotation.hadamard(2.0 * signs - 1, order).turn(weight.float()).view(rows, -1, group)
        scale = stored(turned.square().mean(-1).sqrt(), codebook.dtype, "scales")  # [out, in / group]
        units = turned / torch.where(scale > 0, scale.float(), 1)[..., None]
        codes = pack(_nearest(units.view(rows, width), codebook.float()), self.code_bits)
        outcome = RotatedCodebook((rows, width), codes, codebook, scale, pack(signs[None], 1), group, order)
        audit: Audit = {
            "hadamard_in": order,
            "scale_group": group,
            "grid_distortion": gaussian_grid(len(codebook), self.dim).distortion,
            "padded_inputs": -width % self.dim,
        }
        return Compressed(outcome, audit)


def _nearest(units: Tensor, points: Tensor) -> Tensor:
    """The codes int32 [out, ceil(in / d)] of units [out, in] on points [K, d]; what pads them has no weight."""
    (rows, width), dim = units.shape, points.shape[1]
    padding = 0, -width % dim
    weights = functional.pad(torch.ones_like(units[0]), padding).view(-1, dim)
    if not any(padding):
        weights = weights[:1]
    codes, _ = assign(functional.pad(units, padding).view(-1, dim), weights, points)
    return codes.view(rows, -1)
