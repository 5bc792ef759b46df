"""The ledger: which text, and which tokens of it, every method of a recipe was calibrated on.

A budget is drawn as spans of text first and tokenised second. The order in which documents are taken depends on
the seed alone, so two tokenizers read the same text from the same place; only where a sequence ends differs. An
entry keeps the spans, the token ids themselves and hashes of both; drawing it again gives the same entry.
"""

import hashlib
import json
import random
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from suite.budget import Budget
from suite.errors import CalibrationError
from suite.files import write_atomically

LEAK_WORDS = 13  # words in a row that two texts must share to count as a copy, as GPT-3's audit did
LEAK_SHARE = 0.01  # of a text's runs of words; stock phrases stay well below it
CHARACTERS_PER_TOKEN = 8  # first guess at how much text a sequence needs; doubled until it is enough


class Tokenizer(Protocol):
    """What is used of a transformers fast tokenizer."""

    bos_token_id: int | None

    def __call__(
        self, text: str, *, return_offsets_mapping: bool, add_special_tokens: bool, verbose: bool
    ) -> Any: ...


@dataclass(frozen=True)
class Span:
    """Characters [start, end) of one document of the source."""

    document: int
    start: int
    end: int


@dataclass(frozen=True)
class Entry:
    """One draw of a budget: the spans of each sequence, and its tokens."""

    id: str
    budget: Budget
    seed: int
    bos: bool
    source_sha256: str
    text_sha256: str
    spans: tuple[tuple[Span, ...], ...]
    tokens: Tensor  # [sequences, length] int64

    @property
    def count(self) -> int:
        """Tokens in the budget."""
        return self.tokens.numel()

    def text(self, documents: Sequence[str]) -> list[str]:
        """The text of each sequence, its documents joined as they were when it was drawn."""
        join = self.budget.join or ""
        return [join.join(documents[s.document][s.start : s.end] for s in spans) for spans in self.spans]


def draw(documents: Sequence[str], source_sha256: str, tokenizer: Tokenizer, budget: Budget, seed: int) -> Entry:
    """Draw a budget's sequences of exactly `length` tokens each; CalibrationError if the text is too short."""
    bos = wants_bos(tokenizer, budget.bos)
    order = list(range(len(documents)))
    random.Random(seed).shuffle(order)
    cut = _documents_apart if budget.join is None else _documents_joined
    wanted = budget.length - bos
    sequences: list[tuple[tuple[Span, ...], list[int]]] = []
    for spans, ids in cut(documents, order, tokenizer, wanted, budget.join or ""):
        sequences.append((spans, [tokenizer.bos_token_id or 0] * bos + ids))
        if len(sequences) == budget.sequences:
            break
    else:
        raise CalibrationError(
            f"calibration asks for {budget.sequences} x {budget.length} tokens, but {budget.source} holds only "
            f"{len(sequences)} such sequences; lower calibration.sequences or calibration.length"
        )
    tokens = torch.tensor([ids for _, ids in sequences])  # [sequences, length]
    spans_of = tuple(spans for spans, _ in sequences)
    entry = Entry("", budget, seed, bos, source_sha256, "", spans_of, tokens)
    text_sha256 = hashlib.sha256("\0".join(entry.text(documents)).encode()).hexdigest()
    return Entry(tokens_hash(tokens), budget, seed, bos, source_sha256, text_sha256, spans_of, tokens)


def tokens_hash(tokens: Tensor) -> str:
    """What names a set of tokens [sequences, length] int64: sixteen digits of their sha256."""
    return hashlib.sha256(tokens.numpy().tobytes()).hexdigest()[:16]


def wants_bos(tokenizer: Tokenizer, asked: bool | None) -> bool:
    """The BOS rule in force: as asked, or as the tokenizer does by itself. Refuses a BOS that does not exist."""
    if asked and tokenizer.bos_token_id is None:
        raise CalibrationError("bos: true was asked for, but this tokenizer has no BOS token; set bos: false")
    if asked is not None:
        return asked
    ids = tokenizer("a", return_offsets_mapping=False, add_special_tokens=True, verbose=False)["input_ids"]
    return tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id


def encode(tokenizer: Tokenizer, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids and their character offsets, no special tokens added."""
    encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)
    return encoded["input_ids"], encoded["offset_mapping"]


def _documents_apart(
    documents: Sequence[str], order: Iterable[int], tokenizer: Tokenizer, wanted: int, _: str
) -> Iterator[tuple[tuple[Span, ...], list[int]]]:
    """The beginning of each document that is long enough by itself."""
    for index in order:
        ids, offsets = encode(tokenizer, documents[index])
        if len(ids) >= wanted:
            yield (Span(index, 0, offsets[wanted - 1][1]),), ids[:wanted]


def _documents_joined(
    documents: Sequence[str], order: Sequence[int], tokenizer: Tokenizer, wanted: int, join: str
) -> Iterator[tuple[tuple[Span, ...], list[int]]]:
    """One long text, cut at white space into neighbouring sequences."""
    starts, position = [], 0
    for index in order:
        starts.append(position)
        position += len(documents[index]) + len(join)
    text = join.join(documents[index] for index in order)
    cursor = 0
    while cursor < len(text):
        size = wanted * CHARACTERS_PER_TOKEN
        ids, offsets = encode(tokenizer, text[cursor : cursor + size])
        while len(ids) < wanted and cursor + size < len(text):
            size *= 2
            ids, offsets = encode(tokenizer, text[cursor : cursor + size])
        if len(ids) < wanted:
            return
        end = cursor + offsets[wanted - 1][1]
        yield _spans(documents, order, starts, cursor, end), ids[:wanted]
        space = re.compile(r"\s").search(text, end)
        cursor = space.start() if space else len(text)


def _spans(
    documents: Sequence[str], order: Sequence[int], starts: Sequence[int], begin: int, end: int
) -> tuple[Span, ...]:
    """Characters [begin, end) of the joined text, as characters of the documents it lies in."""
    spans = []
    for place in range(bisect_right(starts, begin) - 1, bisect_left(starts, end)):
        index, start = order[place], starts[place]
        first, last = max(begin - start, 0), min(end - start, len(documents[index]))
        if first < last:
            spans.append(Span(index, first, last))
    return tuple(spans)


def refuse_leaks(calibration: Iterable[str], evaluation: Iterable[str], names: str) -> None:
    """CalibrationError when over 1 % of either text's runs of 13 words stand in the other, too.

    Both ways, since a large budget may hide a small task whole. An item of fewer than 13 words cannot be found.
    """
    drawn, scored = ([run for text in texts for run in word_runs(text)] for texts in (calibration, evaluation))
    for runs, others, what in ((drawn, set(scored), "calibration"), (scored, set(drawn), "evaluation")):
        share = sum(run in others for run in runs) / len(runs) if runs else 0.0
        if share > LEAK_SHARE:
            other = "evaluation" if what == "calibration" else "calibration"
            raise CalibrationError(
                f"{names}: {share:.0%} of the {what} text is also {other} text; choose another source or split, "
                "or accept it: allow_overlap: true in the recipe, --allow-overlap of evaluate"
            )


def word_runs(text: str) -> Iterator[tuple[str, ...]]:
    """Every 13 words in a row, in lower case, without punctuation."""
    words = re.findall(r"\w+", text.lower())
    return (tuple(words[i : i + LEAK_WORDS]) for i in range(len(words) - LEAK_WORDS + 1))


def save_entry(entry: Entry, folder: Path) -> Path:
    """Write `<id>.json` (spans and hashes) and `<id>.safetensors` (token ids); the json last."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{entry.id}.safetensors", save({"tokens": entry.tokens}))
    record = {
        "id": entry.id,
        "budget": entry.budget.model_dump(mode="json"),
        "seed": entry.seed,
        "bos": entry.bos,
        "source_sha256": entry.source_sha256,
        "text_sha256": entry.text_sha256,
        "tokens": entry.count,
        "spans": [[list(asdict(span).values()) for span in spans] for spans in entry.spans],
    }
    path = folder / f"{entry.id}.json"
    write_atomically(path, json.dumps(record, indent=1).encode())
    return path


def load_entry(path: Path) -> Entry:
    """Read an entry back and check its tokens against its id; CalibrationError if either file was damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        tokens = load_file(path.with_suffix(".safetensors"))["tokens"]
        spans = tuple(tuple(Span(*span) for span in sequence) for sequence in record["spans"])
        budget = Budget.model_validate(record["budget"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CalibrationError(f"ledger entry {path} cannot be read ({error}); remove it to draw anew") from None
    if tokens_hash(tokens) != record["id"]:
        raise CalibrationError(f"ledger entry {path}: the tokens are not those of its id; remove it to draw anew")
    hashes = record["source_sha256"], record["text_sha256"]
    return Entry(record["id"], budget, record["seed"], record["bos"], *hashes, spans, tokens)
