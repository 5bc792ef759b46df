"""Where an operation is computed: by a Triton kernel on a GPU that has them, by plain PyTorch elsewhere."""

import functools
import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

_plain: ContextVar[bool] = ContextVar("plain", default=False)


def plain() -> bool:
    """Whether the references are asked for."""
    return _plain.get()


def fused(tensor: Tensor) -> bool:
    """Whether operations on this tensor take the Triton kernels."""
    return tensor.is_cuda and not plain() and trouble(tensor.device) is None


@contextmanager
def plain_torch() -> Iterator[None]:
    """Inside, nothing takes a Triton kernel: the references, on whatever device."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


@functools.cache
def trouble(device: torch.device) -> str | None:
    """Why Triton kernels cannot run on a GPU, or None. Said once on the log: results stay right, but slow."""
    if importlib.util.find_spec("triton") is None:
        reason = "triton is not installed"
    else:
        try:
            from kernels.gpu.probe import probe

            probe(device)
            return None
        except Exception as error:  # noqa: BLE001 - Triton fails in many ways: no C compiler, an old GPU, …
            reason = f"Triton cannot compile: {str(error).strip().splitlines()[0] if str(error) else type(error)}"
    logger.warning("%s: %s; plain PyTorch is used, which is many times slower", device, reason)
    return reason
