"""How far noise in one linear moves the model: by what it is measured, and what it predicts."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import Gemma2Config, GemmaConfig, GPTNeoXConfig, OPTConfig
from transformers.models.auto import AutoModelForCausalLM

from suite import linearity
from suite.architecture import decoder_blocks, linears
from suite.budget import Budget
from suite.errors import CalibrationError
from suite.ledger import Entry
from suite.linearity import Ending, Probe, Source, measure

CPU = torch.device("cpu")
SMALL = {"vocab_size": 64, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}
GEMMA = {**SMALL, "intermediate_size": 32, "num_key_value_heads": 1, "head_dim": 8}
FAMILIES = [
    GemmaConfig(**GEMMA),
    Gemma2Config(**GEMMA, final_logit_softcapping=0.1),
    GPTNeoXConfig(**SMALL, intermediate_size=32),
    OPTConfig(**SMALL, ffn_dim=32, word_embed_proj_dim=16, max_position_embeddings=32),
]


@pytest.fixture(scope="module")
def source(lively) -> Source:
    tokens = torch.randint(2, 250, (6, 24), generator=torch.Generator().manual_seed(0))
    entry = Entry("entry", Budget(source="none", sequences=6, length=24), 0, False, "", "", (), tokens)
    return Source(lively, entry, Probe(sequences=4, length=20, levels=(0.002, 0.01)))


@pytest.fixture(scope="module")
def measured(source, tmp_path_factory):
    return measure(source, tmp_path_factory.mktemp("linearity"), CPU)


@torch.no_grad()
def moved(source, change) -> tuple[float, float]:
    """Mean increase of the negative log-likelihood, and KL, when change(name, weight) replaces each weight."""
    model, tokens = source.subject.model, source.tokens
    before = model(input_ids=tokens).logits[:, :-1].log_softmax(-1)
    layers = {f"{b.name}.{name}": layer for b in decoder_blocks(model) for name, layer in linears(b).items()}
    kept = {name: layer.weight.data for name, layer in layers.items()}
    for name, layer in layers.items():
        layer.weight.data = change(name, kept[name])
    after = model(input_ids=tokens).logits[:, :-1].log_softmax(-1)
    for name, layer in layers.items():
        layer.weight.data = kept[name]
    nll = functional.nll_loss((after - before).flatten(0, 1), tokens[:, 1:].flatten())
    return float(nll), float((before.exp() * (before - after)).sum(-1).mean())


def test_every_linear_has_a_coefficient(source, measured):
    names = {f"{b.name}.{name}" for b in decoder_blocks(source.subject.model) for name in linears(b)}
    assert set(measured.responses) == names
    assert all(response.alpha_kl > 0 for response in measured.responses.values())


def test_five_times_the_energy_of_noise_is_five_times_the_kl(measured):
    for response in measured.responses.values():
        assert response.kl[1] == pytest.approx(5 * response.kl[0], rel=0.1)


def test_kl_and_likelihood_are_those_of_the_whole_model_with_that_noise(source, measured):
    noisy = "model.layers.1.mlp.up_proj"

    def changed(sign):
        def change(name, weight):
            noise = linearity._noise(weight, 0, name) * math.sqrt(0.01)
            return weight + sign * noise if name == noisy else weight

        return torch.tensor(moved(source, change))

    nll, kl = ((changed(1) + changed(-1)) / 2).tolist()
    assert measured.responses[noisy].kl[1] == pytest.approx(kl, rel=1e-3)
    assert measured.responses[noisy].nll[1] == pytest.approx(nll, rel=1e-2, abs=1e-6)


def test_noise_has_the_energy_that_it_is_said_to_have():
    weight = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    noise = linearity._noise(weight, 0, "a")
    assert float(noise.norm()) == pytest.approx(float(weight.norm()), rel=1e-6)
    assert not noise.equal(linearity._noise(weight, 0, "b")) and not noise.equal(linearity._noise(weight, 1, "a"))


@pytest.mark.parametrize("share", [0.003, 0.03])
def test_errors_in_all_linears_add_up(source, measured, share):
    torch.manual_seed(1)
    _, kl = moved(
        source,
        lambda _, w: (
            w + math.sqrt(share) * w.norm() * functional.normalize(torch.randn_like(w).flatten(), dim=0).view_as(w)
        ),
    )
    assert kl == pytest.approx(share * sum(each.alpha_kl for each in measured.responses.values()), rel=0.35)


def test_the_dense_loss_is_the_models_own(source, measured):
    with torch.no_grad():
        loss = source.subject.model(input_ids=source.tokens, labels=source.tokens).loss
    assert measured.dense_nll == pytest.approx(float(loss), rel=1e-5)


def test_the_model_is_left_as_it_was(source, tmp_path):
    before = {name: tensor.clone() for name, tensor in source.subject.model.state_dict().items()}
    measure(source, tmp_path, CPU)
    assert all(tensor.equal(before[name]) for name, tensor in source.subject.model.state_dict().items())
    assert not any("forward" in vars(block.module) for block in decoder_blocks(source.subject.model))


def test_what_was_measured_is_not_measured_again(source, measured, tmp_path, monkeypatch):
    write, written = linearity.write_signed, []

    def once(path, data):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write(path, data)

    monkeypatch.setattr(linearity, "write_signed", once)
    with pytest.raises(KeyboardInterrupt):
        measure(source, tmp_path, CPU)
    monkeypatch.setattr(linearity, "write_signed", lambda *each: written.append(each[0]) or write(*each))
    assert measure(source, tmp_path, CPU).responses == measured.responses
    assert [path.name for path in written] == ["block_000.json", "block_001.json"]
    assert measure(source, tmp_path, CPU).spent["forward_passes"] == 1 + 14 * 2 * 2 and len(written) == 2


def test_other_noise_other_tokens_and_other_models_are_other_coefficients(source):
    others = [replace(source, probe=Probe(seed=1)), replace(source, entry=replace(source.entry, id="other"))]
    assert len({each.id for each in (source, *others)}) == 3


def test_an_output_that_is_not_finite_is_named(source, tmp_path, monkeypatch):
    monkeypatch.setattr(linearity, "_noise", lambda weight, *_: torch.full_like(weight, math.inf))
    with pytest.raises(CalibrationError, match="model.layers.0.self_attn.q_proj: with noise of 0.01"):
        measure(source, tmp_path, CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_finds_the_coefficients_of_a_cpu(source, measured, tmp_path):
    found = measure(source, tmp_path, torch.device("cuda"))
    for name, response in measured.responses.items():
        assert found.responses[name].alpha_kl == pytest.approx(response.alpha_kl, rel=1e-2)
    assert found.spent["device"] == "cuda:0" and source.subject.model.device == CPU


@pytest.mark.parametrize("config", FAMILIES, ids=lambda config: config.model_type)
@torch.no_grad()
def test_norm_head_and_caps_are_the_models_own(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    tokens = torch.randint(2, 64, (2, 8))
    ending = Ending(model, decoder_blocks(model), tokens)
    loss = functional.cross_entropy(model(input_ids=tokens).logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    assert ending.dense_nll == pytest.approx(float(loss), rel=1e-6)


class Layer(nn.Linear):
    """A block that returns a tuple, as those of many models did."""

    def forward(self, hidden):
        return (super().forward(hidden),)


class Old(nn.Module):
    """A model of such blocks."""

    device = CPU

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.blocks = nn.Embedding(64, 16), nn.ModuleList(Layer(16, 16) for _ in range(2))

    def forward(self, input_ids, use_cache=False):
        hidden = self.embedding(input_ids)
        for block in self.blocks:
            hidden = block(hidden)[0]
        return SimpleNamespace(logits=hidden @ self.embedding.weight.T)


@torch.no_grad()
def test_blocks_may_return_tuples():
    model, tokens = Old(), torch.randint(2, 64, (2, 8))
    ending = Ending(model, decoder_blocks(model), tokens)
    loss = functional.cross_entropy(model(tokens).logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    assert ending.dense_nll == pytest.approx(float(loss), rel=1e-6)
