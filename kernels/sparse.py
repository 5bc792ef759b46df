"""Formats of kept weights: all of them, those a mask names, or N of every M inputs."""

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from kernels.backend import fused
from kernels.format import BYTES, FLOATS, Format, Part
from kernels.packing import pack, row_bytes, unpack


@dataclass(frozen=True, eq=False)
class Dense(Format):
    """The weight itself [out, in], in its storage dtype."""

    name: ClassVar[str] = "dense"
    weight: Tensor

    def layout(self) -> dict[str, Part]:
        return self.planned(self.shape)

    @staticmethod
    def planned(shape: tuple[int, int]) -> dict[str, Part]:
        """The layout of a weight (out, in)."""
        return {"weight": Part(FLOATS, shape, "weights")}

    def dequantize(self) -> Tensor:
        return self.weight.float()

    @property
    def nominal_bits(self) -> float:
        return 8.0 * self.weight.itemsize


@dataclass(frozen=True, eq=False)
class Masked(Format):
    """A bit per weight that says whether it is kept, and the kept weights [kept] in row order."""

    name: ClassVar[str] = "masked"
    mask: Tensor
    values: Tensor

    @classmethod
    def of(cls, weight: Tensor, keep: Tensor) -> Self:
        """The weights [out, in] where the boolean keep [out, in] is set."""
        return cls((weight.shape[0], weight.shape[1]), pack(keep, 1), _kept(weight, keep))

    def layout(self) -> dict[str, Part]:
        return self.planned(self.shape, self.values.numel())

    @staticmethod
    def planned(shape: tuple[int, int], kept: int) -> dict[str, Part]:
        """The layout of a weight (out, in) of which `kept` entries stay."""
        packed = shape[0], row_bytes(shape[1], 1)
        return {
            "mask": Part(BYTES, packed, "masks", math.prod(shape)),
            "values": Part(FLOATS, (kept,), "kept weights"),
        }

    def dequantize(self) -> Tensor:
        keep = unpack(self.mask, 1, self.shape[1]).bool()
        if int(keep.sum()) != len(self.values):
            raise ValueError(f"the mask keeps {int(keep.sum())} weights, {len(self.values)} are stored")
        return torch.zeros(self.shape, device=keep.device).masked_scatter_(keep, self.values.float())

    @property
    def nominal_bits(self) -> float:
        return 8.0 * self.values.nbytes / math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class NMSparse(Format):
    """Exactly `keep` of every `of` consecutive inputs: values [out, in / of, keep], and where they sit.

    indices are packed at ceil(log2 of) bits each. ValueError unless 1 <= keep < of and `of` divides in.
    """

    name: ClassVar[str] = "nm-sparse"
    values: Tensor
    indices: Tensor
    keep: int
    of: int

    @classmethod
    def of_mask(cls, weight: Tensor, mask: Tensor, keep: int, of: int) -> Self:
        """The weights [out, in] where the boolean mask [out, in] is set, `keep` times in every group."""
        rows, width = weight.shape
        found = _kept_of_groups(weight, mask, keep, of)
        if found is None:
            wanted = f"{keep} of {of} in each group"
            raise ValueError(f"{int(mask.sum())} weights are kept of {weight.numel()}, not {wanted}")
        values, indices = found
        return cls((rows, width), values.view(rows, -1, keep), indices, keep, of)

    def layout(self) -> dict[str, Part]:
        return self.planned(self.shape, self.keep, self.of)

    @classmethod
    def planned(cls, shape: tuple[int, int], keep: int, of: int) -> dict[str, Part]:
        """The layout of a weight (out, in) that keeps so many. ValueError where that cannot be."""
        rows, width = shape
        if not 1 <= keep < of or width % of:
            raise ValueError(f"{cls.name} cannot keep {keep} of {of} in rows of {width}")
        kept, bits = width // of * keep, _index_bits(of)
        return {
            "values": Part(FLOATS, (rows, width // of, keep), "kept weights"),
            "indices": Part(BYTES, (rows, row_bytes(kept, bits)), "indices", rows * kept * bits),
        }

    @property
    def index_bits(self) -> int:
        """Bits of one position within a group."""
        return _index_bits(self.of)

    def dequantize(self) -> Tensor:
        rows, groups, keep = self.values.shape
        indices = unpack(self.indices, self.index_bits, groups * keep).view(rows, groups, keep).long()
        dense = torch.zeros(rows, groups, self.of, device=indices.device)
        return dense.scatter_(2, indices, self.values.float()).flatten(1)

    @property
    def nominal_bits(self) -> float:
        return 8.0 * self.values.itemsize * self.keep / self.of


def _index_bits(of: int) -> int:
    return (of - 1).bit_length()


def _kept(weight: Tensor, keep: Tensor) -> Tensor:
    """The weights [kept] where keep is set, in row order."""
    if fused(weight):
        from kernels.gpu.packing import kept

        return kept(weight, keep)
    return weight[keep]


def _kept_of_groups(weight: Tensor, mask: Tensor, keep: int, of: int) -> tuple[Tensor, Tensor] | None:
    """The values [kept] and packed places of the `keep` of each `of` that the mask [out, in] sets, if it does."""
    rows, bits, groups = len(weight), _index_bits(of), mask.view(-1, of)
    if fused(weight):
        from kernels.gpu import packing

        values, places, irregular = packing.kept_of_groups(weight, mask, keep, of)
        packed, _ = packing.pack(places.view(rows, -1), bits, known_to_fit=True)
        return None if int(irregular) else (values, packed)
    group, place = groups.nonzero().unbind(1)
    each = torch.arange(len(groups), device=group.device).repeat_interleave(keep)
    return (weight[mask], pack(place.view(rows, -1), bits)) if torch.equal(group, each) else None
