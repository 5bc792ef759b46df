"""What a row measures: the one interface of perplexity protocols and zero-shot tasks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from transformers import PreTrainedModel

from suite.models import Subject
from suite.results import Measures, Quality, TaskScore
from suite.signed import signed_or_none, write_signed

Noise = dict[str, dict[str, float]]  # what was changed -> figure -> by how much the dense model's moved


@dataclass(frozen=True)
class Measured:
    """What one evaluation found on one model."""

    quality: Quality | None = None
    task: TaskScore | None = None
    items: tuple[dict[str, Any], ...] = field(default=(), repr=False)  # of a task, one JSON object each
    finite: bool = True


class Evaluation(Protocol):
    """One protocol or one task under one model's tokenizer, its tokens cut and hashed before anything runs."""

    measures: ClassVar[Measures]

    @property
    def id(self) -> str:
        """Hash of the rule and the text or items: the same for every model. The row's `protocol_id`."""

    @property
    def tokens_id(self) -> str:
        """Hash of the tokens that are scored and their context. The row's `evaluated_tokens`."""

    @property
    def texts(self) -> tuple[str, ...]:
        """The text that is scored and its context, for the leak check."""

    @property
    def source(self) -> str:
        """Where the text or the items come from, in one or two words."""

    def describe(self) -> str:
        """The protocol in words, its name first and then a comma; without dtype."""

    def expects(self, model: str) -> bool:
        """Whether the recipe states what the dense model must score, which `prepare` then checks."""

    def prepare(self, subject: Subject, device: torch.device, cache: Path) -> Noise:
        """Score the dense model, or find in `cache` that it was scored -> the noise floor, as a row has it.

        CalibrationError when the recipe expected another figure of the dense model.
        """

    def measure(self, model: PreTrainedModel, device: torch.device) -> Measured:
        """Score a model that came back from disk. `prepare` comes first."""


def dense_cache(folder: Path) -> Path:
    """Beside the recipes' results folders, shared by all of them; a recipe's name cannot start with a dot."""
    return folder.parent / ".dense"


def dense_folder(cache: Path, subject: Subject, tokens_id: str) -> Path:
    """Where the cache keeps what a dense model scored on some tokens."""
    return cache / f"{subject.fingerprint[:16]}-{tokens_id}"


def kept_noise(folder: Path, measure: Callable[[], Noise]) -> Noise:
    """The noise floor that was measured before, or a new measurement, which is then kept."""
    path = folder / "noise.json"
    if (kept := signed_or_none(path)) is not None:
        return kept
    noise = measure()
    write_signed(path, noise)
    return noise
