"""The smallest kernel there is: whether Triton can compile here at all."""

from contextlib import nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _add_one(x, SIZE: tl.constexpr):
    at = x + tl.arange(0, SIZE)
    tl.store(at, tl.load(at) + 1)


def probe(device: torch.device) -> None:
    """Compile and run it. RuntimeError where the result is wrong; what Triton raises where it cannot."""
    x: Tensor = torch.zeros(16, device=device)
    with (
        torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    ):  # Triton launches on the current one
        _add_one[(1,)](x, SIZE=16)
    if not bool((x == 1).all()):
        raise RuntimeError("a Triton kernel gave a wrong result")
