"""The walk: decoder blocks one at a time, with statistics of what each linear was fed.

Blocks are called outside the model, with the very arguments that the model would have given them (masks, rotary
tables, per-layer types), so that only one block at a time needs to be on the device.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from methods.statistics import Accumulator, Statistic, Statistics
from suite.architecture import Block, decoder_blocks, linears
from suite.budget import TokenWeights
from suite.errors import CalibrationError
from suite.offload import Ferry
from suite.streaming import is_streamed, outside_placed, placed

Call = tuple[tuple[Any, ...], dict[str, Any]]

HIDDEN_ON_DEVICE_BYTES = 4 * 2**30
"""Hidden states above this wait in host memory: those of 128 x 2048 tokens in models wider than 4096."""


@dataclass
class Batch:
    """What one batch of sequences brings to each block."""

    hidden: Tensor  # [sequences, length, width], the input of the next block
    calls: list[Call]  # by block: positional arguments after the hidden states, and keyword arguments
    waits: bool  # in host memory, for want of room on the device


@torch.no_grad()
def first_inputs(model: nn.Module, tokens: Tensor, batch_size: int, device: torch.device) -> list[Batch]:
    """Run all but the decoder blocks, which only note what they would have been called with.

    tokens [sequences, length]. CalibrationError where the model does not call its blocks one after the other.
    """
    blocks = decoder_blocks(model)
    body = getattr(model, "base_model", model)  # without the head, which has the most work of what is left
    batches: list[Batch] = []
    seen: list[tuple[Tensor, Call]] = []

    def note(index: int, hidden: Tensor, call: Call) -> Tensor:
        seen.append((hidden, call))
        return hidden

    home = device if is_streamed(body) else next(body.parameters()).device
    with outside_placed(body, home), bypassed(blocks, note):
        for start in range(0, len(tokens), batch_size):
            seen.clear()
            body(input_ids=tokens[start : start + batch_size].to(home), use_cache=False)
            if len(seen) != len(blocks):
                raise CalibrationError(
                    f"{type(model).__name__} ran {len(seen)} of its {len(blocks)} decoder blocks; this "
                    "architecture cannot be walked block by block"
                )
            hidden = seen[0][0]
            waits = hidden.nbytes // hidden.shape[:2].numel() * tokens.numel() > HIDDEN_ON_DEVICE_BYTES
            batches.append(Batch(_kept(hidden, device, waits), [call for _, call in seen], waits))
    _share_equal_tensors(batches)
    return batches


def _kept(hidden: Tensor, device: torch.device, waits: bool) -> Tensor:
    """Hidden states where they are kept until the first block: on the device, or pinned in host memory."""
    if not waits:
        return hidden.to(device)
    return hidden.cpu().pin_memory() if device.type == "cuda" else hidden


@contextmanager
def bypassed(blocks: Sequence[Block], instead: Callable[[int, Tensor, Call], Tensor]) -> Iterator[None]:
    """Inside, calls of the model do not run its blocks: `instead` is told which, its input and other arguments.

    What it returns goes on, in a tuple only where the real block of that class returns one.
    """
    returns_tuple: dict[type[nn.Module], bool] = {}

    def stand_in(
        index: int, forward: Callable[..., Any], hidden: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor | tuple[Tensor]:
        module = blocks[index].module
        if type(module) not in returns_tuple:
            with placed(module, hidden.device):
                returns_tuple[type(module)] = isinstance(forward(hidden, *args, **kwargs), tuple)
        result = instead(index, hidden, (args, kwargs))
        return (result,) if returns_tuple[type(module)] else result

    for index, block in enumerate(blocks):
        block.module.forward = partial(stand_in, index, block.module.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.module.forward  # the instance attribute: the class's own method shows again


def _share_equal_tensors(batches: Sequence[Batch]) -> None:
    """Keep one copy of the masks and rotary tables that every batch of one shape repeats."""
    known: list[Tensor] = []

    def shared(value: Tensor) -> Tensor:
        for tensor in known:
            if tensor is value or (tensor.shape == value.shape and torch.equal(tensor, value)):
                return tensor
        known.append(value)
        return value

    for batch in batches:
        batch.calls = _mapped(batch.calls, shared)
        del known[64:]  # arguments that differ from batch to batch have no twin to be found


def _mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same nesting of tuples, lists and dicts with every tensor replaced by function(tensor)."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple | list):
        return type(value)(_mapped(item, function) for item in value)
    if isinstance(value, dict):
        return {key: _mapped(item, function) for key, item in value.items()}
    return value


@torch.no_grad()
def run_block(block: Block, index: int, batches: Sequence[Batch], *, move_on: bool) -> Iterator[torch.Size]:
    """One block on one batch after another: yields the sequences and length of each before it runs.

    With `move_on` the outputs take the place of the hidden states, whether the block returns a tensor or a tuple.
    """
    device = next(block.module.parameters()).device
    ferry = Ferry(device, any(batch.waits for batch in batches))
    known: dict[int, Tensor] = {}
    for hidden, batch in zip(ferry.arrivals(batch.hidden for batch in batches), batches, strict=True):
        yield hidden.shape[:2]
        (args, kwargs), known = call_on(device, batch.calls[index], known)
        result = block.module(hidden, *args, **kwargs)
        if move_on:
            batch.hidden = ferry.leave(batch.hidden, hidden_of(result))


def call_on(device: torch.device, call: Call, known: Mapping[int, Tensor]) -> tuple[Call, dict[int, Tensor]]:
    """A call's arguments on the device, and by the ids of those kept, for the next batch has most of them too."""
    used: dict[int, Tensor] = {}

    def moved(tensor: Tensor) -> Tensor:
        found = known.get(id(tensor))
        used[id(tensor)] = tensor.to(device) if found is None else found
        return used[id(tensor)]

    return _mapped(call, moved), used


def hidden_of(result: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The hidden states among what a block returns, which is a tensor or a tuple that starts with it."""
    return result if isinstance(result, Tensor) else result[0]


def advance(block: Block, index: int, batches: Sequence[Batch]) -> None:
    """Replace every batch's hidden states by the block's output."""
    for _ in run_block(block, index, batches, move_on=True):
        pass


@dataclass(frozen=True)
class Counted:
    """The part that each token has in the statistics: `Budget` says what the two mean."""

    skip_first: int = 0
    token_weights: TokenWeights = "uniform"

    def __call__(self, x: Tensor, batch: torch.Size) -> Tensor:
        """Inputs [sequences, length, in] of a batch [sequences, length], or [tokens, in], to those that are added.

        CalibrationError where it cannot be told which tokens are the first of their sequences.
        """
        if self.skip_first:
            if x.shape[:-1].numel() != batch.numel():
                raise CalibrationError(
                    f"calibration.skip_first is {self.skip_first}, but a linear is fed {tuple(x.shape)} of "
                    f"{batch.numel()} tokens, so nobody knows which come first; set it to 0 for this model"
                )
            x = x.reshape(*batch, -1)[:, self.skip_first :]
        return functional.normalize(x.float(), dim=-1) if self.token_weights == "unit" else x


@dataclass
class _Observer:
    """Accumulates one set of statistics for each distinct input: q, k and v are fed the same tensor."""

    needs: Statistic
    counted: Counted
    batch: torch.Size = torch.Size()  # sequences and length of what is now running
    leaders: dict[str, str] = field(default_factory=dict)  # linear -> the first linear fed the same tensor
    sums: dict[str, Accumulator] = field(default_factory=dict)
    alive: list[tuple[str, Tensor]] = field(default_factory=list)  # references: a freed tensor's id comes back

    def feed(self, name: str, layer: nn.Linear, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        if name not in self.leaders:
            self.leaders[name] = next((other for other, tensor in self.alive if tensor is x), name)
            self.alive.append((name, x))
        if self.leaders[name] == name:
            if name not in self.sums:
                self.sums[name] = Accumulator(self.needs, layer.in_features, x.device)
            self.sums[name].add(self.counted(x, self.batch))

    def finish(self, where: str) -> dict[str, Statistics]:
        finished = {}
        for name, total in self.sums.items():
            try:
                finished[name] = total.finish()
            except ValueError as error:
                raise CalibrationError(f"{where}.{name}: {error}") from None
        return {name: finished[leader] for name, leader in self.leaders.items()}


@torch.no_grad()
def observe(
    block: Block,
    index: int,
    batches: Sequence[Batch],
    needs: Statistic,
    counted: Counted = Counted(),  # noqa: B008 - frozen
    *,
    only: Sequence[str] | None = None,
    move_on: bool = False,
) -> dict[str, Statistics]:
    """Statistics of each linear's input over all batches, in the order of calls, float32 with TF32 off.

    Linears that are fed the same tensor get the same Statistics object. `only` names the linears to watch. With
    `move_on` the outputs become the hidden states, which saves dense mode a second pass.
    """
    layers = {name: layer for name, layer in linears(block).items() if only is None or name in only}
    if needs is Statistic.NONE:
        return {name: Statistics.none(layer.in_features) for name, layer in layers.items()}
    observer = _Observer(needs, counted)
    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_pre_hook(_hook(observer, name)).remove)
        for shape in run_block(block, index, batches, move_on=move_on):
            observer.alive.clear()
            observer.batch = shape
    if missing := layers.keys() - observer.leaders.keys():
        raise CalibrationError(f"{block.name}: {', '.join(sorted(missing))} saw no calibration token")
    return observer.finish(block.name)


def by_input(statistics: Mapping[str, Statistics]) -> list[list[str]]:
    """The linears that share one input, in the order of calls: [q, k, v], [o], [gate, up], [down]."""
    groups: dict[int, list[str]] = {}
    for name, each in statistics.items():
        groups.setdefault(id(each), []).append(name)
    return list(groups.values())


def _hook(observer: _Observer, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def feed(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(layer, nn.Linear):
            observer.feed(name, layer, inputs)

    return feed
