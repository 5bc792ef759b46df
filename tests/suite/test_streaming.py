import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from suite.architecture import decoder_blocks
from suite.blockwise import all_logits
from suite.calibrate import first_inputs
from suite.checkpoint import export_dense, load_cell
from suite.config import Recipe
from suite.errors import AssetError, ConfigError
from suite.files import file_sha256
from suite.models import load_model
from suite.prepare import subject_of
from suite.runner import Options, run
from suite.streaming import HELD_GIB, is_streamed, placed, to_device

CPU = torch.device("cpu")
TOKENS = torch.arange(48).reshape(3, 16) % 20


@pytest.fixture
def streaming(monkeypatch):
    """From here on every model is too large to hold."""
    monkeypatch.setenv(HELD_GIB, "0")
    subject_of.cache_clear()
    yield
    subject_of.cache_clear()


@pytest.fixture
def both(tiny_model, monkeypatch):
    """The tiny model, held and streamed."""
    held = load_model(str(tiny_model), offline=True)
    monkeypatch.setenv(HELD_GIB, "0")
    return held.model, load_model(str(tiny_model), offline=True).model


@pytest.fixture
def tiny_copy(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "model")


def present(model):
    return sum(p.numel() for p in model.parameters() if not p.is_meta)


def test_at_rest_only_what_is_outside_the_blocks_is_there(both):
    held, streamed = both
    inside = sum(p.numel() for block in decoder_blocks(held) for p in block.module.parameters())
    assert present(streamed) == present(held) - inside


def test_a_block_at_work_has_the_weights_of_the_file_and_then_none(both):
    held, streamed = (decoder_blocks(model)[1].module for model in both)
    with placed(streamed, CPU):
        assert all(own.equal(held.get_parameter(name)) for name, own in streamed.named_parameters())
    assert present(streamed) == 0


def test_whatever_calls_a_streamed_model_gets_its_logits(both):
    held, streamed = (model(TOKENS).logits for model in both)
    assert held.equal(streamed)
    assert present(decoder_blocks(both[1])[0].module) == 0


def test_a_block_rests_again_after_a_call_that_failed(both):
    block = decoder_blocks(both[1])[0].module
    with pytest.raises(RuntimeError):
        block(torch.zeros(1, 4, 3))
    assert present(block) == 0


def test_logits_are_the_same_block_by_block(both):
    whole, in_blocks = (torch.cat(list(all_logits(model, TOKENS, CPU, "test"))) for model in both)
    assert whole.equal(in_blocks)


def test_many_sweeps_are_as_good_as_one(both, monkeypatch):
    expected = torch.cat(list(all_logits(both[0], TOKENS, CPU, "test")))
    monkeypatch.setattr("suite.blockwise.SWEEP_BYTES", 1)
    assert torch.cat(list(all_logits(both[1], TOKENS, CPU, "test"))).equal(expected)


def test_a_held_model_too_large_for_the_device_goes_through_it_block_by_block(both, monkeypatch):
    expected = torch.cat(list(all_logits(both[0], TOKENS, CPU, "test")))
    monkeypatch.setattr("suite.blockwise.in_blocks", lambda *_: True)
    assert torch.cat(list(all_logits(both[0], TOKENS, CPU, "test"))).equal(expected)


@pytest.mark.gpu
def test_on_a_gpu_only_one_block_is_there_at_a_time(both):
    device = torch.device("cuda")
    torch.cuda.reset_peak_memory_stats()
    logits = torch.cat(list(all_logits(both[1], TOKENS, device, "test"))).cpu()
    torch.testing.assert_close(logits, both[0](TOKENS).logits[:, :-1], atol=1e-4, rtol=1e-4)
    to_device(both[1], CPU)
    assert {p.device.type for p in both[1].parameters()} == {"cpu", "meta"}


@pytest.mark.gpu
def test_on_a_gpu_hidden_states_of_a_streamed_model_can_wait_on_the_host(both, monkeypatch):
    device = torch.device("cuda")
    expected = torch.cat(list(all_logits(both[1], TOKENS, device, "test")))
    monkeypatch.setattr("suite.calibrate.HIDDEN_ON_DEVICE_BYTES", 0)
    kept = first_inputs(both[1], TOKENS, 1, device)
    assert all(batch.waits and batch.hidden.is_pinned() for batch in kept)
    assert torch.cat(list(all_logits(both[1], TOKENS, device, "test"))).equal(expected)
    to_device(both[1], CPU)


def test_rows_and_shards_are_those_of_a_model_that_is_held(recipe_values, tmp_path, monkeypatch):
    methods = {"dense": {}, "nowag-p": {}, "gptq": {"bits": 4, "group_size": 16}, "wanda": {"finetune": True}}
    recipe = Recipe.model_validate(recipe_values | {"methods": methods})
    found = []
    for held in ("8", "0"):
        monkeypatch.setenv(HELD_GIB, held)
        subject_of.cache_clear()
        outcome = run(recipe, Options(tmp_path / held, offline=True))
        assert is_streamed(subject_of(recipe.models[0], True).model) is (held == "0")
        shards = {f.relative_to(outcome.folder): file_sha256(f) for f in outcome.folder.rglob("cells/**/*.safe*")}
        found.append((shards, [(row.cell_id, row.quality) for row in outcome.rows]))
    subject_of.cache_clear()
    assert found[0] == found[1]


def test_what_needs_the_whole_model_is_refused_before_anything_runs(recipe_values, streaming, tmp_path):
    recipe = Recipe.model_validate(recipe_values | {"methods": {"rtn": {"finetune": {"end_to_end": {}}}}})
    with pytest.raises(ConfigError, match=f"end_to_end needs the whole model at once.*{HELD_GIB}=1"):
        run(recipe, Options(tmp_path / "out", offline=True))


def test_an_export_is_the_same_checkpoint_in_more_files(run_with, tmp_path, monkeypatch):
    cell = next((run_with().folder / "cells").iterdir())
    exports = []
    for held in ("8", "0"):
        monkeypatch.setenv(HELD_GIB, held)
        files = sorted(export_dense(cell, tmp_path / held).glob("*.safetensors"))
        exports.append({name: tensor for file in files for name, tensor in load_file(file).items()})
    assert exports[0].keys() == exports[1].keys()
    assert all(exports[0][name].equal(exports[1][name]) for name in exports[0])
    subject = load_model(str(tmp_path / "0"), offline=True)
    assert is_streamed(subject.model) and subject.storage_dtype == exports[0]["model.embed_tokens.weight"].dtype


def test_a_streamed_cell_is_as_large_and_as_sparse_as_a_held_one(run_with, monkeypatch):
    for cell in (run_with().folder / "cells").iterdir():
        held = load_cell(cell)
        monkeypatch.setenv(HELD_GIB, "0")
        streamed = load_cell(cell)
        monkeypatch.delenv(HELD_GIB)
        assert held.size == streamed.size and present(streamed.model) < present(held.model)
        assert held.model(TOKENS).logits.equal(streamed.model(TOKENS).logits)


def test_a_checkpoint_with_names_of_its_own_is_not_read_in_parts(tiny_copy, streaming):
    tensors = load_file(tiny_copy / "model.safetensors")
    tensors["model.layers.0.mlp.odd.weight"] = tensors.pop("model.layers.0.mlp.up_proj.weight")
    save_file(tensors, tiny_copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AssetError, match=f"up_proj.weight .* is missing in the files; .*{HELD_GIB}"):
        load_model(str(tiny_copy), offline=True)


@pytest.mark.parametrize("given", ["much", "-1", "nan"])
def test_a_size_that_is_none_is_refused(tiny_model, monkeypatch, given):
    monkeypatch.setenv(HELD_GIB, given)
    with pytest.raises(ConfigError, match=f"{HELD_GIB} is '{given}'"):
        load_model(str(tiny_model), offline=True)
