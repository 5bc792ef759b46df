"""NoWag's normalisation (arXiv:2504.14569): columns to unit length, then rows; no mean is removed.

Any method can be run on a normalised weight, or on one with its columns or rows alone normalised. H stays as it
is: the error is measured on the normalised weights, which is NoWag's objective.
"""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from kernels.format import Norms, stored

EPSILON = 1e-5

Normalize = Annotated[
    Literal["none", "columns", "rows", "nowag"],
    Field(description="what is normalised before the method sees the weight; nowag: columns, then rows"),
]


def norms_of(how: Normalize) -> Norms:
    """Which norms a weight that was normalised so needs to be undone."""
    return Norms(how in ("rows", "nowag"), how in ("columns", "nowag"))


def normalize(
    weight: Tensor, dtype: torch.dtype = torch.float32, how: Normalize = "nowag"
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """W [out, in] float32 -> W_bar [out, in] float32, r_out [out] and r_in [in] in `dtype`, or None if left alone.

    W = W_bar * r_out[:, None] * r_in[None, :] holds for the norms as they are stored: each is rounded before
    anything is divided by it. ValueError when a norm overflows `dtype`.
    """
    weight, r_out, r_in = _normed(weight, dtype, how)
    return weight if r_out is None else weight / r_out.float()[:, None], r_out, r_in


def norms(
    weight: Tensor, dtype: torch.dtype = torch.float32, how: Normalize = "nowag"
) -> tuple[Tensor | None, Tensor | None]:
    """r_out and r_in alone, as `normalize` gives them for W [out, in] in any dtype."""
    return (None, None) if how == "none" else _normed(weight.float(), dtype, how)[1:]


def _normed(weight: Tensor, dtype: torch.dtype, how: Normalize) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """W [out, in] divided by r_in alone, r_out and r_in, which are checked at once: a check awaits the device."""
    exact: dict[str, Tensor] = {}
    r_out = r_in = None
    by = norms_of(how)
    if by.columns:
        exact["column norms"] = weight.norm(dim=0) + EPSILON
        r_in = exact["column norms"].to(dtype)
        weight = weight / r_in.float()
    if by.rows:
        exact["row norms"] = weight.norm(dim=1) + EPSILON
        r_out = exact["row norms"].to(dtype)
    rounded = [each for each in (r_in, r_out) if each is not None]
    if rounded and not torch.cat(rounded).amax() < math.inf:
        for what, values in exact.items():
            stored(values, dtype, what)
    return weight, r_out, r_in


def unit_rms(
    w_bar: Tensor, r_out: Tensor | None, r_in: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """W_bar [out, in] and its norms with the last of them, rows or else columns, as a root mean square.

    A row of length one has elements of size 1 / sqrt(in); these are of size 1 whatever the width.
    """
    rows, width = w_bar.shape
    if r_out is not None:
        norms = _smaller(r_out, math.sqrt(width))
        return w_bar * (r_out.float() / norms.float())[:, None], norms, r_in
    if r_in is not None:
        norms = _smaller(r_in, math.sqrt(rows))
        return w_bar * (r_in.float() / norms.float()), None, norms
    return w_bar, None, None


def _smaller(norms: Tensor, factor: float) -> Tensor:
    limits = torch.finfo(norms.dtype)
    return stored(norms.float() / factor, norms.dtype, "norms").clamp_min(limits.smallest_normal * limits.eps)


def normalize_variant(how: Normalize, usual: Normalize = "none") -> str:
    """How a table prints the setting: nothing where it is the method's own, else ` norm=columns`."""
    return "" if how == usual else f" norm={how}"
