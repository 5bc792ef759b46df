"""Perplexity by a named protocol, and the distance from the dense model on the same windows.

Windows go through the model one at a time, so that no padding or batch shape touches the numbers. All arithmetic
is float32; sums are float64. How far the dense model's figures move all the same, when windows are batched or the
arithmetic is bfloat16, is measured: no difference below this noise floor means anything.
"""

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from suite.blockwise import all_logits
from suite.errors import CalibrationError
from suite.evaluations import Measured, Noise, dense_folder, kept_noise
from suite.models import Subject
from suite.reference import DenseReference, plain_head
from suite.results import Measures, Quality
from suite.windows import Windows

NOISE_WINDOWS = 8  # on which the noise floor is measured


@dataclass(frozen=True)
class How:
    """How windows go through the model: as rows are measured, or with something changed that should not matter."""

    what: str = "evaluation"
    batch: int = 1
    dtype: torch.dtype = torch.float32


AS_MEASURED = How()
CHANGED = (How("batch of 2", batch=2), How("bfloat16", dtype=torch.bfloat16))


@dataclass
class Tally:
    """What adds up over windows."""

    nll: list[float] = field(default_factory=list)  # of each window
    kl: list[Tensor] = field(default_factory=list)  # of each window's tokens [length - 1]
    agree: int = 0

    def add(self, logits: Tensor, targets: Tensor, dense: Iterable[tuple[slice, Tensor, Tensor]]) -> None:
        """One window: logits [length - 1, vocabulary], the tokens that they predict [length - 1], and the dense
        model's distributions.
        """
        nll, kl, agree = [], [], []
        for rows, log_p, top in dense:
            log_q = logits[rows].log_softmax(-1)
            agree.append(log_q.argmax(-1) == top)
            nll.append(-log_q.gather(1, targets[rows, None])[:, 0])
            kl.append((log_p.exp() * log_p.sub_(log_q)).sum(-1).clamp_min_(0))  # below zero is rounding
        self.agree += int(torch.cat(agree).sum())
        self.nll.append(float(torch.cat(nll).double().sum()))
        self.kl.append(torch.cat(kl).cpu())

    def quality(self, cut: Windows) -> Quality:
        """The tally of all windows of a protocol, in the terms of a row."""
        nll, kl = sum(self.nll), torch.cat(self.kl).double()
        return Quality(
            perplexity=math.exp(min(nll / cut.scored, 700.0)),
            word_perplexity=math.exp(min(nll / cut.words, 700.0)),
            bits_per_byte=nll / math.log(2) / cut.bytes,
            scored_tokens=cut.scored,
            kl_mean=float(kl.mean()),
            kl_median=float(kl.median()),
            kl_p99=float(np.quantile(kl.numpy(), 0.99)),  # torch's takes 16 million numbers at most
            top1_agreement=self.agree / cut.scored,
            window_nll=tuple(self.nll),
            window_kl=tuple(float(window.double().sum()) for window in self.kl),
        )


def tally(
    model: PreTrainedModel, tokens: Tensor, dense: DenseReference, device: torch.device, how: How = AS_MEASURED
) -> Tally:
    """Score windows of tokens [windows, length] against the dense model's distributions."""

    def arithmetic() -> AbstractContextManager[object]:
        return torch.autocast(device.type, how.dtype, enabled=how.dtype is not torch.float32, cache_enabled=False)

    result, head = Tally(), dense.head_on(device)
    batches = all_logits(model, tokens, device, how.what, how.batch, arithmetic)
    for index, logits in enumerate(chain.from_iterable(batches)):
        result.add(logits, tokens[index, 1:].to(device), dense.distributions(index, head, device))
    return result


@dataclass
class OnWindows:
    """The evaluation of a perplexity protocol: see suite.evaluations.Evaluation."""

    measures: ClassVar[Measures] = "perplexity"
    cut: Windows
    dense: DenseReference | None = None

    @property
    def id(self) -> str:
        """Hash of the rule and the text."""
        return self.cut.protocol_id

    @property
    def tokens_id(self) -> str:
        """Hash of the tokens."""
        return self.cut.tokens_id

    @property
    def texts(self) -> tuple[str, ...]:
        """The text of each window."""
        return self.cut.texts

    @property
    def source(self) -> str:
        """The protocol's text, as the recipe has it."""
        return self.cut.protocol.source

    def describe(self) -> str:
        """The protocol in words."""
        return self.cut.protocol.describe(len(self.cut.tokens))

    def expects(self, model: str) -> bool:
        """Whether the recipe states the dense model's perplexity."""
        return bool(self.cut.protocol.expected_of(model))

    def prepare(self, subject: Subject, device: torch.device, cache: Path) -> Noise:
        """Keep the dense model's distributions, hold them against what the recipe expects -> the noise floor."""
        self.dense = dense = self.reference(subject, cache)
        if missing := dense.unusable(len(self.cut.tokens)):
            dense.compute(missing, subject.model, self.cut.tokens, device)
        self._refuse_unexpected(subject, dense)
        return kept_noise(dense.folder, lambda: self._noise(subject.model, device))

    def reference(self, subject: Subject, cache: Path) -> DenseReference:
        """The dense model's distributions in the cache, as far as they are there."""
        return DenseReference(dense_folder(cache, subject, self.tokens_id), plain_head(subject.model))

    def measure(self, model: PreTrainedModel, device: torch.device) -> Measured:
        """Score a model on the windows against the dense model's distributions."""
        found = tally(model, self.cut.tokens, self._dense(), device).quality(self.cut)
        return Measured(
            quality=found, finite=math.isfinite(found.perplexity) and math.isfinite(found.kl_mean or 0.0)
        )

    def _dense(self) -> DenseReference:
        if self.dense is None:
            raise ValueError("measure() before prepare(): there is no dense reference to compare with")
        return self.dense

    def _refuse_unexpected(self, subject: Subject, dense: DenseReference) -> None:
        for expected in self.cut.protocol.expected_of(subject.name):
            found = dense.perplexity(self.cut.tokens)
            if not abs(found - expected.perplexity) <= expected.tolerance:
                raise CalibrationError(
                    f"the dense model {subject.name} has perplexity {found:.4f} under {self._name}; "
                    f"{expected.perplexity:g} ± {expected.tolerance:g} was expected, so nothing is compressed: "
                    "check model, text and library versions, or change evaluation.expect"
                )

    @property
    def _name(self) -> str:
        return self.cut.protocol.name(len(self.cut.tokens))

    def _noise(self, model: PreTrainedModel, device: torch.device) -> Noise:
        tokens, dense = self.cut.tokens[:NOISE_WINDOWS], self._dense()
        before = sum(dense.nll(index) for index in range(len(tokens)))
        noise = {}
        for how in CHANGED:
            if how.batch <= len(tokens):
                moved = tally(model, tokens, dense, device, how)
                kl = float(torch.cat(moved.kl).double().mean())
                noise[how.what] = {"nll": abs(sum(moved.nll) - before) / tokens[:, 1:].numel(), "kl": kl}
        return noise
