"""A tiny Llama with a tokenizer, and texts: real files on disk, made once for each test process."""

import inspect
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported: no test asks the hub

import pytest
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from suite.architecture import decoder_blocks, linears
from suite.config import Recipe
from suite.models import Subject, load_model
from suite.runner import Options, Outcome, run

WORDS = "the a one old new red wise river house stone king sea grew built found lost saw under over near".split()

SEARCHED = {"bits": 1, "dim": [2, 4], "iterations": {"low": 1, "high": 6}, "init": ["nowag", "kmeans++"]}


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


@pytest.fixture(scope="module")
def lively(tiny_model: Path) -> Subject:
    """The tiny model with linears eight times as large, so that its outputs are not all alike."""
    subject = load_model(str(tiny_model), offline=True)
    for block in decoder_blocks(subject.model):
        for layer in linears(block).values():
            layer.weight.data *= 8
    return subject


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


@pytest.fixture
def recipe_values(tiny_model: Path, calibration_text: Path, evaluation_text: Path) -> dict[str, Any]:
    """A recipe for the tiny model: one method that needs data, one that does not, and the dense baseline."""
    return {
        "name": "tiny",
        "models": str(tiny_model),
        "calibration": {"source": str(calibration_text), "sequences": 4, "length": 32},
        "evaluation": {"source": str(evaluation_text), "windows": 3, "length": 32},
        "methods": {"dense": {}, "rtn": {"bits": 4, "group_size": 16}, "nowag-p": {"sparsity": 0.5}},
    }


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """A function that writes a recipe's values to a YAML file of its own."""

    def write(values: dict[str, Any]) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        return path

    return write


@pytest.fixture
def run_with(recipe_values: dict[str, Any], tmp_path: Path) -> Callable[..., Outcome]:
    """Run the tiny recipe with changes, into one folder."""

    def run_it(**changes: Any) -> Outcome:
        return run(Recipe.model_validate(recipe_values | changes), Options(tmp_path / "out", offline=True))

    return run_it


@pytest.fixture
def untracked_search(no_tracking: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow has its own tests; elsewhere a search need not lay out a database."""
    from suite import runner
    from suite.tuning import search

    monkeypatch.setattr(search, "Tracker", runner.Tracker)


@pytest.fixture
def asked(
    recipe_values: dict[str, Any], calibration_text: Path, write_recipe: Callable[..., Path]
) -> Callable[..., Any]:
    """A function that makes the tiny search, or one of other methods, with keys of `tune`."""
    from suite.tuning.recipe import load_tune_recipe

    def make(methods: dict[str, Any] | None = None, **tuning: Any) -> Any:
        confirm = {"source": str(calibration_text), "windows": 2, "length": 40}
        usual = {"trials": 4, "rungs": {"blocks": 2, "windows": 1}, "confirm": confirm, "unnamed": "default"}
        keys = {"methods": methods or {"nowag-vq": SEARCHED}, "tune": usual | tuning, "allow_overlap": True}
        return load_tune_recipe(write_recipe(recipe_values | keys))

    return make


@pytest.fixture
def tuned(asked: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """A function that runs such a search, in one folder."""
    from suite.tuning.search import Options, search

    return lambda methods=None, **tuning: search(asked(methods, **tuning), Options(tmp_path / "out", offline=True))


@pytest.fixture
def searched_settings() -> dict[str, Any]:
    """What the tiny search searches of NoWag-VQ."""
    return dict(SEARCHED)


class Mortal:
    """Attempts at work in children of one process that has imported everything (`zygote.py`).

    The work is a function at the top of a test file, called with paths. An attempt may be killed at any instant.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self._zygote = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )

    def attempt(self, work: Callable[..., object], *paths: Path, seconds: float | None = None) -> bool:
        """Whether the work was done before it was killed. AssertionError, with what it said, if it failed."""
        request = [inspect.getfile(work), work.__name__, [str(path) for path in paths], seconds, str(self.log)]
        self._zygote.stdin.write(f"{json.dumps(request)}\n")
        self._zygote.stdin.flush()
        status = int(self._zygote.stdout.readline())
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert killed or status == 0, self.log.read_text()
        return not killed

    def close(self) -> None:
        """End the process."""
        self._zygote.communicate()


@pytest.fixture(scope="session")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    """One process to fork from, for all tests that kill."""
    process = Mortal(tmp_path_factory.mktemp("mortal") / "log")
    yield process
    process.close()
