"""Rows as a run would leave them, a tiny Llama with a tokenizer, and texts: made once for each test process."""

import os
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported: no test asks the hub
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read where Triton is imported, as `suite` makes others do
sys.path.append(str(Path(__file__).with_name("faults")))  # for `harness`, which tests of several folders import

from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402

from suite import reevaluate, runner  # noqa: E402
from suite.results import JOURNAL_NAME, Cost, Journal, Quality, Row, Size  # noqa: E402

WORDS = "the a one old new red wise river house stone king sea grew built found lost saw under over near".split()

SIZE = Size(
    nominal_bits=2.0,
    stored_bits_per_weight=2.125,
    model_bits_per_parameter=4.5,
    stored_bytes=1_000,
    model_bytes=3_000,
    compressed_parameters=4_000,
    total_parameters=5_000,
    sparsity=0.5,
)
QUALITY = Quality(
    perplexity=20.0,
    word_perplexity=40.0,
    bits_per_byte=1.0,
    scored_tokens=512,
    kl_mean=0.25,
    kl_median=0.2,
    kl_p99=2.0,
    top1_agreement=0.75,
    window_nll=(700.0, 800.0),
)
COST = Cost(calibrate_seconds=1.0, compress_seconds=2.0, evaluate_seconds=3.0, peak_memory_gib=1.5)
DEFAULTS: dict[str, Any] = {
    "status": "ok",
    "recipe": "quickstart",
    "recipe_sha256": "ab" * 32,
    "model": "smollm2-135m",
    "model_fingerprint": "f1",
    "method": "wanda",
    "title": "Wanda",
    "variant": "2:4",
    "settings": {"keep": 2, "of": 4},
    "statistics_mode": "dense",
    "seed": 0,
    "calibration": "c4, 8 x 512 tokens",
    "calibration_tokens": 4096,
    "ledger": "led9e4",
    "protocol": "wiki[validation], joined by '\\n\\n', 8 windows of 512",
    "protocol_id": "proto12345678",
    "evaluated_tokens": "tokens123456",
    "environment": {"machine": "Test CPU, 2 cores, 8 GiB", "commit": "c0ffee"},
    "created": "2030-01-02T03:04:05+00:00",
}


@pytest.fixture
def make_row() -> Callable[..., Row]:
    """A row with any field, and any number of its size, quality or cost, given by keyword."""

    def make(row_id: str = "r0", **given: Any) -> Row:
        groups = {"size": SIZE, "quality": QUALITY, "cost": COST}
        for name, group in groups.items():
            fields = {key: given.pop(key) for key in list(given) if key in type(group).model_fields}
            given.setdefault(name, group.model_copy(update=fields))
        return Row(**{**DEFAULTS, "row_id": row_id, "cell_id": f"cell-{row_id}", **given})

    return make


@dataclass
class Recorder:
    """What stands in for a Tracker: takes rows and keeps nothing."""

    out: Path
    uri: str
    experiment: str = ""
    recipe_text: str = ""

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def journal(self) -> Journal:
        return Journal(self.out / JOURNAL_NAME)

    folder_id = "recorder"

    def record(self, row: Row) -> None:
        assert isinstance(row, Row)

    def submit(self, key: str, digest: str, send: object) -> None:
        pass

    def pending(self) -> list[Path]:
        return []


@pytest.fixture(scope="module")
def no_tracking() -> Iterator[None]:
    """MLflow has its own tests; elsewhere a run need not lay out a database."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (runner, reevaluate):
            patch.setattr(module, "Tracker", Recorder)
        yield


def prose(sentences: int, seed: int) -> str:
    """Sentences of random words, the same for a seed."""
    draw = random.Random(seed)
    lines = (" ".join(draw.choices(WORDS, k=draw.randint(5, 12))) for _ in range(sentences))
    return " ".join(f"{line.capitalize()}." for line in lines)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with 300 entries and a BOS token that is not added by itself."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator([prose(300, seed=0)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A directory with a two-block Llama: grouped-query attention, tied embeddings, float16 weights."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def calibration_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JSON lines with forty short documents."""
    path = tmp_path_factory.mktemp("texts") / "calibration.jsonl"
    path.write_text("".join(f'{{"text": "{prose(6, seed=i)}"}}\n' for i in range(40)), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def evaluation_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One long document that shares no document with the calibration text."""
    path = tmp_path_factory.mktemp("texts") / "evaluation.txt"
    path.write_text(prose(60, seed=1000), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One process to fork from, for all tests that kill."""
    from harness import Mortal

    process = Mortal(tmp_path_factory.mktemp("mortal") / "log")
    yield process
    process.close()
