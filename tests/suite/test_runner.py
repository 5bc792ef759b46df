"""A recipe end to end on a tiny model: rows, resuming, failing, and what the files say."""

import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from kernels.linear import CompressedLinear
from methods.nowag_p import NoWagP
from suite import compress, work
from suite.architecture import decoder_blocks, linears
from suite.checkpoint import export_dense, load_cell, read_manifest
from suite.config import Recipe
from suite.errors import CalibrationError, CheckpointError, ConfigError, ResultError
from suite.files import alone
from suite.runner import Options, run
from suite.speed import Phase

pytestmark = pytest.mark.usefixtures("no_tracking")


def cell_of(outcome, row) -> Path:
    return outcome.folder / "cells" / row.cell_id


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("block_*.safetensors"))}


def test_every_cell_becomes_a_row_in_the_recipes_order(run_with):
    rows = run_with().rows
    assert [(row.method, row.status) for row in rows] == [("dense", "ok"), ("rtn", "ok"), ("nowag-p", "ok")]
    assert rows[0].quality.kl_mean < 1e-6 < rows[2].quality.kl_mean
    assert rows[2].size.sparsity == pytest.approx(0.5, abs=0.01)


def test_a_run_computes_in_full_float32_whatever_the_user_allows(run_with, monkeypatch):
    seen, walk, score = set(), work.walk, work.score

    def noting(work, *arguments):
        seen.add(torch.get_float32_matmul_precision())
        return work(*arguments)

    monkeypatch.setattr(work, "walk", lambda *arguments: noting(walk, *arguments))
    monkeypatch.setattr(work, "score", lambda *arguments: noting(score, *arguments))
    torch.set_float32_matmul_precision("high")
    try:
        run_with()
        assert seen == {"highest"} and torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_all_methods_draw_from_one_ledger_entry(run_with):
    outcome = run_with(methods={"nowag-p": {}, "wanda": {}, "nowag-vq": {"bits": 1, "dim": 4}})
    assert len({row.ledger for row in outcome.rows}) == 1
    assert [p.stem for p in (outcome.folder / "ledger").glob("*.json")] == [outcome.rows[0].ledger]


def test_stored_bits_are_the_bytes_of_the_files(run_with):
    outcome = run_with()
    for row in outcome.rows:
        payload = 0
        for file in cell_of(outcome, row).glob("*.safetensors"):
            with safe_open(file, "pt") as tensors:
                payload += sum(tensors.get_tensor(name).nbytes for name in tensors.keys())  # noqa: SIM118
        assert payload == row.size.model_bytes
        assert row.size.model_bits_per_parameter * row.size.total_parameters == pytest.approx(8 * payload)


def test_a_second_run_computes_nothing(run_with, monkeypatch):
    first = run_with()
    for name in ("walk", "load_cell", "score"):
        monkeypatch.setattr(work, name, None)
    assert run_with().rows == first.rows


def test_another_evaluation_measures_what_is_compressed_already_and_only_that(
    run_with, recipe_values, monkeypatch
):
    first, asked = run_with(), []
    score = work.score
    monkeypatch.setattr(work, "walk", None)
    monkeypatch.setattr(work, "score", lambda row, *rest: asked.append(row.row_id) or score(row, *rest))
    longer = recipe_values["evaluation"] | {"length": 48}
    both = run_with(evaluation=[recipe_values["evaluation"], longer])
    assert [row for row in both.rows if row.row_id not in asked] == first.rows
    assert len(asked) == len(first.rows)


def test_a_dense_model_that_misses_its_expected_perplexity_stops_the_study_before_any_cell(
    run_with, recipe_values, tmp_path
):
    wish = {"expect": {"perplexity": 5.12, "tolerance": 0.02}}
    with pytest.raises(CalibrationError, match=r"5\.12 ± 0\.02 was expected, so nothing is compressed"):
        run_with(evaluation=recipe_values["evaluation"] | wish)
    assert not (tmp_path / "out/tiny/cells").exists()


def test_what_is_expected_of_any_model_is_checked_before_the_first_is_compressed(
    run_with, recipe_values, tiny_model, tmp_path
):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    wish = {"expect": {"perplexity": 5.12, "tolerance": 0.02, "model": str(copy)}}
    with pytest.raises(CalibrationError, match="nothing is compressed"):
        run_with(models=[str(tiny_model), str(copy)], evaluation=recipe_values["evaluation"] | wish)
    assert not (tmp_path / "out/tiny/cells").exists()


def test_what_is_expected_is_checked_when_all_rows_are_there_too(run_with, recipe_values):
    run_with()
    with pytest.raises(CalibrationError, match="was expected"):
        run_with(evaluation=recipe_values["evaluation"] | {"expect": {"perplexity": 5.12, "tolerance": 0.02}})


def test_one_text_named_in_another_way_is_not_measured_again_and_has_the_name_asked_for(run_with, recipe_values):
    run_with()
    source = Path(recipe_values["evaluation"]["source"])
    renamed = shutil.copy(source, source.with_name("renamed.txt"))
    rows = run_with(evaluation=recipe_values["evaluation"] | {"source": str(renamed)}).rows
    assert len(rows) == 3 and all(row.protocol_name == "renamed.txt@32 (first 3 windows)" for row in rows)


def test_an_evaluation_named_twice_is_refused(run_with, recipe_values):
    with pytest.raises(ConfigError, match="two evaluations are one and the same"):
        run_with(evaluation=[recipe_values["evaluation"]] * 2)


def test_two_names_of_one_model_make_each_cell_and_row_once(run_with, tiny_model, tmp_path, monkeypatch):
    copy, walked, walk = shutil.copytree(tiny_model, tmp_path / "copy"), [], work.walk
    monkeypatch.setattr(
        work, "walk", lambda subject, jobs, *rest: walked.extend(jobs) or walk(subject, jobs, *rest)
    )
    outcome = run_with(models=[str(tiny_model), str(copy)])
    assert len(outcome.rows) == len((outcome.folder / "results.jsonl").read_text().splitlines()) == 3
    assert len(walked) == 3


def test_recipes_of_one_folder_share_the_dense_reference(run_with, monkeypatch):
    run_with()
    monkeypatch.setattr("suite.reference.DenseReference.compute", None)
    monkeypatch.setattr("suite.quality.OnWindows._noise", None)
    rows = run_with(name="other").rows
    assert rows[0].quality.kl_mean < 1e-9 and rows[0].noise["bfloat16"]["kl"] > 0


def test_the_same_recipe_twice_gives_the_same_bytes(recipe_values, tmp_path):
    recipe = Recipe.model_validate(recipe_values | {"methods": {"nowag-vq": {"bits": 1, "dim": 4}, "wanda": {}}})
    one, two = (run(recipe, Options(tmp_path / name, offline=True)) for name in ("a", "b"))
    for row in one.rows:
        assert shards(cell_of(one, row)) == shards(cell_of(two, row))


@pytest.mark.parametrize("method", ["wanda", "nowag-p"])
def test_a_walk_that_was_killed_goes_on_to_the_same_end(recipe_values, tmp_path, monkeypatch, method):
    recipe = Recipe.model_validate(recipe_values | {"methods": {method: {}}})
    whole = run(recipe, Options(tmp_path / "whole", offline=True))
    put, calls = compress._put, []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        put(*arguments)

    monkeypatch.setattr(compress, "_put", killed)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, Options(tmp_path / "torn", offline=True))
    resumed = run(recipe, Options(tmp_path / "torn", offline=True))
    assert len(calls) == 3  # the first block was not computed again
    assert shards(cell_of(resumed, resumed.rows[0])) == shards(cell_of(whole, whole.rows[0]))
    assert resumed.rows[0].quality == whole.rows[0].quality


def test_sequential_statistics_come_from_compressed_blocks(run_with):
    outcome = run_with(methods={"nowag-p": {"statistics": ["dense", "sequential"]}})
    dense, sequential = (shards(cell_of(outcome, row)) for row in outcome.rows)
    first, second = sorted(dense)
    with safe_open(cell_of(outcome, outcome.rows[0]) / first, "pt") as a:
        with safe_open(cell_of(outcome, outcome.rows[1]) / first, "pt") as b:
            assert all(a.get_tensor(name).equal(b.get_tensor(name)) for name in a.keys())  # noqa: SIM118
    assert dense[second] != sequential[second]


def test_the_reloaded_model_is_the_compressed_one(run_with, tiny_model):
    outcome = run_with()
    loaded = load_cell(cell_of(outcome, outcome.rows[0]))
    original = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    for name, tensor in original.state_dict().items():
        assert loaded.model.state_dict()[name].equal(tensor)
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight


@torch.no_grad()
def test_compressed_modules_and_decoded_weights_say_the_same(run_with):
    outcome = run_with()
    folder = cell_of(outcome, outcome.rows[1])
    plain, packed = load_cell(folder).model, load_cell(folder, compressed=True).model
    assert sum(isinstance(m, CompressedLinear) for m in packed.modules()) == 14
    ids = torch.arange(20)[None]
    torch.testing.assert_close(packed(ids).logits, plain(ids).logits)


@torch.no_grad()
def test_an_export_is_an_ordinary_checkpoint_with_the_decoded_weights(run_with, tmp_path):
    outcome = run_with()
    folder = cell_of(outcome, outcome.rows[1])
    exported = AutoModelForCausalLM.from_pretrained(export_dense(folder, tmp_path / "dense"), dtype=torch.float32)
    ids = torch.arange(20)[None]
    torch.testing.assert_close(exported(ids).logits, load_cell(folder).model(ids).logits, atol=1e-3, rtol=1e-2)
    with pytest.raises(CheckpointError, match="exists already"):
        export_dense(folder, tmp_path / "dense")


def test_a_damaged_file_is_named(run_with):
    outcome = run_with()
    shard = cell_of(outcome, outcome.rows[0]) / "block_001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"block_001\.safetensors is missing or damaged"):
        load_cell(shard.parent)


def test_a_method_that_fails_is_a_row_and_is_tried_again(run_with, monkeypatch):
    def refuse(*_):
        raise ValueError("no luck today")

    monkeypatch.setattr(NoWagP, "compress", refuse)
    rows = run_with().rows
    assert [row.status for row in rows] == ["ok", "ok", "failed"]
    assert "no luck today" in rows[2].reason and "model.layers.0.self_attn.q_proj" in rows[2].reason
    monkeypatch.undo()
    assert [row.status for row in run_with().rows] == ["ok", "ok", "ok"]


def test_a_setting_that_fits_no_layer_is_refused_before_anything_is_written(run_with, tmp_path):
    with pytest.raises(ConfigError, match=r"nowag-p 2:5: .* multiples of 5, this weight has 32"):
        run_with(methods={"dense": {}, "nowag-p": {"sparsity": "2:5"}})
    assert not (tmp_path / "out").exists()


def test_the_first_row_of_a_cell_bears_what_loading_took(run_with, recipe_values, monkeypatch):
    @contextmanager
    def an_hour():
        yield Phase(seconds=3600)

    monkeypatch.setattr(work, "measured", an_hour)
    evaluations = [recipe_values["evaluation"] | {"length": length} for length in (32, 48)]
    first, second = run_with(evaluation=evaluations, methods={"rtn": {"bits": 4, "group_size": 16}}).rows
    assert first.cost.evaluate_seconds > 3600 > second.cost.evaluate_seconds


def test_a_folder_in_use_is_refused(run_with, tmp_path):
    with alone(tmp_path / "out" / "tiny"), pytest.raises(ResultError, match="another run"):
        run_with()


def test_the_manifest_says_what_each_layer_went_through(run_with):
    outcome = run_with()
    manifest = read_manifest(cell_of(outcome, outcome.rows[2]))
    model = load_cell(cell_of(outcome, outcome.rows[2])).model
    names = [f"{block.name}.{name}" for block in decoder_blocks(model) for name in linears(block)]
    assert list(manifest["layers"]) == names
    assert all(0 < audit["output_error"] < 1 for audit in manifest["layers"].values())
    assert json.loads(json.dumps(outcome.rows[2].audit))["layers"] == len(names)


GROUPED = {"intermediate_size": 64, "num_key_value_heads": 2}
FAMILIES = {
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 64},  # biases, learned positions
    "qwen2": GROUPED,  # biases of query, key and value
    "gemma2": {**GROUPED, "head_dim": 8},  # scaled tied embeddings, soft caps
    "gpt_neox": {"intermediate_size": 64, "tie_word_embeddings": False},  # fused query, key and value
    "phi3": {"intermediate_size": 64, "pad_token_id": 0},  # fused gate and up
    "mixtral": {**GROUPED, "num_local_experts": 2},  # experts, which stay as they are
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_comes_back_from_disk_as_the_model_it_was(family, run_with, tokenizer, tmp_path):
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model(family, **sizes, **FAMILIES[family], bos_token_id=0, eos_token_id=1)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).bfloat16().save_pretrained(tmp_path / family)
    tokenizer.save_pretrained(tmp_path / family)
    rows = run_with(models=str(tmp_path / family), methods={"dense": {}, "wanda": {}, "rtn": {"bits": 8}}).rows
    assert [row.status for row in rows] == ["ok"] * 3
    assert rows[0].quality.kl_mean < 1e-6 and rows[0].quality.top1_agreement == 1
    assert rows[2].quality.kl_mean < rows[1].quality.kl_mean
    assert bool(rows[0].audit["not_compressed"]) == (family == "mixtral")
