"""Allocation: each linear by one of several methods, chosen so that the whole has a given size (HIGGS)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from pydantic import ValidationError
from torch import Generator, Tensor

from methods.method import Compressed, Method, StatisticsMode
from methods.statistics import Statistic, Statistics
from methods.target import Target
from suite.errors import ConfigError
from suite.schema import fields_of, first_error, no_setting, refuse_lookalikes

ALLOCATE = "allocate"
Currency = Literal["weight", "output"]
"""Whose error counts: that of the weights, as in the theorem, or of what the linear puts out when calibrating."""


@dataclass(frozen=True)
class Allocated:
    """Follows the contract of a method: of each weight alone it takes the option of least error that fits."""

    options: tuple[Method, ...]
    target: Target
    error: Currency = "output"

    name: ClassVar[str] = ALLOCATE
    title: ClassVar[str] = "Allocated"
    paper: ClassVar[str | None] = "arXiv:2411.17525"
    statistics_mode: ClassVar[StatisticsMode] = "dense"
    revision: ClassVar[int] = 1

    @classmethod
    def of(cls, options: tuple[Method, ...], settings: Mapping[str, Any]) -> Self:
        """From what a recipe says beside `methods`. ConfigError for what it cannot."""
        where, size = f"methods.{ALLOCATE}", [each.name for each in fields(Target)]
        known = [*size, "error"]
        for key in settings:
            if key not in known:
                raise ConfigError(no_setting(where, str(key), known))
        error = settings.get("error", cls.error)
        if error not in get_args(Currency):
            raise ConfigError(f"{where}.error is {error!r}; allowed: {', '.join(get_args(Currency))}")
        wanted = {key: value for key, value in settings.items() if key in size}
        try:
            refuse_lookalikes(wanted, fields_of(Target))
            target = Target(**wanted)
        except ValidationError as fault:
            raise ConfigError(first_error(fault, where)) from None
        except ValueError as fault:
            raise ConfigError(f"{where}.{fault}") from None
        return cls(options, target, error)

    @property
    def needs(self) -> Statistic:
        """As much as the option that needs most."""
        return max(option.needs for option in self.options)

    @property
    def settings(self) -> dict[str, Any]:
        """As rows have them: plain values."""
        options = [
            {"method": each.name, "revision": each.revision, **asdict(each)}  # type: ignore[call-overload]
            for each in self.options
        ]
        return {"methods": options, **self.target.settings, "error": self.error}

    @property
    def variant(self) -> str:
        titles = dict.fromkeys(option.title for option in self.options)
        by = "" if self.error == "output" else f" by {self.error}"
        return f"{self.target} of {', '.join(titles)}{by}"

    def unsupported(self, shape: tuple[int, int]) -> str | None:
        """Why one of the options cannot take it: all of them are tried on all linears."""
        reasons = ((option, option.unsupported(shape)) for option in self.options)
        return next((f"{option.title} {option.variant}: {reason}" for option, reason in reasons if reason), None)

    def stored_bits(self, shapes: Sequence[tuple[int, int]], width: int = 16) -> int:
        """What the target asks for."""
        return self.target.bits(sum(rows * columns for rows, columns in shapes))

    def compress(self, weight: Tensor, statistics: Statistics, rng: Generator) -> Compressed:
        """W [out, in] by the option of least error that fits the target. ValueError when none does."""
        seed, most = rng.initial_seed(), self.target.bits(weight.numel())
        found = [
            option.compress(weight, statistics, Generator().manual_seed(seed))
            for option in self.options
            if option.unsupported((weight.shape[0], weight.shape[1])) is None
        ]
        fitting = [each for each in found if each.format.storage_bits() <= most]
        if not fitting:
            least = min((each.format.storage_bits() for each in found), default=0) / weight.numel()
            raise ValueError(f"{self.target} is less than any option takes: {least:.3f} bits per weight")
        return min(fitting, key=lambda each: float(torch.dist(each.format.dequantize(), weight.float())))
