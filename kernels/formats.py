"""What a compressed weight is: frozen tensors that know their layout, their size and how to become W again.

A format stores what `tensors()` returns and nothing else; `meta()` holds the few numbers needed to read them.
Weights that are kept stay in the dtype they came in, bit for bit. Side parameters (scales, norms, codebooks)
take `side_dtype` of the weight, and quantisers round them with `stored` before they choose codes.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

from kernels.packing import pack, row_bytes, unpack

Dtypes = tuple[torch.dtype, ...]
Meta = dict[str, int | float | str | list[int] | None]

BYTES: Dtypes = (torch.uint8,)
FLOATS: Dtypes = (torch.float16, torch.bfloat16, torch.float32)


def side_dtype(weight_dtype: torch.dtype) -> torch.dtype:
    """The dtype of scales, norms and codebooks: float32 beside a float32 weight, else float16."""
    return torch.float32 if weight_dtype == torch.float32 else torch.float16


def stored(values: Tensor, dtype: torch.dtype, what: str) -> Tensor:
    """`values` rounded to the dtype in which they are kept. ValueError if any is then not finite."""
    rounded = values.to(dtype)
    if not bool(rounded.isfinite().all()):
        largest = float(values.abs().max())
        raise ValueError(f"{what} reach {largest:.4g}, beyond {torch.finfo(dtype).max:.4g}, the most of {dtype}")
    return rounded


@dataclass(frozen=True, eq=False)
class Format(ABC):
    """A compressed weight of shape (out, in). ValueError when a tensor is not what `layout` says."""

    name: ClassVar[str]
    shape: tuple[int, int]

    @abstractmethod
    def layout(self) -> dict[str, tuple[Dtypes, tuple[int, ...]]]:
        """Allowed dtypes and the shape of each stored tensor, by name."""

    @abstractmethod
    def dequantize(self) -> Tensor:
        """The weight [out, in] in float32."""

    @property
    @abstractmethod
    def nominal_bits(self) -> float:
        """Bits per weight of the codes, or of the kept values, alone."""

    def __post_init__(self) -> None:
        for name, (dtypes, shape) in self.layout().items():
            tensor = getattr(self, name)
            if tensor.dtype not in dtypes or tuple(tensor.shape) != shape:
                allowed = " or ".join(str(dtype) for dtype in dtypes)
                found = f"{tensor.dtype} {tuple(tensor.shape)}"
                raise ValueError(f"{self.name}.{name} is {found}, must be {allowed} {shape}")

    def tensors(self) -> dict[str, Tensor]:
        """Exactly what is stored, by name."""
        return {name: getattr(self, name) for name in self.layout()}

    def meta(self) -> Meta:
        """All that is not a tensor, as JSON values."""
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in self.layout()}
        return {**rest, "shape": list(self.shape)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Self:
        """The inverse of `tensors` and `meta`. ValueError names what is missing, unknown or misshapen."""
        given, known = tensors.keys() | meta.keys(), {f.name for f in fields(cls)}
        if given != known:
            missing, unknown = sorted(known - given), sorted(given - known)
            raise ValueError(f"{cls.name} cannot be rebuilt: missing {missing}, unknown {unknown}")
        return cls(**{**tensors, **meta, "shape": tuple(meta["shape"])})

    def storage_bits(self) -> int:
        """Bits on disk: those of every stored tensor, padding included."""
        return 8 * sum(tensor.nbytes for tensor in self.tensors().values())

    def to(self, device: torch.device | str) -> Self:
        """The same weight on another device."""
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in self.tensors().items()}
        return replace(self, **moved)


@dataclass(frozen=True, eq=False)
class Dense(Format):
    """The weight itself [out, in], in its storage dtype."""

    name: ClassVar[str] = "dense"
    weight: Tensor

    def layout(self) -> dict[str, tuple[Dtypes, tuple[int, ...]]]:
        return {"weight": (FLOATS, self.shape)}

    def dequantize(self) -> Tensor:
        return self.weight.float()

    @property
    def nominal_bits(self) -> float:
        return 8.0 * self.weight.itemsize


@dataclass(frozen=True, eq=False)
class GroupedInt(Format):
    """W = scale * (codes - zero), one scale and zero point per row and group of `group_size` inputs.

    scale [out, groups]; codes [out, in] and zeros [out, groups] are packed at `bits` each. The last group may
    be short; a `group_size` of None makes the row one group.
    """

    name: ClassVar[str] = "grouped-int"
    codes: Tensor
    zeros: Tensor
    scale: Tensor
    bits: int
    group_size: int | None

    def layout(self) -> dict[str, tuple[Dtypes, tuple[int, ...]]]:
        if not 1 <= self.bits <= 8:
            raise ValueError(f"{self.name} takes codes of 1 to 8 bits, got {self.bits}")
        rows, groups = self.shape[0], -(-self.shape[1] // self.group_width)
        return {
            "codes": (BYTES, (rows, row_bytes(self.shape[1], self.bits))),
            "zeros": (BYTES, (rows, row_bytes(groups, self.bits))),
            "scale": (FLOATS, (rows, groups)),
        }

    @property
    def group_width(self) -> int:
        """Inputs that share a scale."""
        return self.group_size or self.shape[1]

    def dequantize(self) -> Tensor:
        groups = self.scale.shape[1]
        codes = unpack(self.codes, self.bits, self.shape[1])  # [out, in]
        codes = functional.pad(codes, (0, groups * self.group_width - self.shape[1]))
        zeros = unpack(self.zeros, self.bits, groups)[..., None]  # [out, groups, 1]
        steps = codes.view(self.shape[0], groups, -1) - zeros  # [out, groups, group_width]
        return (self.scale.float()[..., None] * steps).flatten(1)[:, : self.shape[1]]

    @property
    def nominal_bits(self) -> float:
        return float(self.bits)


@dataclass(frozen=True, eq=False)
class Codebook(Format):
    """W = codebook[codes] * r_out[:, None] * r_in[None, :].

    codebook [K, d]; codes [out, ceil(in / d)] packed at log2 K bits, which must be whole; r_out [out] and
    r_in [in]. Elements past the last input are dropped.
    """

    name: ClassVar[str] = "codebook"
    codes: Tensor
    codebook: Tensor
    r_out: Tensor
    r_in: Tensor

    def layout(self) -> dict[str, tuple[Dtypes, tuple[int, ...]]]:
        size, dim = self.codebook.shape
        if size != 2**self.code_bits:
            raise ValueError(f"{self.name} takes a power of two of codewords, got {size}")
        rows, width = self.shape
        return {
            "codes": (BYTES, (rows, row_bytes(-(-width // dim), self.code_bits))),
            "codebook": (FLOATS, (size, dim)),
            "r_out": (FLOATS, (rows,)),
            "r_in": (FLOATS, (width,)),
        }

    @property
    def code_bits(self) -> int:
        """Bits of one code."""
        return (len(self.codebook) - 1).bit_length()

    def dequantize(self) -> Tensor:
        rows, width = self.shape
        codes = unpack(self.codes, self.code_bits, -(-width // self.codebook.shape[1]))
        normalized = functional.embedding(codes, self.codebook.float()).view(rows, -1)[:, :width]
        return normalized * self.r_out.float()[:, None] * self.r_in.float()

    @property
    def nominal_bits(self) -> float:
        return self.code_bits / self.codebook.shape[1]


@dataclass(frozen=True, eq=False)
class Masked(Format):
    """A bit per weight that says whether it is kept, and the kept weights [kept] in row order."""

    name: ClassVar[str] = "masked"
    mask: Tensor
    values: Tensor

    @classmethod
    def of(cls, weight: Tensor, keep: Tensor) -> Self:
        """The weights [out, in] where the boolean keep [out, in] is set."""
        return cls((weight.shape[0], weight.shape[1]), pack(keep, 1), weight[keep])

    def layout(self) -> dict[str, tuple[Dtypes, tuple[int, ...]]]:
        mask = (BYTES, (self.shape[0], row_bytes(self.shape[1], 1)))
        return {"mask": mask, "values": (FLOATS, (self.values.numel(),))}

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
        positions = mask.view(-1, of).nonzero()[:, 1]
        if len(positions) * of != weight.numel() * keep:
            raise ValueError(f"{len(positions)} weights are kept of {weight.numel()}, not {keep} of {of}")
        indices = pack(positions.view(rows, -1), (of - 1).bit_length())
        return cls((rows, width), weight[mask].view(rows, -1, keep), indices, keep, of)

    def layout(self) -> dict[str, tuple[Dtypes, tuple[int, ...]]]:
        rows, width = self.shape
        if not 1 <= self.keep < self.of or width % self.of:
            raise ValueError(f"{self.name} cannot keep {self.keep} of {self.of} in rows of {width}")
        groups = width // self.of
        packed = (rows, row_bytes(groups * self.keep, self.index_bits))
        return {"values": (FLOATS, (rows, groups, self.keep)), "indices": (BYTES, packed)}

    @property
    def index_bits(self) -> int:
        """Bits of one position within a group."""
        return (self.of - 1).bit_length()

    def dequantize(self) -> Tensor:
        rows, groups, keep = self.values.shape
        indices = unpack(self.indices, self.index_bits, groups * keep).view(rows, groups, keep).long()
        dense = torch.zeros(rows, groups, self.of, device=indices.device)
        return dense.scatter_(2, indices, self.values.float()).flatten(1)

    @property
    def nominal_bits(self) -> float:
        return 8.0 * self.values.itemsize * self.keep / self.of


FORMATS: dict[str, type[Format]] = {each.name: each for each in (Dense, GroupedInt, Codebook, Masked, NMSparse)}
