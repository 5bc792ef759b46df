"""Perplexity and KL against a few lines of independent arithmetic, and what is kept of the dense model."""

import math
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM

from suite.data import Texts
from suite.errors import CalibrationError
from suite.evaluations import dense_folder
from suite.protocols import Expect, Protocol
from suite.quality import OnWindows
from suite.reference import plain_head, window_path
from suite.windows import cut_windows

CPU = torch.device("cpu")


def loaded(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def subject_of(model):
    return SimpleNamespace(name="tiny", fingerprint="f" * 64, model=model)


@pytest.fixture
def cut(evaluation_text, tokenizer):
    texts = Texts(source="t", split="all", documents=tuple(evaluation_text.read_text().split(". ")), licence="")
    return cut_windows(texts, tokenizer, Protocol(source="t", length=32, windows=3))


@pytest.fixture(scope="module")
def model(tiny_model):
    return loaded(tiny_model)


@pytest.fixture
def other(tiny_model):
    """The model with noise on one matrix."""
    changed = loaded(tiny_model)
    with torch.no_grad():
        weight = changed.model.layers[0].mlp.up_proj.weight
        weight += 0.5 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    return changed


@pytest.fixture
def evaluation(cut, model, tmp_path):
    made = OnWindows(cut)
    made.prepare(subject_of(model), CPU, tmp_path)
    return made


@pytest.fixture
def capped(tokenizer):
    """A model that squeezes its logits after the head."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "final_logit_softcapping": 0.05}
    return Gemma2ForCausalLM(Gemma2Config(vocab_size=len(tokenizer), **sizes, **heads)).eval()


@torch.no_grad()
def kl_of(cut, dense, other):
    """[windows] of [length - 1], by torch's own kl_div."""
    pairs = [(dense(ids[None]).logits[0, :-1], other(ids[None]).logits[0, :-1]) for ids in cut.tokens]
    logs = [(p.log_softmax(-1), q.log_softmax(-1)) for p, q in pairs]
    return [torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(-1) for p, q in logs]


@torch.no_grad()
def test_perplexity_is_exp_of_the_mean_loss_of_every_token_but_the_first(model, cut, evaluation):
    losses = [model(input_ids=ids[None], labels=ids[None]).loss.item() for ids in cut.tokens]
    found = evaluation.measure(model, CPU).quality
    assert found.perplexity == pytest.approx(math.exp(sum(losses) / 3), rel=1e-5)
    assert found.window_nll == pytest.approx([31 * loss for loss in losses], rel=1e-5)


def test_word_and_byte_figures_are_the_same_loss_over_other_counts(model, cut, evaluation):
    q = evaluation.measure(model, CPU).quality
    assert q.word_perplexity == pytest.approx(math.exp(sum(q.window_nll) / cut.words))
    assert q.bits_per_byte == pytest.approx(sum(q.window_nll) / math.log(2) / cut.bytes)


def test_kl_is_that_of_torch_in_every_window_and_quantile(model, other, cut, evaluation):
    kl, found = kl_of(cut, model, other), evaluation.measure(other, CPU).quality
    assert found.window_kl == pytest.approx([window.sum().item() for window in kl], rel=1e-4)
    together = torch.cat(kl).double()
    expected = [together.mean(), together.median(), together.quantile(0.99)]
    assert [found.kl_mean, found.kl_median, found.kl_p99] == pytest.approx([e.item() for e in expected], rel=1e-4)


@torch.no_grad()
def test_agreement_is_the_share_of_equal_most_likely_tokens(model, other, cut, evaluation):
    same = [
        model(ids[None]).logits[0, :-1].argmax(-1) == other(ids[None]).logits[0, :-1].argmax(-1)
        for ids in cut.tokens
    ]
    found = evaluation.measure(other, CPU).quality
    assert (
        found.top1_agreement == pytest.approx(torch.cat(same).float().mean().item())
        and 0 < found.top1_agreement < 1
    )


def test_a_model_is_no_distance_from_itself(model, evaluation):
    found = evaluation.measure(model, CPU).quality
    assert 0 <= found.kl_p99 < 1e-9 and found.top1_agreement == 1


def test_a_head_that_gives_the_logits_is_kept_in_place_of_them(model, cut, evaluation, tmp_path):
    folder = dense_folder(tmp_path, subject_of(model), cut.tokens_id)
    size = window_path(folder, 0).stat().st_size
    assert size < 31 * (32 + 1) * 4 + 500 < 31 * len(model.lm_head.weight) * 2


def test_a_model_that_caps_its_logits_is_kept_as_log_probabilities_with_the_same_kl(capped, cut, tmp_path):
    assert plain_head(capped) is None
    evaluation = OnWindows(cut)
    evaluation.prepare(subject_of(capped), CPU, tmp_path)
    same = evaluation.measure(capped, CPU).quality
    assert same.kl_mean < 1e-6 and same.top1_agreement == 1
    changed = Gemma2ForCausalLM(capped.config).eval()
    expected = torch.cat(kl_of(cut, capped, changed)).mean().item()
    assert evaluation.measure(changed, CPU).quality.kl_mean == pytest.approx(expected, rel=0.02, abs=1e-6)


def test_the_reference_is_computed_once_and_a_damaged_window_again(model, cut, evaluation, tmp_path, monkeypatch):
    paths = sorted(dense_folder(tmp_path, subject_of(model), cut.tokens_id).glob("window_*"))
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths]
    paths[1].write_bytes(b"torn")
    OnWindows(cut).prepare(subject_of(model), CPU, tmp_path)
    assert paths[1].read_bytes() == before[1][0]
    assert [path.stat().st_mtime_ns for path in paths[::2]] == [time for _, time in before[::2]]


def test_a_reference_with_another_byte_in_it_is_not_believed(model, cut, evaluation, tmp_path):
    path = window_path(dense_folder(tmp_path, subject_of(model), cut.tokens_id), 1)
    before = path.read_bytes()
    path.write_bytes(before[:-100] + bytes([before[-100] ^ 64]) + before[-99:])
    OnWindows(cut).prepare(subject_of(model), CPU, tmp_path)
    assert path.read_bytes() == before


def test_the_noise_floor_is_what_batches_and_bfloat16_do_to_the_dense_model(model, cut, tmp_path):
    noise = OnWindows(cut).prepare(subject_of(model), CPU, tmp_path)
    assert set(noise) == {"batch of 2", "bfloat16"}
    assert noise["batch of 2"]["nll"] < 1e-5 and noise["batch of 2"]["kl"] < 1e-9 < noise["bfloat16"]["kl"] < 1e-3
    assert 0 < noise["bfloat16"]["nll"] < 0.01


def test_a_dense_model_that_misses_the_expected_perplexity_is_refused(model, cut, evaluation, tmp_path):
    found = evaluation.measure(model, CPU).quality.perplexity
    for off, model_named, passes in [
        (0.05, None, True),
        (0.2, None, False),
        (0.2, "tiny", False),
        (0.2, "big", True),
    ]:
        wish = Expect(perplexity=found + off, tolerance=0.1, model=model_named)
        protocol = cut.protocol.model_copy(update={"expect": (wish,)})
        expecting = OnWindows(type(cut)(**{**vars(cut), "protocol": protocol}))
        if passes:
            expecting.prepare(subject_of(model), CPU, tmp_path)
        else:
            with pytest.raises(
                CalibrationError, match=rf"has perplexity {found:.4f} under t@32 .* nothing is compressed"
            ):
                expecting.prepare(subject_of(model), CPU, tmp_path)
