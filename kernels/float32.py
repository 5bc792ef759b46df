"""Products of float32 matrices on GPUs, y = x Wᵀ and XᵀX: large ones by kernels that split their operands.

PyTorch has two ways: float32's own units, a sixteenth as fast as those for bfloat16, or TF32, which drops 13 of 24
bits. The kernels take neither: they add up three or six products of bfloat16, and no bit is lost by that
(kernels.gpu.float32).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from kernels.backend import fused

LEAST_TOKENS, LEAST_OPERATIONS = 512, 2**35
"""Smaller products stay with PyTorch: on an H100, launches and splitting take as long as there is to be won."""

LEAST_SQUARE = 1024
"""Inputs from which the same holds of XᵀX, of which narrower ones have too few tiles."""

ROW_BLOCK = 1024
"""Rows of XᵀX in one product of PyTorch's, which leaves out the blocks below the diagonal."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """torch.nn.functional.linear: x [..., in], weight [out, in], bias [out] to [..., out].

    Kernels compute it for large float32 on a GPU that asks for no gradient, PyTorch whatever else there is.
    """
    if not _by_kernels(x, weight, bias):
        return functional.linear(x, weight, bias)
    from kernels.gpu import float32

    y = float32.linear(x.reshape(-1, x.shape[-1]).contiguous(), weight)
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], len(weight))


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
    """Inside, torch.nn.functional.linear, and so every nn.Linear of this thread, is `linear`."""
    with _Linears():
        yield


class _Linears(TorchFunctionMode):
    """Inside a mode's own function the mode is off, so that what `linear` leaves to PyTorch gets there."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Whatever PyTorch is asked for."""
        return (linear if func is functional.linear else func)(*args, **(kwargs or {}))


def _by_kernels(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    operands = [x, weight, *([] if bias is None else [bias])]
    wanted = torch.is_grad_enabled() and any(each.requires_grad for each in operands)
    plain = all(each.dtype == torch.float32 and each.device == x.device for each in operands)
    return plain and not wanted and weight.dim() == 2 and weight.is_contiguous() and _large(x, len(weight))


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
