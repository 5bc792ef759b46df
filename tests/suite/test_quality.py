"""Perplexity and KL against a few lines of independent arithmetic."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from suite.config import Protocol
from suite.errors import CalibrationError
from suite.quality import DenseReference, cut_windows, measure

CPU = torch.device("cpu")


def protocol(**values) -> Protocol:
    return Protocol(**{"source": "test", "length": 32, "windows": 3} | values)


@pytest.fixture
def documents(evaluation_text):
    return evaluation_text.read_text().split(". ")


@pytest.fixture
def windows(documents, tokenizer):
    return cut_windows(documents, tokenizer, protocol())


@pytest.fixture(scope="module")
def model(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


@pytest.fixture
def other(model, tiny_model):
    """The model with noise on one matrix."""
    changed = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    with torch.no_grad():
        weight = changed.model.layers[0].mlp.up_proj.weight
        weight += 0.5 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    return changed


@pytest.fixture
def dense(model, windows, tmp_path):
    reference = DenseReference(tmp_path)
    reference.prepare(model, windows, CPU)
    return reference


@torch.no_grad()
def test_perplexity_is_exp_of_the_mean_loss_of_every_token_but_the_first(model, windows, dense):
    losses = [model(input_ids=ids[None], labels=ids[None]).loss.item() for ids in windows.tokens]
    assert measure(model, windows, dense, CPU).perplexity == pytest.approx(math.exp(sum(losses) / 3), rel=1e-5)


def test_windows_are_neighbours_in_the_joined_text(documents, tokenizer, windows):
    ids = tokenizer("\n\n".join(documents))["input_ids"]
    assert windows.tokens.flatten().tolist() == ids[: 3 * 32]


def test_word_and_byte_figures_are_the_same_loss_over_other_counts(model, windows, dense):
    q = measure(model, windows, dense, CPU)
    nll = sum(q.window_nll)
    assert q.word_perplexity == pytest.approx(math.exp(nll / windows.words))
    assert q.bits_per_byte == pytest.approx(nll / math.log(2) / windows.bytes)


def test_scored_text_is_all_but_the_first_token_of_each_window(tokenizer, windows):
    texts = [tokenizer.decode(ids[1:]) for ids in windows.tokens]
    assert windows.bytes == sum(len(text.encode()) for text in texts)


@torch.no_grad()
def test_kl_is_that_of_torch(model, other, windows, dense):
    pairs = [(model(ids[None]).logits[0, :-1], other(ids[None]).logits[0, :-1]) for ids in windows.tokens]
    kl = [
        torch.nn.functional.kl_div(q.log_softmax(-1), p.log_softmax(-1), reduction="none", log_target=True).sum(-1)
        for p, q in pairs
    ]
    found = measure(other, windows, dense, CPU)
    assert found.kl_mean == pytest.approx(torch.cat(kl).mean().item(), rel=2e-3)
    agree = torch.cat([p.argmax(-1) == q.argmax(-1) for p, q in pairs]).float().mean().item()
    assert found.top1_agreement == pytest.approx(agree)


def test_a_model_is_no_distance_from_itself(model, windows, dense):
    found = measure(model, windows, dense, CPU)
    assert 0 <= found.kl_mean < 1e-6 and found.top1_agreement == 1


def test_bos_in_each_window_makes_every_text_token_count(documents, tokenizer, windows):
    with_bos = cut_windows(documents, tokenizer, protocol(bos=True))
    assert (with_bos.tokens[:, 0] == tokenizer.bos_token_id).all()
    assert with_bos.tokens[:, 1:].flatten().tolist() == windows.tokens.flatten().tolist()[: 3 * 31]


def test_the_protocol_is_the_same_for_every_name_and_tokenizer_and_no_other_rule(documents, tokenizer, windows):
    renamed = cut_windows(documents, tokenizer, protocol(source="elsewhere", split="test"))
    assert (renamed.protocol_id, renamed.tokens_id) == (windows.protocol_id, windows.tokens_id)
    assert cut_windows(documents, tokenizer, protocol(windows=2)).protocol_id != windows.protocol_id
    assert cut_windows(documents[1:], tokenizer, protocol()).protocol_id != windows.protocol_id


def test_too_little_text_says_how_much_there_is(documents, tokenizer):
    with pytest.raises(CalibrationError, match=r"asks for 999 windows of 32 tokens, but test holds only \d+"):
        cut_windows(documents, tokenizer, protocol(windows=999))


def test_a_damaged_reference_is_computed_again(model, windows, dense, tmp_path):
    before = dense.read(1)["log_probabilities"].clone()  # what is read is a view of the file
    (tmp_path / "window_0001.safetensors").write_bytes(b"torn")
    dense.prepare(model, windows, CPU)
    assert dense.read(1)["log_probabilities"].equal(before)
