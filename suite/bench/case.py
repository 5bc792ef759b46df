"""What a case of the benchmark is: data and a function to time, with what bounds it and how it is checked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from suite.bench.clock import Ceilings

Shape = tuple[int, int]


@dataclass(frozen=True)
class Floor:
    """The least that must be done: bytes through memory, and operations in float32 or on 16-bit operands."""

    bytes: float
    fp32_flops: float = 0.0
    half_flops: float = 0.0

    def milliseconds(self, ceilings: Ceilings) -> tuple[float, str]:
        """The longest of the three at the device's ceilings, and which of them it is."""
        needs = {
            "copy": self.bytes / ceilings.copy_bytes,
            "fp32": self.fp32_flops / ceilings.fp32_flops,
            "bf16": self.half_flops / ceilings.bf16_flops,
        }
        bound = max(needs, key=lambda name: needs[name])
        return 1e3 * needs[bound], bound


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """A case with its data on a device. `run` takes the number of rounds, 1 where there are none.

    A reference of fewer rounds is timed at 0 and at `reference_rounds` and carried on in a straight line.
    With `steps` above 1 a run goes over that many weights, or rows, and its time is of one.
    What is done for files and databases has no reference, and so no check, and no floor.
    """

    run: Callable[[int], Any]
    check: Callable[[Any, Any], float] | None = None
    floor: Callable[[Any], Floor] | None = None
    rounds: int = 1
    reference_rounds: int = 1
    steps: int = 1


@dataclass(frozen=True, kw_only=True)
class Case:
    """One line of the table; `agreement` says what the number of its check is, `unit` what a round is called.

    A budget is for one H100, in ms.
    """

    name: str
    shape: tuple[int, ...]
    prepare: Callable[[torch.device], Work]
    agreement: str = ""
    budget_ms: float | None = None
    unit: str | None = None

    @property
    def label(self) -> str:
        """What a pattern is matched against."""
        return f"{self.name} {in_print(self.shape)}"


def in_print(shape: tuple[int, ...]) -> str:
    """`4096x11008`; a count alone where there is no weight."""
    return "x".join(map(str, shape))


def share_equal(found: Tensor, wanted: Tensor) -> float:
    """The share of equal entries."""
    return float((found == wanted).double().mean())


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """‖found - wanted‖ / ‖wanted‖, computed in float64."""
    found, wanted = found.double(), wanted.double()
    return float((found - wanted).norm() / wanted.norm())
