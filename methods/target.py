"""A size that a model is to be compressed to: bits per weight, or bytes of all compressed linears together."""

from typing import Annotated, Any, Protocol, Self, runtime_checkable

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from methods.method import SETTINGS


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Target:
    """Exactly one of the two. Stored bits count: codes, side parameters, everything but file headers."""

    bits_per_weight: Annotated[float | None, Field(gt=0, le=32, description="stored bits per weight")] = None
    bytes: Annotated[int | None, Field(gt=0, description="of the compressed linears together")] = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.bits_per_weight is None) == (self.bytes is None):
            raise ValueError("a target is either bits_per_weight or bytes; give one of them")
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """The one that is given, by its name."""
        if self.bytes is not None:
            return {"bytes": self.bytes}
        return {"bits_per_weight": self.bits_per_weight}

    def bits(self, weights: int) -> int:
        """Stored bits of so many weights, all that there are."""
        if self.bytes is not None:
            return 8 * self.bytes
        return round((self.bits_per_weight or 0.0) * weights)

    def __str__(self) -> str:
        return f"{self.bytes:,} bytes" if self.bytes is not None else f"{self.bits_per_weight:g} bits"


@runtime_checkable
class Targeted(Protocol):
    """A method that meets a size over all linears together."""

    @property
    def target(self) -> Target:
        """The size."""
        ...
