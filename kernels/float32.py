"""Products of float32 matrices on GPUs, y = x Wᵀ and XᵀX: large ones by kernels that split their operands.

PyTorch has two ways: float32's own units, a sixteenth as fast as those for bfloat16, or TF32, which drops 13 of 24
bits. The kernels take neither: they add up three or six products of bfloat16, and no bit is lost by that
(kernels.gpu.float32).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kernels.backend import fused

_of_pytorch = functional.linear  # also while `fast_linears` has ours in its place

LEAST_TOKENS, LEAST_OPERATIONS = 512, 2**35
"""Smaller products stay with PyTorch: on an H100, launches and splitting take as long as there is to be won."""

LEAST_SQUARE = 1024
"""Inputs from which the same holds of XᵀX, of which narrower ones have too few tiles."""

ROW_BLOCK = 1024
"""Rows of XᵀX in one product of PyTorch's, which leaves out the blocks below the diagonal."""


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: A002 - PyTorch's name
    """torch.nn.functional.linear, by its names: input [..., in], weight [out, in], bias [out] to [..., out].

    Kernels compute it for large float32 on a GPU that asks for no gradient, PyTorch whatever else there is.
    """
    if not _by_kernels(input, weight, bias):
        return _of_pytorch(input, weight, bias)
    from kernels.gpu import float32

    y = float32.linear(input.reshape(-1, input.shape[-1]).contiguous(), weight)
    if bias is not None:
        y += bias
    return y.reshape(*input.shape[:-1], len(weight))


def add_gram(gram: Tensor, rows: Tensor) -> None:
    """gram [in, in] += XᵀX for X [tokens, in], float32, on the diagonal and above; below it anything may be left.

    On CUDA the caller must have switched TF32 off.
    """
    if len(gram) >= LEAST_SQUARE and _large(rows, len(gram)):
        from kernels.gpu import float32

        float32.add_gram(gram, rows.contiguous())
        return
    for at in range(0, len(gram), ROW_BLOCK):
        some = slice(at, at + ROW_BLOCK)
        gram[some, at:].addmm_(rows[:, some].T, rows[:, at:])


@contextmanager
def fast_linears() -> Iterator[None]:
    """Inside, torch.nn.functional.linear, and so every nn.Linear, is `linear`.

    It is put in the other's place: a mode of torch.overrides would cost each operation a microsecond of the host,
    and a small model's forward on a GPU nearly twice the time that its launches take.
    """
    before = functional.linear
    functional.linear = linear
    try:
        yield
    finally:
        functional.linear = before


def _by_kernels(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    if weight.dim() != 2 or not _large(x, len(weight)):
        return False
    operands = [x, weight, *([] if bias is None else [bias])]
    wanted = torch.is_grad_enabled() and any(each.requires_grad for each in operands)
    plain = all(each.dtype == torch.float32 and each.device == x.device for each in operands)
    return plain and not wanted and weight.is_contiguous()


def _large(x: Tensor, outputs: int) -> bool:
    """Whether x [..., in] times as many outputs is worth the kernels, and they may have it."""
    if x.dtype != torch.float32 or not x.is_cuda or torch.is_autocast_enabled("cuda"):
        return False
    tokens = x.numel() // max(1, x.shape[-1])
    return tokens >= LEAST_TOKENS and 2 * x.numel() * outputs >= LEAST_OPERATIONS and fused(x) and _has_room(x)


def _has_room(x: Tensor) -> bool:
    """Whether the GPU has the shared memory and the units that the kernels are made for."""
    from kernels.gpu.float32 import SHARED_BYTES

    device: Any = torch.cuda.get_device_properties(x.device)
    return bool(device.major >= 8 and device.shared_memory_per_block_optin >= SHARED_BYTES)
