"""The contract of a compressed weight: frozen tensors that know their layout and size, and how to become W again.

A format stores what `tensors()` returns and nothing else; `meta()` holds the few numbers needed to read them.
Weights that are kept stay in the dtype they came in, bit for bit. Side parameters (scales, norms, codebooks)
take `side_dtype` of the weight, and quantisers round them with `stored` before they choose codes.
"""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

Dtypes = tuple[torch.dtype, ...]
Meta = dict[str, int | float | str | list[int] | None]

BYTES: Dtypes = (torch.uint8,)
FLOATS: Dtypes = (torch.float16, torch.bfloat16, torch.float32)


class Part(NamedTuple):
    """One stored tensor: allowed dtypes, shape, what it holds, and how many of its bits carry something.

    `used_bits` is None where every bit does; the rest is what rounding rows up to whole bytes costs.
    """

    dtypes: Dtypes
    shape: tuple[int, ...]
    kind: str
    used_bits: int | None = None


class Norms(NamedTuple):
    """Whether a weight was divided by norms of its rows, and of its columns."""

    rows: bool = False
    columns: bool = False

    @classmethod
    def among(cls, r_out: Tensor | None, r_in: Tensor | None) -> Self:
        """Those that are there."""
        return cls(r_out is not None, r_in is not None)


def bits_of(layout: Mapping[str, Part], width: int) -> int:
    """Bits on disk of a layout before there is a tensor, beside weights whose storage dtype has `width` bits.

    All floats have that width: kept weights by their dtype, side parameters by `side_dtype`.
    """
    return sum(math.prod(part.shape) * (8 if part.dtypes == BYTES else width) for part in layout.values())


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
    def layout(self) -> dict[str, Part]:
        """What is stored, by name."""

    @abstractmethod
    def dequantize(self) -> Tensor:
        """The weight [out, in] in float32."""

    @property
    @abstractmethod
    def nominal_bits(self) -> float:
        """Bits per weight of the codes, or of the kept values, alone."""

    def __post_init__(self) -> None:
        held = self.tensors()
        for name, part in self.layout().items():
            tensor = held[name]
            if tensor.dtype not in part.dtypes or tuple(tensor.shape) != part.shape:
                allowed = " or ".join(str(dtype) for dtype in part.dtypes)
                found = f"{tensor.dtype} {tuple(tensor.shape)}"
                raise ValueError(f"{self.name}.{name} is {found}, must be {allowed} {part.shape}")

    def tensors(self) -> dict[str, Tensor]:
        """Exactly what is stored, by name."""
        return {name: getattr(self, name) for name in self.layout()}

    def continuous(self) -> tuple[str, ...]:
        """The names of what is stored as floats. `dequantize` is differentiable in these."""
        return tuple(name for name, part in self.layout().items() if part.dtypes == FLOATS)

    def meta(self) -> Meta:
        """All that is not a stored tensor, as JSON values; a tensor that this weight does without is None."""
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

    def with_tensors(self, changed: Mapping[str, Tensor]) -> Self:
        """The same weight with other tensors in place of some of those that are stored."""
        others: dict[str, Any] = dict(changed)
        return replace(self, **others)

    def storage_bits(self) -> int:
        """Bits on disk: those of every stored tensor, padding included."""
        return sum(self.breakdown().values())

    def breakdown(self, elsewhere: Container[int] = ()) -> dict[str, int]:
        """Where the bits on disk go: by kind of part, and `padding` for what rounds rows up to whole bytes.

        Tensors whose id is `elsewhere` are stored with another weight, and cost nothing here.
        """
        bits: dict[str, int] = {}
        held = self.tensors()
        for name, part in self.layout().items():
            tensor = held[name]
            if id(tensor) in elsewhere:
                continue
            whole = 8 * tensor.nbytes
            used = whole if part.used_bits is None else part.used_bits
            bits[part.kind] = bits.get(part.kind, 0) + used
            if whole > used:
                bits["padding"] = bits.get("padding", 0) + whole - used
        return bits

    def to(self, device: torch.device | str) -> Self:
        """The same weight on another device."""
        return self.with_tensors({name: tensor.to(device) for name, tensor in self.tensors().items()})


def breakdown_of(weights: Iterable[Format]) -> Counter[str]:
    """Bits of several weights by kind of part. A tensor that they share counts once, as it is stored."""
    bits: Counter[str] = Counter()
    seen: set[int] = set()
    for weight in weights:
        bits.update(weight.breakdown(seen))
        seen |= {id(tensor) for tensor in weight.tensors().values()}
    return bits


def norms_layout(shape: tuple[int, int], norms: Norms) -> dict[str, Part]:
    """The norms r_out [out] and r_in [in], of those that a weight (out, in) was divided by."""
    lengths = {"r_out": (norms.rows, shape[0]), "r_in": (norms.columns, shape[1])}
    return {name: Part(FLOATS, (length,), "norms") for name, (there, length) in lengths.items() if there}


def denormalized(weight: Tensor, r_out: Tensor | None, r_in: Tensor | None) -> Tensor:
    """weight [out, in] * r_out[:, None] * r_in[None, :], without the norms that are None."""
    if r_out is not None:
        weight = weight * r_out.float()[:, None]
    return weight if r_in is None else weight * r_in.float()
