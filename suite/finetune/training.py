"""The training of stored parts: AdamW on float32 copies, judged after every epoch by what would be stored of them.

The best state by validation wins, and the untouched one takes part: training cannot make validation worse. A step
whose gradient is not finite is left out and counted.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Generator, Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import ReduceLROnPlateau

from suite.finetune.tuned import TunedBlock
from suite.finetuning import Training
from suite.reproduction import LayerFailure

PATIENCE_WITH_STEPS = 20
"""Steps in a row without a finite gradient: as many may be lost to float16 until its loss scale has come down."""

T = TypeVar("T")
Losses = Callable[[T], Tensor]
"""The loss of each token of a batch, in one dimension."""


@dataclass(frozen=True)
class Data(Generic[T]):
    """Batches to train on, and batches to judge by."""

    train: Sequence[T]
    validation: Sequence[T]


@dataclass
class Course:
    """How a training went: mean losses by epoch, those of validation from the untouched state on."""

    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_epoch: int = 0  # 0 is the untouched state
    steps: int = 0
    skipped: int = 0
    stopped: str | None = None  # why it ended before its last epoch

    @property
    def before(self) -> float:
        """Validation loss of the untouched state."""
        return self.validation[0]

    @property
    def after(self) -> float:
        """Validation loss of what is stored in the end."""
        return self.validation[self.best_epoch]


def fit(
    blocks: Sequence[TunedBlock], losses: Losses[T], data: Data[T], settings: Training, rng: Generator
) -> Course:
    """Train what the blocks have to train, and leave them in the best state. LayerFailure if none is finite."""
    course = Course(validation=[judged(blocks, losses, data.validation)])
    if not math.isfinite(course.before):
        raise LayerFailure(f"void: the loss before fine-tuning is {course.before}")
    best = [block.stored() for block in blocks]
    if not any(len(block.trained) for block in blocks):
        return course
    trainer = _Trainer(blocks, settings, course)
    for epoch in range(1, settings.epochs + 1):
        order = torch.randperm(len(data.train), generator=rng).tolist()
        course.train.append(trainer.train(losses, (data.train[number] for number in order)))
        course.validation.append(judged(blocks, losses, data.validation))
        trainer.plateau.step(course.validation[-1])
        if course.validation[-1] < course.after and _finite(blocks):
            course.best_epoch, best = epoch, [block.stored() for block in blocks]
        elif not course.stopped and epoch < settings.epochs and epoch - course.best_epoch >= settings.stop_after:
            course.stopped = f"no gain in {settings.stop_after} epochs"
        if course.stopped:
            break
    for block, tensors in zip(blocks, best, strict=True):
        block.put(tensors)
    return course


@torch.no_grad()
def judged(blocks: Sequence[TunedBlock], losses: Losses[T], batches: Iterable[T]) -> float:
    """The mean loss of all tokens, in float32, by what would be stored of the blocks now."""
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(block.rounded())
        return _mean([_summed(losses(batch)) for batch in batches])


class _Trainer:
    """Optimiser, learning rate and loss scale of one training."""

    def __init__(self, blocks: Sequence[TunedBlock], settings: Training, course: Course) -> None:
        self._parameters: list[nn.Parameter] = [each for block in blocks for each in block.trained]
        self._settings, self._course = settings, course
        self._device = next(blocks[0].parameters()).device
        on_gpu = self._device.type == "cuda"
        self._dtype = getattr(torch, settings.precision) if on_gpu else torch.float32
        self._optimizer = AdamW(self._parameters, lr=settings.learning_rate)
        self.plateau = ReduceLROnPlateau(self._optimizer, factor=settings.factor, patience=settings.patience)
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=self._dtype is torch.float16)

    @torch.enable_grad()
    def train(self, losses: Losses[T], batches: Iterable[T]) -> float:
        """One epoch -> the mean loss of all tokens on the way."""
        seen, skipped_in_a_row = [], 0
        for batch in batches:
            with torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not torch.float32):
                each = losses(batch)
            seen.append(_summed(each.detach()))
            skipped_in_a_row = 0 if self._step(each.mean()) else skipped_in_a_row + 1
            if skipped_in_a_row == PATIENCE_WITH_STEPS:
                self._course.stopped = f"{PATIENCE_WITH_STEPS} gradients in a row were not finite"
                break
        return _mean(seen)

    def _step(self, loss: Tensor) -> bool:
        """Whether the gradient was finite, and so was followed."""
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._parameters, self._settings.clip or math.inf)
        finite = bool(norm.isfinite())
        if finite:
            self._scaler.step(self._optimizer)
            self._course.steps += 1
        else:
            self._course.skipped += 1
        self._scaler.update()
        return finite


def _summed(losses: Tensor) -> tuple[Tensor, int]:
    return losses.double().sum(), losses.numel()


def _mean(sums: Sequence[tuple[Tensor, int]]) -> float:
    return float(torch.stack([total for total, _ in sums]).sum()) / sum(count for _, count in sums)


def _finite(blocks: Sequence[TunedBlock]) -> bool:
    return all(bool(tensor.isfinite().all()) for block in blocks for tensor in block.stored())
