"""Zero-shot tasks through lm-eval: its prompts, its tokenisation and scoring (HFLM), its metrics, on our models.

A request is a context and a continuation; its score is the log-probability of the continuation, in nats. A choice
is right or wrong by the scores of an item's requests. Every model of a recipe is scored with one batch size, since
another one moves the last bits of the scores, and with them a close call; by how much is measured as the noise.
"""

import copy
import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean, mean_stderr, perplexity
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import handle_non_serializable, hash_string
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from suite.errors import AssetError
from suite.evaluations import Measured, Noise, dense_folder, kept_noise
from suite.ledger import tokens_hash
from suite.models import Subject
from suite.progress import track
from suite.protocols import Tasks
from suite.results import NOISE_ITEMS, Measures, TaskScore
from suite.schema import digest
from suite.streaming import to_device
from suite.tasks import HARNESS, Item, Loaded, load_task, quiet_harness

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What a model made of one item: for each request nats and whether greedy decoding gives it; each metric."""

    scores: list[tuple[float, bool]]
    metrics: dict[str, Any]


@dataclass(frozen=True)
class OnItems:
    """Zero-shot accuracy, or whatever the task's metrics are, on the items of one task."""

    measures: ClassVar[Measures] = "task"
    loaded: Loaded
    asked: Tasks
    tokens_id: str  # hash of the token ids of every request
    tokenizer: PreTrainedTokenizerBase

    @cached_property
    def id(self) -> str:
        """Hash of the task, its harness, all that is asked, and the batch size: the same for every model."""
        rule = {"task": self.loaded.task_name, "version": self.loaded.version, "harness": HARNESS}
        asked = {"limit": self._limit, "batch_size": self.asked.batch_size}
        return digest([rule, asked, [[item.pairs, item.right] for item in self.loaded.items]])[:16]

    @property
    def texts(self) -> tuple[str, ...]:
        """Each item's context with the right continuation."""
        return tuple("".join(item.pairs[item.right]) for item in self.loaded.items)

    @property
    def source(self) -> str:
        """The task and where its items come from."""
        return f"{self.loaded.task_name} ({self.loaded.origin})"

    def describe(self) -> str:
        """The task as the recipe has it, harness, origin, how many items, batch size."""
        total = self.loaded.total
        count = f"first {self._limit} of {total} items" if self._limit else f"all {total} items"
        version = f" (task version {self.loaded.version})" if self.loaded.version != "none" else ""
        how = f"{count}, zero-shot, batch of {self.asked.batch_size}"
        return f"{self.loaded.name}, {HARNESS}{version}, {self.loaded.origin}, {how}"

    def expects(self, model: str) -> bool:
        """No figure can be expected of a task."""
        return False

    def prepare(self, subject: Subject, device: torch.device, cache: Path) -> Noise:
        """How far the dense model's figures move with another batch size and in bfloat16, measured once."""
        folder = dense_folder(cache, subject, f"{self.id}-{self.tokens_id}")
        return kept_noise(folder, lambda: self._noise(subject.model, device))

    def measure(self, model: PreTrainedModel, device: torch.device) -> Measured:
        """Score every request of every item."""
        to_device(model, device)
        harness = _harness(model, self.tokenizer, self.asked.batch_size)
        answers = _answers(harness, self.loaded, self.loaded.items, self.loaded.name)
        score = TaskScore(
            task=self.loaded.task_name,
            harness=HARNESS,
            task_version=self.loaded.version,
            origin=self.loaded.origin,
            metrics=_figures(self.loaded, answers),
            stderr=_stderr(self.loaded, answers),
            items={name: "".join(map(str, map(int, values))) for name, values in _right_or_wrong(answers)},
            scored_items=len(self.loaded.items),
            items_in_task=self.loaded.total,
            limit=self.asked.limit,
            batch_size=self.asked.batch_size,
        )
        records = [_record(*each) for each in zip(range(len(answers)), self.loaded.items, answers, strict=True)]
        finite = all(math.isfinite(nats) for answer in answers for nats, _ in answer.scores)
        return Measured(task=score, items=tuple(records), finite=finite)

    @property
    def _limit(self) -> int | None:
        """The limit where it leaves anything out."""
        return self.asked.limit if len(self.loaded.items) < self.loaded.total else None

    def _noise(self, model: PreTrainedModel, device: torch.device) -> Noise:
        to_device(model, device)
        pinned = self.asked.batch_size
        other = pinned // 2 or 2
        changed = {f"batch of {other}": (other, None), "bfloat16": (pinned, torch.bfloat16)}
        before = self._figures_with(model, pinned, None, "noise floor")
        noise = {}
        for change, (batch_size, dtype) in changed.items():
            after = self._figures_with(model, batch_size, dtype, f"noise floor, {change}")
            noise[change] = {name: abs(after[name] - before[name]) for name in before}
        return noise

    def _figures_with(
        self, model: PreTrainedModel, batch_size: int, dtype: torch.dtype | None, what: str
    ) -> dict[str, float]:
        harness = _harness(model, self.tokenizer, batch_size, dtype)
        return _figures(self.loaded, _answers(harness, self.loaded, self.loaded.items[:NOISE_ITEMS], what))


def task_evaluations(tasks: Tasks, subject: Subject, *, offline: bool) -> list[OnItems]:
    """One evaluation for each name, its requests made and tokenised.

    SuiteError for a task that is unknown or not scored by likelihoods, and for items that cannot be had or used.
    """
    tokenizer = copy.deepcopy(subject.tokenizer)  # lm-eval gives it a padding token
    found = []
    for name in tasks.names:
        loaded = load_task(name, tasks, offline=offline)
        tokens_id = _tokens_id(loaded, subject.model, tokenizer)
        found.append(OnItems(loaded, tasks, tokens_id, tokenizer))
    return found


class _Encoder(HFLM):  # type: ignore[misc]  # lm-eval has no types
    """HFLM as far as the model: it hands back the token ids of context and continuation that it would score."""

    def _loglikelihood_tokens(self, requests: list[Any], **_: Any) -> list[tuple[list[int], list[int]]]:
        return [(context, continuation) for _, context, continuation in requests]


def _tokens_id(loaded: Loaded, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of all token ids. AssetError for a continuation without tokens; a warning for requests that are cut."""
    encoder = _harness(model, tokenizer, batch_size=1, kind=_Encoder)
    flat: list[int] = []
    cut = 0
    with quiet_harness():
        encoded = [encoder.loglikelihood(list(item.requests), disable_tqdm=True) for item in loaded.items]
    for item, pairs in zip(loaded.items, encoded, strict=True):
        for context, continuation in pairs:
            if not 0 < len(continuation) <= encoder.max_length:
                raise AssetError(f"{item.where}: a choice of {len(continuation)} tokens cannot be scored")
            cut += len(context) + len(continuation) > encoder.max_length + 1
            flat += [len(context), len(continuation), *context, *continuation]
    if cut:
        cutting = f"longer than the model's {encoder.max_length} positions; lm-eval cuts them from the left"
        logger.warning("%s: %d requests are %s", loaded.name, cut, cutting)
    return tokens_hash(torch.tensor(flat))


def _harness(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batch_size: int,
    dtype: torch.dtype | None = None,
    kind: type[HFLM] = HFLM,
) -> HFLM:
    """lm-eval's scorer around a model where it is; with a dtype, under autocast."""
    with quiet_harness():
        return kind(
            pretrained=model,
            tokenizer=tokenizer,
            backend="causal",
            batch_size=batch_size,
            mixed_precision_dtype=dtype,
        )


class _Watch:
    """A hook that lm-eval calls after every request: there for a cache of answers, here to move our progress."""

    def __init__(self, requests: Sequence[Instance], what: str) -> None:
        self._ticks = track(requests, what)
        next(self._ticks)

    def add_partial(self, *_: Any) -> None:
        """One more request is scored."""
        next(self._ticks, None)


def _answers(harness: HFLM, loaded: Loaded, items: Sequence[Item], what: str) -> list[Answer]:
    """Score all requests, batched as lm-eval batches them: longest first."""
    requests = [request for item in items for request in item.requests]
    harness.set_cache_hook(_Watch(requests, what))
    with quiet_harness():
        scores = iter(harness.loglikelihood(requests, disable_tqdm=True))
    answers = []
    for item in items:
        own = list(islice(scores, len(item.requests)))
        answers.append(Answer(own, loaded.task.process_results(item.document, own)))
    return answers


def _values(answers: Sequence[Answer]) -> dict[str, list[Any]]:
    """Each metric's values over the items that have it."""
    names = dict.fromkeys(name for answer in answers for name in answer.metrics)
    return {name: [answer.metrics[name] for answer in answers if name in answer.metrics] for name in names}


def _figures(loaded: Loaded, answers: Sequence[Answer]) -> dict[str, float]:
    """Each metric over all items, by lm-eval's own aggregation."""
    over = loaded.task.aggregation()
    return {name: float(over.get(name, mean)(values)) for name, values in _values(answers).items()}


def _stderr(loaded: Loaded, answers: Sequence[Answer]) -> dict[str, float]:
    """Standard errors of means, as lm-eval has them, and of perplexities.

    A perplexity exp(-m) has exp(-m) times the standard error of m, to first order; lm-eval resamples instead.
    """
    over, found = loaded.task.aggregation(), {}
    for name, values in _values(answers).items():
        aggregation = over.get(name, mean)
        if len(values) > 1 and aggregation in (mean, perplexity):
            slope = perplexity(values) if aggregation is perplexity else 1.0
            found[name] = float(slope * mean_stderr(values))
    return found


def _right_or_wrong(answers: Sequence[Answer]) -> Iterator[tuple[str, list[float]]]:
    for name, values in _values(answers).items():
        if len(values) == len(answers) and all(isinstance(v, int | float) and v in (0, 1) for v in values):
            yield name, values


def _record(index: int, item: Item, answer: Answer) -> dict[str, Any]:
    """One item as a JSON object. `doc_hash` is that of lm-eval's own logs."""
    contexts, continuations = zip(*item.pairs, strict=True)
    document = json.dumps(item.document, indent=2, default=handle_non_serializable, ensure_ascii=False)
    return {
        "item": index,
        "doc_hash": hash_string(document),
        "context": contexts[0] if len(set(contexts)) == 1 else list(contexts),
        "continuations": list(continuations),
        "target": item.right,
        "loglikelihoods": [nats for nats, _ in answer.scores],
        "greedy": [greedy for _, greedy in answer.scores],
        **{name: float(value) for name, value in answer.metrics.items() if isinstance(value, int | float)},
    }
