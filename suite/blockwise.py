"""Logits of windows, from the whole model on the device or block by block, where it does not fit.

Block by block all windows of a sweep go through one block before the next is read. A window goes through a block
by itself either way, with the same arguments, so that both ways do the same arithmetic.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from suite.architecture import decoder_blocks
from suite.calibrate import Batch, Call, advance, bypassed, first_inputs
from suite.progress import track
from suite.streaming import in_blocks, outside_placed, placed, to_device

SWEEP_BYTES = 16 << 30
"""Of hidden states that go through the blocks together: each sweep reads a streamed model once."""

Arithmetic = Callable[[], AbstractContextManager[object]]


def all_logits(
    model: PreTrainedModel,
    tokens: Tensor,
    device: torch.device,
    what: str,
    batch: int = 1,
    arithmetic: Arithmetic = nullcontext,
) -> Iterator[Tensor]:
    """tokens [windows, length] -> of each batch of windows, float32 logits of all but the last token
    [batch, length - 1, vocabulary], on the device.

    `arithmetic` makes the context (an autocast) of whatever the model computes; `what` is for the progress.
    """
    if not in_blocks(model, device):
        to_device(model, device)
        for some in track(torch.split(tokens, batch), what):
            yield logits_of(model, some.to(device), arithmetic)
        return
    for sweep in _sweeps(tokens, batch, model.config.get_text_config().hidden_size):
        yield from _swept(model, sweep, device, what, batch, arithmetic)


@torch.no_grad()
def logits_of(model: nn.Module, tokens: Tensor, arithmetic: Arithmetic = nullcontext) -> Tensor:
    """tokens [windows, length] -> float32 logits of all but the last token [windows, length - 1, vocabulary]."""
    with arithmetic():
        logits: Tensor = model(input_ids=tokens, use_cache=False).logits
    return logits[:, :-1].float()


def to_host(model: nn.Module) -> None:
    """Take a model off whatever device it was measured on."""
    to_device(model, torch.device("cpu"))


def _swept(
    model: PreTrainedModel, tokens: Tensor, device: torch.device, what: str, batch: int, arithmetic: Arithmetic
) -> Iterator[Tensor]:
    blocks = decoder_blocks(model)
    with outside_placed(model, device):
        with arithmetic():
            waiting = first_inputs(model, tokens, batch, device)
        for index, block in enumerate(track(blocks, f"{what}, block by block")):
            with placed(block.module, device), arithmetic():
                advance(block, index, waiting)
        yield from _ended(model, torch.split(tokens, batch), waiting, device, arithmetic)


def _ended(
    model: PreTrainedModel,
    tokens: Sequence[Tensor],
    done: Sequence[Batch],
    device: torch.device,
    arithmetic: Arithmetic,
) -> Iterator[Tensor]:
    """What the model makes of the last block's output: it is called once more, and its blocks hand that on."""
    last: list[Tensor] = []

    def hand_on(_index: int, _hidden: Tensor, _call: Call) -> Tensor:
        return last[-1]

    with bypassed(decoder_blocks(model), hand_on):
        for some, each in zip(tokens, done, strict=True):
            last[:] = [each.hidden.to(device)]
            yield logits_of(model, some.to(device), arithmetic)


def _sweeps(tokens: Tensor, batch: int, width: int) -> Iterator[Tensor]:
    """Windows that go through the blocks together, a whole number of batches."""
    of_batch = batch * tokens.shape[1] * width * torch.float32.itemsize
    yield from torch.split(tokens, max(1, SWEEP_BYTES // of_batch) * batch)
