"""Weights between two random rotations (QuIP#, arXiv:2402.04396): what turns them, and how that is stored.

A rotation is a randomised Hadamard transform: its signs, a bit each, and the order of its matrix, which repeats
along the diagonal where none of the whole size can be built.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from kernels import hadamard
from kernels.format import BYTES, FLOATS, Part
from kernels.hadamard import Rotation
from kernels.packing import pack, row_bytes

TURNED_AT_ONCE = 1 << 27
"""Numbers of H in one product: half a GiB, all of it up to 11,585 inputs."""


@dataclass(frozen=True, eq=False)
class Turns:
    """The rotations of outputs and inputs: W [out, in] -> U W V and H [in, in] -> Vᵀ H V."""

    out: Rotation
    into: Rotation

    @classmethod
    def drawn(cls, shape: tuple[int, int], rng: Generator, device: torch.device) -> "Turns":
        """Random rotations of a weight (out, in), of the largest orders there are; rng draws the signs."""
        signs = [2.0 * torch.randint(2, (n,), generator=rng).to(device) - 1 for n in shape]
        return cls(*(Rotation.hadamard(s, hadamard.order(len(s))) for s in signs))

    @classmethod
    def stored(cls, shape: tuple[int, int], signs: tuple[Tensor, Tensor], orders: tuple[int, int]) -> "Turns":
        """Those of a weight (out, in): uint8 signs [1, bytes] and orders, of the outputs, then of the inputs."""
        return cls(*map(Rotation.stored, signs, shape, orders))

    def fields(self) -> dict[str, Any]:
        """Signs, set where +1 is, and orders, as formats hold them."""
        sign_out, sign_in = (pack(turn.signs[None] > 0, 1) for turn in (self.out, self.into))
        orders = {"order_in": self.into.order, "order_out": self.out.order}
        return {"sign_in": sign_in, "sign_out": sign_out, **orders}

    def audit(self) -> dict[str, int]:
        """The orders of the Hadamard matrices: below the sizes, where the transforms are block-diagonal."""
        return {"hadamard_in": self.into.order, "hadamard_out": self.out.order}

    def weight(self, weight: Tensor) -> Tensor:
        """W [out, in], turned."""
        return self.into.turn(self.out.turn(weight.T).T)

    def gram(self, rows: Callable[[slice], Tensor]) -> Tensor:
        """H [in, in], float32, turned: some rows at a time and then some columns, with no second matrix as large.

        `rows` gives those of H in a slice.
        """
        width = len(self.into.signs)
        turned = torch.empty(width, width, device=self.into.signs.device)
        few = max(1, TURNED_AT_ONCE // width)
        for start in range(0, width, few):
            part = slice(start, min(start + few, width))
            turned[part] = self.into.turn(rows(part))
        for columns in torch.split(turned, few, dim=1):
            columns.copy_(self.into.turn(columns.T).T)
        return turned.mT

    def back(self, weight: Tensor) -> Tensor:
        """The inverse of `weight`."""
        return self.out.back(self.into.back(weight).T).T


def rotated_layout(shape: tuple[int, int], rescaled: int | None) -> dict[str, Part]:
    """Signs and scale of a weight that was turned as (out, in), and factors of the inputs that were rescaled."""
    rows, width = shape
    parts = {
        "sign_in": Part(BYTES, (1, row_bytes(width, 1)), "signs", width),
        "sign_out": Part(BYTES, (1, row_bytes(rows, 1)), "signs", rows),
        "scale": Part(FLOATS, (1,), "scales"),
    }
    return parts if rescaled is None else {**parts, "rescale": Part(FLOATS, (rescaled,), "scales")}
