"""The contract of a compression method: frozen settings, and one function of a weight and its statistics.

A method knows no model, no files and no tokens. To add one: a file like wanda.py, a line in METHODS.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, Self, runtime_checkable

import torch
from pydantic import ConfigDict
from torch import Generator, Tensor

from kernels.format import Format
from methods.statistics import Statistic, Statistics

StatisticsMode = Literal["none", "dense", "sequential", "true-sequential"]
Share = Literal["linear", "input", "block"]
Audit = dict[str, bool | int | float | str | None]

SETTINGS = ConfigDict(extra="forbid")
"""A setting that the method does not have is an error."""

WEIGHT_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True)
class Compressed:
    """A compressed weight, and what a reader must know to trust it: JSON scalars by name.

    `bias` [out], in `side_dtype` of the weight, is to be added to what the layer has, and is stored beside it.
    """

    format: Format
    audit: Audit
    bias: Tensor | None = None


@runtime_checkable
class Method(Protocol):
    """Settings are the fields of a frozen pydantic dataclass, which state their own ranges.

    `statistics_mode` is the mode the method's authors publish; `needs` may depend on the settings, but is NONE
    for all of them or for none; `revision` rises whenever the output changes.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str | None]
    statistics_mode: ClassVar[StatisticsMode]
    revision: ClassVar[int]

    @property
    def needs(self) -> Statistic:
        """The statistics without which `compress` refuses."""
        ...

    @property
    def variant(self) -> str:
        """The settings as a table prints them: "50%", "2:4", "4 bits g64"."""
        ...

    def unsupported(self, shape: tuple[int, int]) -> str | None:
        """Why a weight of shape (out, in) cannot be compressed, or None."""
        ...

    def stored_bits(self, shapes: Sequence[tuple[int, int]], width: int = 16) -> int:
        """Bits on disk of weights (out, in) that share what the method is set to share, before any work.

        `width` is that of their storage dtype. Ties in a score may drop a few weights more than are counted on.
        """
        ...

    def compress(self, weight: Tensor, statistics: Statistics, rng: Generator) -> Compressed:
        """Compress a weight [out, in] given in its storage dtype; the arguments are left as they were."""
        ...


@runtime_checkable
class GradientMethod(Method, Protocol):
    """A method that may want to know how far the model's output follows each weight."""

    @property
    def needs_gradient(self) -> bool:
        """Whether `compress` refuses statistics without `grad_sq`."""
        ...


class Demand(Protocol):
    """What a weight takes on disk, by the price of a bit."""

    @property
    def weights(self) -> int:
        """How many there are in it."""
        ...

    def bits(self, multiplier: float) -> int:
        """Bits on disk at this price, log2 λ; the higher it is, the fewer."""
        ...


@runtime_checkable
class RatedMethod(GradientMethod, Protocol):
    """A method that spends bits where they matter most: it sees every linear before it compresses any."""

    def demand(self, weight: Tensor, statistics: Statistics) -> Demand:
        """That of a weight [out, in] in its storage dtype."""
        ...

    def settled(self, demands: Sequence[Demand]) -> Self:
        """The method at the price by which all these weights together have the size that it is set to."""
        ...


@runtime_checkable
class SharingMethod(Method, Protocol):
    """A method that can store something once for several linears: those of one input, or of one block."""

    @property
    def share(self) -> Share:
        """Which linears share."""
        ...

    def compress_together(
        self, weights: Sequence[Tensor], statistics: Sequence[Statistics], rng: Generator
    ) -> list[Compressed]:
        """Compress weights [out, in] of linears that share; what they share is the same tensor in each format."""
        ...


@dataclass(frozen=True, eq=False)
class Together:
    """Linears that share something: what `compress_together` is given."""

    weights: Sequence[Tensor]
    statistics: Sequence[Statistics]
    rng: Generator


@runtime_checkable
class BatchingMethod(SharingMethod, Protocol):
    """A method that does several such tasks in less time, on a GPU, than one after another."""

    def compress_many(self, tasks: Sequence[Together]) -> list[list[Compressed]]:
        """What `compress_together` gives each task alone. Weights are of one dtype; equal shapes gain most."""
        ...


def require(method: Method, weight: Tensor, statistics: Statistics) -> None:
    """ValueError unless the method can take this weight with these statistics."""
    if weight.ndim != 2 or 0 in weight.shape:
        raise ValueError(f"{method.name} takes a weight [out, in], got shape {tuple(weight.shape)}")
    if weight.dtype not in WEIGHT_DTYPES:
        allowed = ", ".join(str(dtype) for dtype in WEIGHT_DTYPES)
        raise ValueError(f"{method.name} takes weights in {allowed}, got {weight.dtype}")
    if reason := method.unsupported((weight.shape[0], weight.shape[1])):
        raise ValueError(f"{method.name} cannot take this weight: {reason}")
    if len(statistics.x_sq) != weight.shape[1]:
        raise ValueError(f"statistics of {len(statistics.x_sq)} inputs for a weight of {weight.shape[1]}")
    if statistics.level < method.needs:
        have, need = statistics.level.name, method.needs.name
        raise ValueError(f"{method.name} needs {need} statistics, got {have} over {statistics.tokens} tokens")
    if not math.isfinite(float(torch.linalg.vector_norm(weight, torch.inf))):  # one pass, one answer from a GPU
        bad = int((~weight.isfinite()).sum())
        raise ValueError(f"{bad} of {weight.numel()} weights are NaN or infinite")


def gradient_of(method: Method, weight: Tensor, statistics: Statistics) -> Tensor:
    """`grad_sq` of a weight [out, in]. ValueError unless it is there and has the weight's shape."""
    if statistics.grad_sq is None:
        raise ValueError(f"{method.name} needs squared gradients of the weight, got statistics without grad_sq")
    if statistics.grad_sq.shape != weight.shape:
        shapes = tuple(statistics.grad_sq.shape), tuple(weight.shape)
        raise ValueError(f"squared gradients of shape {shapes[0]} for a weight of shape {shapes[1]}")
    return statistics.grad_sq
