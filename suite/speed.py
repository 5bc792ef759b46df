"""One stopwatch for the project, seconds and peak memory of a phase, and one way to be at work on a device."""

import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from kernels.float32 import fast_linears
from suite.environment import GIB
from suite.errors import ConfigError


@dataclass
class Phase:
    """What a phase took; filled in when it ends."""

    seconds: float = 0.0
    peak_memory_gib: float = 0.0
    peak_device_memory_gib: float | None = None

    def after(self, earlier: "Phase") -> "Phase":
        """Both phases as one."""
        peaks = [p for p in (self.peak_device_memory_gib, earlier.peak_device_memory_gib) if p is not None]
        return Phase(
            self.seconds + earlier.seconds,
            max(self.peak_memory_gib, earlier.peak_memory_gib),
            max(peaks, default=None),
        )


@contextmanager
def measured() -> Iterator[Phase]:
    """Time the body. Peak host memory is the process's resident high-water mark, reset at the start (Linux).

    Where the mark cannot be reset (other systems), it covers the process from its start.
    """
    phase = Phase()
    on_gpu = torch.cuda.is_available()
    _reset_resident_peak()
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    try:
        yield phase
    finally:
        if on_gpu:
            torch.cuda.synchronize()
            phase.peak_device_memory_gib = torch.cuda.max_memory_allocated() / GIB
        phase.seconds = time.perf_counter() - start
        phase.peak_memory_gib = _resident_peak() / GIB


@contextmanager
def at_work(device: torch.device) -> Iterator[None]:
    """Inside, streams, events, graphs and counts of memory are those of this device, float32 is no TF32, and large
    linears in it have kernels."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with ExitStack() as stack:
            if device.type == "cuda":
                stack.enter_context(torch.cuda.device(device))
                stack.enter_context(fast_linears())
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def limited(device: torch.device, gib: float) -> Iterator[None]:
    """Inside, this process may take so many GiB of a GPU and no more, what the allocator keeps unused included.

    ConfigError for a CPU.
    """
    if device.type != "cuda":
        raise ConfigError(f"device_gib is {gib:g}, a limit of GPU memory, and this is {device}: leave it out")
    where = torch.cuda.current_device() if device.index is None else device.index
    whole = torch.cuda.get_device_properties(where).total_memory / GIB
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, gib / whole), where)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, where)


def _reset_resident_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _resident_peak() -> int:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
