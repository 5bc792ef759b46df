"""NoWag's normalisation (arXiv:2504.14569): columns to unit length, then rows; no mean is removed."""

import torch
from torch import Tensor

from kernels.formats import stored

EPSILON = 1e-5


def normalize(weight: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """W [out, in] float32 -> W_bar [out, in] float32, r_out [out] and r_in [in] in `dtype`.

    W = W_bar * r_out[:, None] * r_in[None, :] holds for the norms as they are stored: each is rounded before
    anything is divided by it. ValueError when a norm overflows `dtype`.
    """
    r_in = stored(weight.norm(dim=0) + EPSILON, dtype, "column norms")
    scaled = weight / r_in.float()
    r_out = stored(scaled.norm(dim=1) + EPSILON, dtype, "row norms")
    return scaled / r_out.float()[:, None], r_out, r_in
