"""A weight in any format, but for a few entries that are kept as they were beside it (SpQR, arXiv:2306.03078)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from kernels.format import BYTES, FLOATS, Format, Meta, Part
from kernels.packing import pack, row_bytes, unpack
from kernels.plain import PLAIN

INNER = "inner_"
"""Before the names of what the other format stores."""


@dataclass(frozen=True, eq=False)
class WithOutliers(Format):
    """W = inner, but values [kept] at the places that `columns` and `counts` say.

    counts [1, …] are those of each row, columns [1, …] of each outlier in row order, both packed.
    """

    name: ClassVar[str] = "outliers"
    inner: Format
    counts: Tensor
    columns: Tensor
    values: Tensor

    @classmethod
    def of(cls, inner: Format, weight: Tensor, outliers: Tensor) -> Self:
        """`inner` with W [out, in] in its place where the boolean outliers [out, in] is set."""
        rows, width = weight.shape
        counts, columns = outliers.sum(1), outliers.nonzero()[:, 1]
        packed = pack(counts[None], width.bit_length()), pack(columns[None], _bits(width))
        return cls((rows, width), inner, *packed, weight[outliers])

    def layout(self) -> dict[str, Part]:
        inner = {f"{INNER}{name}": part for name, part in self.inner.layout().items()}
        return inner | self.planned(self.shape, len(self.values))

    @staticmethod
    def planned(shape: tuple[int, int], kept: int) -> dict[str, Part]:
        """The layout of so many outliers alone."""
        rows, count_bits, column_bits = shape[0], shape[1].bit_length(), _bits(shape[1])
        return {
            "counts": Part(BYTES, (1, row_bytes(rows, count_bits)), "outlier places", rows * count_bits),
            "columns": Part(BYTES, (1, row_bytes(kept, column_bits)), "outlier places", kept * column_bits),
            "values": Part(FLOATS, (kept,), "outliers"),
        }

    def tensors(self) -> dict[str, Tensor]:
        inner = {f"{INNER}{name}": tensor for name, tensor in self.inner.tensors().items()}
        return inner | {"counts": self.counts, "columns": self.columns, "values": self.values}

    def meta(self) -> Meta:
        """That of the other format, and its name."""
        inner: Meta = {f"{INNER}{name}": value for name, value in self.inner.meta().items()}
        return inner | {"format": self.inner.name, "shape": list(self.shape)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Self:
        inner = PLAIN[meta["format"]].from_tensors(_inner(tensors), _inner(meta))
        own = {name: tensor for name, tensor in tensors.items() if not name.startswith(INNER)}
        return cls(shape=tuple(meta["shape"]), inner=inner, **own)

    def with_tensors(self, changed: Mapping[str, Tensor]) -> Self:
        own: dict[str, Any] = {name: tensor for name, tensor in changed.items() if not name.startswith(INNER)}
        return replace(self, inner=self.inner.with_tensors(_inner(changed)), **own)

    def dequantize(self) -> Tensor:
        rows, width = self.shape
        counts = unpack(self.counts, width.bit_length(), rows)[0].long()
        columns = unpack(self.columns, _bits(width), len(self.values))[0].long()
        row = torch.arange(rows, device=columns.device).repeat_interleave(counts)
        return self.inner.dequantize().index_put((row, columns), self.values.float())

    @property
    def nominal_bits(self) -> float:
        return self.inner.nominal_bits


def _bits(width: int) -> int:
    """Of a column's number."""
    return max(1, (width - 1).bit_length())


def _inner(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(INNER): value for name, value in values.items() if name.startswith(INNER)}
