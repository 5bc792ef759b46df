"""Medians with their spread on one device, and the ceilings against which they are read."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Generic, TypeVar

import torch

from suite.graphs import recorded

T = TypeVar("T")

PATIENCE_MS = 1000.0
"""No further run begins once the timed runs add up to this, so what takes longer runs once."""

COPY_BYTES = {"cuda": 1 << 30, "cpu": 1 << 26}
MATMUL_SIZE = {"cuda": 8192, "cpu": 512}
BF16_SIZE = {"cuda": 8192, "cpu": 512}


@dataclass(frozen=True)
class Timing(Generic[T]):
    """The median of some runs in ms, (slowest - fastest) / median, and what the last run returned."""

    ms: float
    spread: float
    runs: int
    output: T
    graph: bool = False


@dataclass(frozen=True)
class Ceilings:
    """What the device was measured to do: bytes read plus written a second, and operations a second."""

    copy_bytes: float
    fp32_flops: float
    bf16_flops: float


def timed(work: Callable[[], T], device: torch.device, repeat: int, *, warm: bool = True) -> Timing[T]:
    """Time `work` up to `repeat` times after one run that does not count, unless the caller has warmed it up."""
    if warm:
        work()
    spans: list[float] = []
    while len(spans) < repeat and sum(spans) < PATIENCE_MS:
        span, output = _span(work, device)
        spans.append(span)
    middle = median(spans)
    return Timing(middle, (max(spans) - min(spans)) / middle, len(spans), output)


def timed_replays(work: Callable[[], T], device: torch.device, repeat: int) -> Timing[T]:
    """The same for work of many short launches: replayed as a CUDA graph where it can be recorded.

    Outputs of a graph are those that its last replay left at fixed addresses.
    """
    outputs: list[T] = []

    def keeping() -> None:
        outputs[:] = [work()]

    replay = recorded(keeping, device)
    timing = timed(replay.again, device, repeat)
    return Timing(timing.ms, timing.spread, timing.runs, outputs[0], replay.trouble is None)


def ceilings(device: torch.device) -> Ceilings:
    """Measure a copy and two square products on random data; TF32 must be off."""
    kind = device.type
    source = torch.randn(COPY_BYTES[kind] // 4, device=device)
    target = torch.empty_like(source)
    copy = timed(lambda: target.copy_(source), device, repeat=10)
    rates = []
    for size, dtype in ((MATMUL_SIZE[kind], torch.float32), (BF16_SIZE[kind], torch.bfloat16)):
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        product = timed(lambda a=a, b=b: a @ b, device, repeat=10)  # type: ignore[misc]
        rates.append(2e3 * size**3 / product.ms)
    return Ceilings(2e3 * source.nbytes / copy.ms, *rates)


def _span(work: Callable[[], T], device: torch.device) -> tuple[float, T]:
    """Milliseconds of one run, and what it returned."""
    if device.type != "cuda":
        start = time.perf_counter()
        output = work()
        return 1e3 * (time.perf_counter() - start), output
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize(device)
    first.record()
    output = work()
    last.record()
    torch.cuda.synchronize(device)
    return first.elapsed_time(last), output
