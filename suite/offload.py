"""Hidden states that wait in host memory: brought to the device one batch ahead, and taken back behind it.

On CUDA both copies run on streams of their own, while the block computes, if the host memory is pinned.
"""

from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor

IN_FLIGHT = 2
"""Batches whose block may still be running when the next one is sent for: more would only fill the device."""


class Ferry:
    """Carries the hidden states of one pass over a block. Where they do not wait, it has nothing to do."""

    def __init__(self, device: torch.device, waiting: bool) -> None:
        self._device, self._waiting = device, waiting
        self._on_cuda = waiting and device.type == "cuda"
        self._up: torch.cuda.Stream | None = None
        self._down: torch.cuda.Stream | None = None
        if self._on_cuda:
            self._up, self._down = torch.cuda.Stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._over: deque[torch.cuda.Event] = deque()  # one for each batch that is done but for its copies

    def arrivals(self, homes: Iterator[Tensor]) -> Iterator[Tensor]:
        """Each of the hidden states on the device, in order. At the end, what `leave` was given is home."""
        if not self._waiting:
            yield from homes
            return
        coming = self._sent(homes)
        while coming is not None:
            hidden, sent = coming
            self._throttle()
            coming = self._sent(homes)
            if sent is not None:
                here = torch.cuda.current_stream(self._device)
                here.wait_event(sent)
                hidden.record_stream(here)  # else its memory could be taken for the next upload
            yield hidden
            self._note()
        if self._down is not None:
            self._down.synchronize()

    def leave(self, home: Tensor, hidden: Tensor) -> Tensor:
        """Where the block's output is kept: in its input's place if that waits, and else where it is."""
        if not self._waiting:
            return hidden
        if self._down is not None:
            self._down.wait_stream(torch.cuda.current_stream(self._device))
            hidden.record_stream(self._down)
        with torch.cuda.stream(self._down):
            return home.copy_(hidden, non_blocking=self._on_cuda)

    def _sent(self, homes: Iterator[Tensor]) -> tuple[Tensor, torch.cuda.Event | None] | None:
        """The next hidden states, on their way to the device, and what tells that they are there."""
        home = next(homes, None)
        if home is None:
            return None
        with torch.cuda.stream(self._up):
            hidden = home.to(self._device, non_blocking=self._on_cuda)
        return hidden, None if self._up is None else self._up.record_event()

    def _note(self) -> None:
        if self._down is not None:
            self._down.wait_stream(torch.cuda.current_stream(self._device))
            self._over.append(self._down.record_event())

    def _throttle(self) -> None:
        while len(self._over) >= IN_FLIGHT:
            self._over.popleft().synchronize()
