import hashlib
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from suite import synthetic
from suite.errors import ConfigError, EnvironmentProblem
from suite.models import load_model
from suite.streaming import empty_model
from suite.synthetic import SHAPES, Draw, synthesize

TOKENS = torch.arange(400).reshape(2, 200) * 7 % 4096
TWO = Draw("tiny", blocks=2)
PARAMETERS = {  # as their papers and cards have them, in thousands of millions
    "llama-2-7b": 6.738,
    "llama-2-13b": 13.016,
    "llama-2-70b": 68.977,
    "llama-3-8b": 8.030,
    "llama-3-70b": 70.554,
    "qwen-2.5-7b": 7.616,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """All six blocks of the smallest shape."""
    return synthesize(Draw("tiny"), tmp_path_factory.mktemp("models") / "tiny")


def digests(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def weights(folder):
    return {name: each for file in folder.glob("*.safetensors") for name, each in load_file(file).items()}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_shape_has_the_parameters_of_its_model(name):
    model = empty_model(SHAPES[name].config(SHAPES[name].blocks, torch.bfloat16))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count / 1e9 == pytest.approx(PARAMETERS[name], abs=6e-4)


def test_it_is_an_ordinary_model_of_finite_perplexity(made):
    subject = load_model(str(made), offline=True)
    loss = subject.model(TOKENS, labels=TOKENS).loss
    assert subject.storage_dtype == torch.bfloat16 and len(subject.tokenizer("the house")["input_ids"]) > 0
    assert 0 < float(loss) < 2 * torch.tensor(4096.0).log()


def test_transformers_alone_reads_it(made):
    model = AutoModelForCausalLM.from_pretrained(made, dtype=torch.float32)
    assert model.lm_head.weight is not model.get_input_embeddings().weight
    assert model.config.num_key_value_heads == 2 and model(TOKENS).logits.isfinite().all()


def test_hidden_states_stay_as_large_as_they_are_through_all_blocks(made):
    states = load_model(str(made), offline=True).model(TOKENS, output_hidden_states=True).hidden_states
    sizes = [float(state.square().mean().sqrt()) for state in states[:-1]]
    assert max(sizes) < 2 * min(sizes)


def test_weights_are_as_uneven_as_trained_ones(made):
    weight = weights(made)["model.layers.3.mlp.up_proj.weight"].float()
    rows, columns = weight.norm(dim=1), weight.norm(dim=0)
    assert rows.max() > 1.8 * rows.median() and columns.max() > 4 * columns.median()
    even = weight / columns
    even /= even.norm(dim=1, keepdim=True)
    assert float((even**4).mean() / (even**2).mean() ** 2) > 3.5  # a normal distribution has 3


def test_some_channels_of_the_residual_stream_stand_out(made):
    found = weights(made)
    channels = found["model.embed_tokens.weight"].float().norm(dim=0)
    assert channels.max() > 10 * channels.median()
    gains = found["model.layers.0.input_layernorm.weight"].float()
    assert gains.max() > 2 * gains.median() > 0


def test_the_same_seed_makes_the_same_bytes_on_any_number_of_threads(made, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2 if before == 1 else 1)
    try:
        again = synthesize(Draw("tiny"), tmp_path / "again")
    finally:
        torch.set_num_threads(before)
    assert digests(again) == digests(made)


def test_every_row_is_drawn_in_chunks_of_any_size(monkeypatch, tmp_path):
    monkeypatch.setattr(synthetic, "CHUNK", 1000)
    found = weights(synthesize(TWO, tmp_path / "model"))
    assert all(bool((each != 0).any(dim=-1).all()) for each in found.values())


def test_the_first_blocks_are_those_of_the_whole_model(made, tmp_path):
    part, whole = weights(synthesize(TWO, tmp_path / "two")), weights(made)
    assert len(part) < len(whole) and all(each.equal(whole[name]) for name, each in part.items())


def test_another_seed_is_another_model(made, tmp_path):
    part, whole = weights(synthesize(replace(TWO, seed=1), tmp_path / "two")), weights(made)
    assert not any(each.equal(whole[name]) for name, each in part.items())


def test_what_is_there_is_not_drawn_again(made, monkeypatch):
    monkeypatch.setattr(synthetic, "_fill", None)
    assert synthesize(Draw("tiny"), made) == made


def test_a_folder_with_anything_else_is_refused(made, tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="ascii")
    for draw, folder in ((TWO, made), (replace(TWO, seed=1, blocks=6), made), (TWO, tmp_path)):
        with pytest.raises(ConfigError, match="holds something else than tiny"):
            synthesize(draw, folder)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_folder_is_filled(tmp_path):
    assert synthesize(TWO, tmp_path) == tmp_path and (tmp_path / "config.json").is_file()


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (Draw("lama-2-7b"), "no shape 'lama-2-7b'. Did you mean 'llama-2-7b'"),
        (Draw("tiny", blocks=0), "blocks is 0; tiny has 6, so give 1 to 6"),
        (Draw("tiny", blocks=7), "blocks is 7"),
        (Draw("tiny", dtype="int8"), "--dtype is 'int8'; allowed: float16, bfloat16, float32"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_line(draw, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        synthesize(draw, tmp_path / "model")
    assert not any(tmp_path.iterdir())


def test_a_disk_without_room_is_refused_before_anything_is_drawn(monkeypatch, tmp_path):
    usage = type("Usage", (), {"free": 13 * 2**29})
    monkeypatch.setattr("suite.synthetic.shutil.disk_usage", lambda _: usage)
    with pytest.raises(EnvironmentProblem, match="the model takes 12.6 GiB and .* has 6.5 GiB free"):
        synthesize(Draw("llama-2-7b"), tmp_path / "model")
    assert not any(tmp_path.iterdir())


def test_a_failure_on_the_way_leaves_no_model(monkeypatch, tmp_path):
    def full(*_):
        raise RuntimeError("disk quota")

    monkeypatch.setattr(synthetic, "save_file", full)
    with pytest.raises(RuntimeError, match="quota"):
        synthesize(TWO, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_the_index_says_what_was_drawn(made):
    facts = json.loads((made / "model.safetensors.index.json").read_text(encoding="utf-8"))["metadata"][
        "synthetic"
    ]
    assert facts["shape"] == "tiny" and facts["blocks"] == 6 and facts["device"] == "cpu"
