"""CUDA graphs: the launches of a piece of work, recorded once and replayed without Python in between."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

WARM_UPS = 3
"""Runs before the one that looks for waiting."""


@dataclass(frozen=True)
class Replay:
    """Work that can be repeated at the same addresses; `trouble` says why it is called and not replayed."""

    again: Callable[[], object]
    trouble: str | None


def recorded(work: Callable[[], object], device: torch.device) -> Replay:
    """Run `work` a few times, then record it as a CUDA graph where device and work allow that.

    Work that waits for the GPU cannot be recorded. It is found out before the recording, which it would spoil.
    """
    if device.type != "cuda":
        work()
        return Replay(work, f"no CUDA graphs on {device.type}")
    graph = torch.cuda.CUDAGraph()
    try:
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                work()
            with _no_waiting():
                work()
        torch.cuda.current_stream(device).wait_stream(side)
        with torch.cuda.graph(graph):
            work()
    except RuntimeError as error:
        torch.cuda.synchronize(device)
        return Replay(work, str(error).strip().splitlines()[0])
    return Replay(graph.replay, None)


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Inside, an operation that makes the host wait for the GPU is a RuntimeError."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the mode is a prototype
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)
