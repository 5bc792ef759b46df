"""The calibration tokens on their way through two models at once: the dense one and the one that is tuned."""

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn

from suite.architecture import Block
from suite.calibrate import Batch, advance, call_on, first_inputs, hidden_of
from suite.finetune.training import Data, Losses

Pair = tuple[Batch, Batch]
"""What a tuned block is fed, and what it should make of it: the hidden states of the second."""


@dataclass(frozen=True)
class Split:
    """Sequences of tokens [sequences, length]: those to train on, and those to judge by."""

    train: Tensor
    validation: Tensor

    @classmethod
    def drawn(cls, tokens: Tensor, count: int, rng: Generator) -> "Split":
        """`count` of the sequences are to judge by."""
        order = torch.randperm(len(tokens), generator=rng)
        return cls(tokens[order[count:]], tokens[order[:count]])


@dataclass
class Streams:
    """Hidden states by batch, those to train on first: what the next tuned and the next dense block are fed."""

    fed: list[Batch]
    dense: list[Batch]
    training: int  # batches

    @classmethod
    def started(cls, model: nn.Module, split: Split, batch: int, device: torch.device) -> "Streams":
        """Before the first block. A batch keeps its sequences: only the order of batches changes."""
        train = first_inputs(model, split.train, batch, device)
        dense = train + first_inputs(model, split.validation, batch, device)
        return cls([replace(each, hidden=_apart(each)) for each in dense], dense, len(train))

    def feed_dense(self) -> None:
        """Feed the next tuned block what the dense blocks before it put out."""
        for fed, dense in zip(self.fed, self.dense, strict=True):
            fed.hidden = fed.hidden.copy_(dense.hidden) if fed.waits else dense.hidden

    def feed_tuned(self, tuned: Block, index: int) -> None:
        """Feed it what the tuned blocks before it put out; `tuned` is the last of them."""
        advance(tuned, index, self.fed)

    def data(self) -> Data[Pair]:
        """Once the dense block has run: what the tuned one has to train on, and is judged by."""
        pairs = list(zip(self.fed, self.dense, strict=True))
        return Data(pairs[: self.training], pairs[self.training :])


def distances(module: nn.Module, index: int, skip: int, device: torch.device) -> Losses[Pair]:
    """The loss of NoWag: at each token, the L2 norm of the error of block `index`.

    The first `skip` tokens of a sequence are context only.
    """

    def of(pair: Pair) -> Tensor:
        fed, wanted = pair
        (args, kwargs), _ = call_on(device, fed.calls[index], {})
        found = hidden_of(module(fed.hidden.to(device, non_blocking=True), *args, **kwargs))
        error = found.float() - wanted.hidden.to(device, non_blocking=True)
        each: Tensor = torch.linalg.vector_norm(error, dim=-1)
        return each[:, skip:].flatten()

    return of


def _apart(batch: Batch) -> Tensor:
    """Hidden states that wait are written over where they are, so that each stream needs its own."""
    if not batch.waits:
        return batch.hidden
    return torch.empty_like(batch.hidden, pin_memory=batch.hidden.is_pinned()).copy_(batch.hidden)
