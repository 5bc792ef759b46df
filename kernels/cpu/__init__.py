"""Loops compiled by Numba. Only the wrappers in `kernels` import them, and only where `compiled` says so."""

import functools
import importlib
import logging

from torch import Tensor

from kernels import backend

logger = logging.getLogger(__name__)


def compiled(tensor: Tensor) -> bool:
    """Whether operations on this tensor take the compiled loops; never inside `backend.plain_torch`."""
    return tensor.device.type == "cpu" and not backend.plain() and trouble() is None


@functools.cache
def trouble() -> str | None:
    """Why there are no compiled loops, or None. Said once on the log: results stay right, but slow.

    Numba raises ImportError where it is missing or does not know this Python or NumPy, and RuntimeError where no
    folder takes what it compiles.
    """
    try:
        importlib.import_module("kernels.cpu.kmeans")
    except (ImportError, RuntimeError) as error:
        logger.warning("Numba cannot be used: %s; plain PyTorch takes its place, several times slower", error)
        return str(error)
    return None
