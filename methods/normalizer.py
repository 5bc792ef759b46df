"""NoWag's normalisation (arXiv:2504.14569): columns to unit length, then rows; no mean is removed.

Any method can be run on a normalised weight, or on one with its columns or rows alone normalised. H stays as it
is: the error is measured on the normalised weights, which is NoWag's objective.
"""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from kernels.format import stored

EPSILON = 1e-5

Normalize = Annotated[
    Literal["none", "columns", "rows", "nowag"],
    Field(description="what is normalised before the method sees the weight; nowag: columns, then rows"),
]


def normalize(
    weight: Tensor, dtype: torch.dtype = torch.float32, how: Normalize = "nowag"
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """W [out, in] float32 -> W_bar [out, in] float32, r_out [out] and r_in [in] in `dtype`, or None if left alone.

    W = W_bar * r_out[:, None] * r_in[None, :] holds for the norms as they are stored: each is rounded before
    anything is divided by it. ValueError when a norm overflows `dtype`.
    """
    r_out = r_in = None
    if how in ("columns", "nowag"):
        r_in = stored(weight.norm(dim=0) + EPSILON, dtype, "column norms")
        weight = weight / r_in.float()
    if how in ("rows", "nowag"):
        r_out = stored(weight.norm(dim=1) + EPSILON, dtype, "row norms")
        weight = weight / r_out.float()[:, None]
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
