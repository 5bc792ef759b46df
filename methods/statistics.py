"""What a method may know of a layer's inputs X [tokens, in]: sums over tokens, in float32.

H = XᵀX is plain: no factor of two, no division by tokens. Methods divide by what they need, so that any
positive rescaling of H leaves their result unchanged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum

import torch
from torch import Tensor

from kernels.float32 import add_gram

ENOUGH_TOKENS = 512
"""Fewer tokens wait for others before they are multiplied: H is read and written each time, 8 bytes an entry."""

ROW_BLOCK = 1024
"""Rows of H that are mirrored at a time."""


class Statistic(IntEnum):
    """How much a method needs; each level contains those below it."""

    NONE = 0
    DIAGONAL = 1
    GRAM = 2


@dataclass(frozen=True, eq=False)
class Statistics:
    """Sums over the tokens that reached one linear layer, all float32.

    x_sq [in] is diag(XᵀX), mean [in] the mean input, gram [in, in] is XᵀX, None where nobody asked. x_abs [in] is
    the mean of |x|. grad_sq [out, in] is of one weight alone: the mean square of the gradient of the model's
    output in it.
    """

    x_sq: Tensor
    mean: Tensor
    tokens: int
    gram: Tensor | None = None
    x_abs: Tensor | None = None
    grad_sq: Tensor | None = None

    @classmethod
    def none(cls, width: int, device: torch.device | str = "cpu") -> "Statistics":
        """Statistics of no token at all, for methods that need none."""
        return cls(torch.zeros(width, device=device), torch.zeros(width, device=device), tokens=0)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], tokens: int, prefix: str = "") -> "Statistics":
        """The inverse of `tensors`: of those that bear the prefix. TypeError when x_sq or mean is not there."""
        names = (each.name for each in fields(cls))
        return cls(tokens=tokens, **{name: tensors[prefix + name] for name in names if prefix + name in tensors})

    def tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """What there is beside the number of tokens, by name."""
        found = {prefix + each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    @property
    def level(self) -> Statistic:
        """The most demanding need that these statistics meet."""
        if self.tokens == 0:
            return Statistic.NONE
        return Statistic.DIAGONAL if self.gram is None else Statistic.GRAM

    def importance(self) -> Tensor:
        """x_sq over its mean [in], which no rescaling of H changes; all ones when every input is dead."""
        mean = self.x_sq.mean()
        return torch.where(mean > 0, self.x_sq / mean, torch.ones_like(self.x_sq))

    def audit(self) -> dict[str, int | float | None]:
        """Dead inputs (never anything but zero), and mean(h) / median(h): how far one input dominates."""
        h = self.x_sq
        mean, median, dead = torch.stack([h.mean(), h.median(), (h == 0).sum().float()]).tolist()  # asked for once
        return {"dead_inputs": int(dead), "h_mean_over_median": mean / median if median > 0 else None}


class Accumulator:
    """Sums over tokens, batch by batch. On CUDA the caller must have switched TF32 off: it has 10 bits."""

    def __init__(self, needs: Statistic, width: int, device: torch.device | str = "cpu") -> None:
        self._needs = needs
        self._sum = torch.zeros(width, device=device)
        self._squares = torch.zeros(width, device=device)
        self._sizes = torch.zeros(width, device=device)
        self._gram = torch.zeros(width, width, device=device) if needs is Statistic.GRAM else None
        self._waiting: list[Tensor] = []
        self._tokens = 0

    def add(self, x: Tensor) -> None:
        """Take in inputs [..., in] of any floating dtype. ValueError when the width differs."""
        width = len(self._sum)
        if x.shape[-1] != width:
            raise ValueError(f"inputs of width {x.shape[-1]} do not fit statistics of width {width}")
        if self._needs is Statistic.NONE:
            return
        rows = x.detach().reshape(-1, width).float()
        self._tokens += len(rows)
        self._sum += rows.sum(0)
        # Beside H too: its diagonal is summed in another order, and what a method gets must not depend on whether
        # another one of the walk wants H.
        self._squares += rows.square().sum(0)
        self._sizes += rows.abs().sum(0)
        if self._gram is None:
            return
        enough = min(ENOUGH_TOKENS, width)  # what waits is then no larger than H
        if len(rows) >= enough:
            add_gram(self._gram, rows)
            return
        self._waiting.append(rows.clone())  # the model may write where it was
        if sum(map(len, self._waiting)) >= enough:
            self._flush()

    def finish(self) -> Statistics:
        """The statistics so far. ValueError when an input was not finite, or its square overflowed."""
        self._flush()
        bad = int((~(self._squares.isfinite() & self._sum.isfinite())).sum())
        if bad:
            raise ValueError(f"{bad} of {len(self._squares)} inputs have sums that are NaN or infinite")
        if self._gram is not None:
            _mirror(self._gram)
        tokens = max(self._tokens, 1)
        return Statistics(self._squares, self._sum / tokens, self._tokens, self._gram, self._sizes / tokens)

    def _flush(self) -> None:
        if self._waiting and self._gram is not None:
            add_gram(self._gram, torch.cat(self._waiting))
        self._waiting.clear()


def _mirror(gram: Tensor) -> None:
    """Put the upper triangle of [in, in] below its diagonal."""
    for at in range(0, len(gram), ROW_BLOCK):
        some = slice(at, at + ROW_BLOCK)
        gram[some, some] = gram[some, some].triu() + gram[some, some].triu(1).T
        gram[at + ROW_BLOCK :, some] = gram[some, at + ROW_BLOCK :].T
