"""Outliers (GWQ, arXiv:2411.00850; SpQR, arXiv:2306.03078): the few weights that matter most stay as they are.

Any method then compresses a weight that has zeros in their places, so that they widen no grid.
"""

import math
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from kernels.format import bits_of
from kernels.outliers import WithOutliers
from kernels.pruning import keep_largest
from methods.method import SETTINGS
from methods.statistics import Statistic, Statistics


@dataclass(frozen=True, config=SETTINGS)
class Outliers:
    """How many weights of each linear are kept in their own dtype, and which."""

    share: Annotated[float, Field(gt=0, lt=0.5, description="of a linear's weights")] = 0.01
    by: Annotated[
        Literal["output", "gradient"],
        Field(description="output: h_j W²; gradient: the mean square of the output's gradient times W²"),
    ] = "output"

    @property
    def needs(self) -> Statistic:
        """The statistics without which there is no choice."""
        return Statistic.DIAGONAL if self.by == "output" else Statistic.NONE

    @property
    def needs_gradient(self) -> bool:
        """Whether gradients are wanted."""
        return self.by == "gradient"

    @property
    def variant(self) -> str:
        """As a table prints it: "+1% outliers"."""
        return f"+{100 * self.share:g}% outliers{' by gradient' if self.needs_gradient else ''}"

    def count(self, weights: int) -> int:
        """How many of so many weights are kept."""
        return round(weights * self.share)

    def stored_bits(self, shape: tuple[int, int], width: int = 16) -> int:
        """Bits on disk of those of a weight (out, in), and of their places, before any work."""
        return bits_of(WithOutliers.planned(shape, self.count(math.prod(shape))), width)

    def of(self, weight: Tensor, statistics: Statistics) -> Tensor:
        """Those of W [out, in], a boolean [out, in]. ValueError where what is needed is missing."""
        score = weight.float().square()
        if self.by == "gradient":
            if statistics.grad_sq is None:
                raise ValueError(
                    "outliers by gradient need the gradients of the model's output, and there are none"
                )
            score = score * statistics.grad_sq
        else:
            score = score * statistics.importance()
        return keep_largest(score.view(1, -1), weight.numel() - self.count(weight.numel())).view(weight.shape)
