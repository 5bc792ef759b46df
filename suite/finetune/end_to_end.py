"""The second stage of fine-tuning: all blocks at once, against what the dense model predicts of the next token."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Generator, Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from suite.architecture import decoder_blocks
from suite.finetune.streams import Split
from suite.finetune.training import Course, Data, Losses, fit
from suite.finetune.tuned import TunedBlock
from suite.finetuning import EndToEnd


def fit_together(
    model: PreTrainedModel,
    tuned: Mapping[int, TunedBlock],
    split: Split,
    settings: EndToEnd,
    rng: Generator,
    skip: int,
) -> Course:
    """Train the blocks that stand in for some of the model's, by KL(dense ‖ tuned), to the best state.

    The model is the dense one, on the device of the blocks. The first `skip` tokens of a sequence are context.
    """
    data = Data(torch.split(split.train, settings.batch), torch.split(split.validation, settings.batch))
    for block in tuned.values():
        block.recompute = True
    return fit(list(tuned.values()), divergences(model, tuned, skip), data, settings, rng)


def divergences(model: PreTrainedModel, tuned: Mapping[int, TunedBlock], skip: int) -> Losses[Tensor]:
    """KL(dense ‖ tuned) in nats at each token of a batch [sequences, length]."""

    def of(tokens: Tensor) -> Tensor:
        tokens = tokens.to(model.device)
        with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
            wanted = _log_probabilities(model, tokens)
        with standing_in(model, tuned):
            found = _log_probabilities(model, tokens)
        each = functional.kl_div(found, wanted, reduction="none", log_target=True).sum(-1)
        return each[:, skip:].flatten()

    return of


@contextmanager
def standing_in(model: PreTrainedModel, tuned: Mapping[int, TunedBlock]) -> Iterator[None]:
    """Inside, the model calls these blocks in place of its own."""
    blocks = decoder_blocks(model)
    for index, block in tuned.items():
        model.set_submodule(blocks[index].name, block)
    try:
        yield
    finally:
        for index in tuned:
            model.set_submodule(blocks[index].name, blocks[index].module)


def _log_probabilities(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    logits: Tensor = model(input_ids=tokens, use_cache=False).logits
    return logits.float().log_softmax(-1)
