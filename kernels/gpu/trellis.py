"""The search for walks through a trellis in CUDA C++ (trellis.cu): costs of 2^14 overlaps stay in shared memory.

Costs are rounded otherwise than in `kernels.trellis`, by a fused multiply-add and another unit: a near tie may be
decided otherwise. Values of states are the same to the bit, and so are the walks whatever the number of blocks.
"""

import functools
import logging
from pathlib import Path

import torch
from torch import Tensor

from kernels.gpu import nvrtc
from kernels.trellis import LENGTH, SCRAMBLERS, Bitshift, moments

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("trellis.cu")
CODES = {"1mad": 0, "3inst": 1}
CHOICE_BYTES = {2: 1, 3: 4, 4: 8}
"""Bytes of the choices that a thread makes in a step, by bits a weight."""

STATIC_BYTES = 64
"""Shared memory that trellis.cu takes beside its costs, rounded up."""

THREADS, MOST_BLOCKS = 1024, 16
"""Threads of a multiprocessor, and the most blocks that they are cut into: more would need more scratch."""


def search(trellis: Bitshift, x: Tensor) -> Tensor:
    """x [n, 256] float32 to the states int32 [n, 256] of cyclic walks near it."""
    roots, threads = _roots(trellis), _threads(trellis)
    properties = torch.cuda.get_device_properties(x.device)
    grid = min(len(x), properties.multi_processor_count * min(THREADS // threads, MOST_BLOCKS))
    states = torch.empty(x.shape, dtype=torch.int32, device=x.device)
    if not grid:
        return states
    scratch = grid * LENGTH * roots * CHOICE_BYTES[trellis.bits]  # at most 0.3 GB on 132 multiprocessors
    back = torch.empty(scratch, dtype=torch.uint8, device=x.device)
    kernel = _kernel(trellis, x.device.index or 0)
    arguments = x.contiguous(), back, states, *moments(trellis.code, trellis.state_bits), len(x)
    with torch.cuda.device(x.device):
        kernel(grid, threads, _shared_bytes(trellis), arguments)
    return states


@functools.cache
def usable(trellis: Bitshift, device: torch.device) -> bool:
    """Whether the kernel runs on a GPU: Volta or later, with PyTorch's bindings and enough shared memory."""
    if not nvrtc.available() or torch.cuda.get_device_capability(device) < (7, 0):
        return False
    if _shared_bytes(trellis) + STATIC_BYTES > nvrtc.most_shared_bytes(device):
        logger.warning(
            "%s: too little shared memory for %d state bits, PyTorch is used", device, trellis.state_bits
        )
        return False
    try:
        _kernel(trellis, device.index or 0)
    except (RuntimeError, ImportError) as error:
        logger.warning("%s: CUDA C++ cannot be compiled, PyTorch is used: %s", device, str(error).splitlines()[0])
        return False
    return True


def defines(trellis: Bitshift) -> list[str]:
    """What trellis.cu is compiled with."""
    scrambler = SCRAMBLERS[trellis.code]
    values = {
        "BITS": trellis.bits,
        "STATE_BITS": trellis.state_bits,
        "CODE": CODES[trellis.code],
        "SCRAMBLE_A": f"{scrambler.a}u",
        "SCRAMBLE_B": f"{scrambler.b}u",
        "STEPS": LENGTH,
        "THREADS": _threads(trellis),
    }
    return [f"{name}={value}" for name, value in values.items()]


@functools.cache
def _kernel(trellis: Bitshift, device: int) -> nvrtc.Kernel:
    return nvrtc.Kernel((SOURCE,), "search", defines(trellis), device)


def _roots(trellis: Bitshift) -> int:
    """Overlaps that differ in what a step does not shift in: a thread takes one, or several."""
    return trellis.overlaps >> trellis.bits


def _threads(trellis: Bitshift) -> int:
    return min(max(_roots(trellis), 32), THREADS)


def _shared_bytes(trellis: Bitshift) -> int:
    """Two tables of float32 costs."""
    return 2 * 4 * trellis.overlaps
