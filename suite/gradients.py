"""Mean squared gradients of the dense model's output, as Radio (arXiv:2505.03031, section 3.3) has them.

The output of a token is its last hidden state, before the head, projected on the directions in which such states
vary most. The squared gradients of all projections of all tokens would take a backward pass each; instead each
projection of each token gets a random sign, and the gradient of their sum is squared: what is between two of them
has expectation 0, so that one pass over a sequence gives their sum without bias. A weight takes 4 bytes on disk.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from suite.architecture import Block, decoder_blocks, linears
from suite.errors import CalibrationError
from suite.kept import BlockFiles, refuse_full_disk
from suite.ledger import Entry
from suite.models import Subject
from suite.progress import track
from suite.schema import digest
from suite.speed import at_work, measured
from suite.streaming import placed

LAYOUT = 1  # rises when the files change, or what is measured

Squares = dict[Tensor, Tensor]


def gradients_cache(folder: Path) -> Path:
    """Beside the results folder of a recipe, shared by all of them, as the dense reference is."""
    return folder.parent / ".gradients"


@dataclass(frozen=True)
class Source:
    """What gradients depend on: a model, tokens, how many directions of its output, and the signs.

    Each pass draws other signs. Every token counts the same, whatever part it has in statistics.
    """

    subject: Subject
    entry: Entry
    components: int = 16
    passes: int = 1
    seed: int = 0

    @property
    def id(self) -> str:
        """A hash of all of it."""
        drawn = [self.components, self.passes, self.seed]
        return digest([LAYOUT, self.subject.fingerprint, self.entry.id, *drawn])[:16]


@dataclass(frozen=True)
class Gradients:
    """Squared gradients on disk. Call it with the index of a block."""

    folder: Path
    device: torch.device

    def __call__(self, index: int) -> dict[str, Tensor]:
        """Means over tokens [out, in] in float32, by the names of a block's linears, on the device."""
        return BlockFiles(self.folder).tensors(index, self.device)

    @property
    def spent(self) -> dict[str, Any]:
        """What they took: tokens, gradient passes over them, seconds, device."""
        found: dict[str, Any] = BlockFiles(self.folder).note(0)["spent"]
        return found


def measure(source: Source, cache: Path, device: torch.device) -> Gradients:
    """The gradients of every linear, unless `cache` has them.

    The whole model is on the device with a float32 for each weight beside it. CalibrationError where a gradient is
    not finite, EnvironmentProblem when the disk has no room.
    """
    files, model = BlockFiles(cache / source.id), source.subject.model
    blocks = decoder_blocks(model)
    found = Gradients(files.folder, device)
    if all(files.holds(index) for index in range(len(blocks))):
        return found
    weights = [{name: layer.weight for name, layer in linears(block).items()} for block in blocks]
    refuse_full_disk(cache, sum(4 * weight.numel() for each in weights for weight in each.values()), "gradients")
    with placed(model, device), measured() as phase, at_work(device):
        squares = mean_squares(source, [weight for each in weights for weight in each.values()])
    tokens = source.entry.count
    spent = {"tokens": tokens, "gradient_passes": source.passes, "seconds": phase.seconds, "device": str(device)}
    for index, (block, each) in enumerate(zip(blocks, weights, strict=True)):
        files.keep(index, _finite(block, {name: squares[weight] for name, weight in each.items()}), spent=spent)
    return found


def mean_squares(source: Source, weights: Sequence[Tensor]) -> Squares:
    """By weight, with the model where it is: Σ over directions of squared gradients, in the mean over tokens."""
    model, tokens = source.subject.model, source.entry.tokens
    directions = principal_directions(_states(model, tokens), source.components)
    rng = Generator().manual_seed(source.seed)
    with _squaring(weights) as squares:
        for _ in range(source.passes):
            for hidden in track(_states(model, tokens), "gradients", len(tokens)):
                signs = torch.randint(2, (*hidden.shape[:-1], directions.shape[1]), generator=rng) * 2.0 - 1
                torch.autograd.backward(hidden, signs.to(hidden) @ directions.T.to(hidden))
    return {weight: total.div_(source.passes * tokens.numel()) for weight, total in squares.items()}


@torch.no_grad()
def principal_directions(states: Iterator[Tensor], components: int) -> Tensor:
    """The directions [width, components], orthonormal, in which hidden states [1, length, width] vary most.

    The largest entry of each is positive: the sign that a solver leaves it decides which random sums are taken.
    CalibrationError where a state is not finite.
    """
    total, products, count = torch.zeros(()), torch.zeros(()), 0
    for hidden in states:
        rows = hidden[0].double()
        total, products, count = total.to(rows) + rows.sum(0), products.to(rows) + rows.T @ rows, count + len(rows)
    if not bool(products.isfinite().all()):
        raise CalibrationError("the model's last hidden states are NaN or infinite on these calibration tokens")
    mean = total / count
    vectors: Tensor = torch.linalg.eigh(products / count - mean.outer(mean)).eigenvectors[:, -components:]
    return vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()


def _states(model: nn.Module, tokens: Tensor) -> Iterator[Tensor]:
    """The last hidden states [1, length, width] of one sequence after another, on the model's device."""
    body = getattr(model, "base_model", model)
    device = next(body.parameters()).device
    for sequence in tokens:
        hidden: Tensor = body(input_ids=sequence[None].to(device), use_cache=False).last_hidden_state
        yield hidden


@contextmanager
def _squaring(weights: Sequence[Tensor]) -> Iterator[Squares]:
    """Inside, these weights have gradients, which are squared and added as soon as they are there, and dropped."""
    squares = {weight: torch.zeros_like(weight, dtype=torch.float32) for weight in weights}
    with ExitStack() as stack:
        for weight, total in squares.items():
            stack.callback(weight.requires_grad_, weight.requires_grad)
            weight.requires_grad_()
            hook = weight.register_post_accumulate_grad_hook(partial(_add_square, total))  # type: ignore[no-untyped-call]
            stack.callback(hook.remove)
        stack.enter_context(torch.enable_grad())
        yield squares


def _add_square(total: Tensor, weight: Tensor) -> None:
    if weight.grad is not None:
        total.addcmul_(weight.grad, weight.grad)
        weight.grad = None


def _finite(block: Block, squares: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    for name, each in squares.items():
        if bad := int((~each.isfinite()).sum()):
            raise CalibrationError(
                f"{block.name}.{name}: {bad} of {each.numel()} squared gradients are NaN or infinite; "
                "the model's output cannot be followed on these calibration tokens"
            )
    return squares
