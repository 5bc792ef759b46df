import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from suite import hub
from suite.architecture import decoder_blocks
from suite.errors import AssetError
from suite.models import load_model

ENGLISH = (
    "The museum opened its doors to the public on Saturday after two years of repairs. "
    "Hundreds of people waited in the rain to see the new rooms, and the director thanked them all."
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny tied Llama in float16, as transformers saves it."""
    folder = tmp_path_factory.mktemp("tiny")
    sizes = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, vocab_size=8)
    LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=True)).half().save_pretrained(folder)
    vocabulary = Tokenizer(WordLevel({"<unk>": 0, "a": 1, "b": 2}, unk_token="<unk>"))
    vocabulary.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=vocabulary, unk_token="<unk>").save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


@pytest.fixture(scope="module")
def smollm2():
    try:
        return load_model("smollm2-135m")
    except AssetError as error:
        pytest.skip(str(error))


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refused(spec, words, **options):
    with pytest.raises(AssetError, match=words) as error:
        load_model(str(spec), **options)
    assert "\n" not in str(error.value)


def test_a_directory_loads_frozen_in_float32(folder):
    model = load_model(str(folder)).model
    assert not model.training
    assert {(p.dtype, p.requires_grad) for p in model.parameters()} == {(torch.float32, False)}


def test_weights_are_those_of_the_file_and_fit_its_dtype(folder):
    subject, stored = load_model(str(folder)), load_file(folder / "model.safetensors")
    assert subject.storage_dtype == torch.float16
    assert all(torch.equal(subject.model.get_parameter(name), tensor.float()) for name, tensor in stored.items())


def test_tied_embeddings_stay_one_tensor(folder):
    model = load_model(str(folder)).model
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_loading_says_nothing(folder, capfd):
    load_model(str(folder))
    assert capfd.readouterr() == ("", "")


def test_the_fingerprint_forgets_the_place_and_the_order_of_keys(saved, folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(dict(reversed(config.items())), indent=7))
    edit(folder / "config.json", transformers_version="0.0.1")
    assert load_model(str(folder)).fingerprint == load_model(str(saved)).fingerprint


def test_the_fingerprint_knows_one_weight_and_one_setting(saved, folder):
    edit(folder / "config.json", rms_norm_eps=1e-3)
    by_setting = load_model(str(folder)).fingerprint
    shutil.copy(saved / "config.json", folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] = 2.0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert len({by_setting, load_model(str(folder)).fingerprint, load_model(str(saved)).fingerprint}) == 3


def test_mixed_dtypes_are_held_by_float32(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].bfloat16()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_model(str(folder)).storage_dtype == torch.float32


def test_pickled_weights_are_refused_with_the_way_to_convert(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, r"only pickled weights \(pytorch_model.bin\).*save_pretrained")


def test_a_missing_tensor_is_refused_rather_than_invented(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    refused(folder, "lacks 1 tensors of its model, such as model.layers.1.mlp.up_proj.weight")


def test_a_missing_shard_is_named(folder):
    index = {"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "lacks model-00002-of-00002.safetensors")


def test_an_index_names_no_file_elsewhere(folder):
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    index = {"weight_map": {"model.norm.weight": "../outside.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "names '../outside.safetensors', which is no plain file name")


def test_a_directory_without_config_is_no_model(folder):
    (folder / "config.json").unlink()
    refused(folder, "has no config.json")


def test_a_damaged_config_is_named(folder):
    (folder / "config.json").write_text("{")
    refused(folder, "config.json is not JSON")


def test_a_damaged_weight_file_is_named(folder):
    (folder / "model.safetensors").write_bytes(b"\0" * 40)
    refused(folder, f"cannot .* {folder}")


def test_a_quantized_model_is_refused(folder):
    edit(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    refused(folder, "quantized already")


def test_a_missing_tokenizer_is_refused(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    refused(folder, "cannot load the tokenizer")


def test_foreign_code_is_not_run_unasked(folder):
    edit(folder / "config.json", model_type="novel", auto_map={"AutoConfig": "novel.py--Novel"})
    (folder / "novel.py").write_text("raise SystemExit")
    refused(folder, "cannot load the model")


@pytest.mark.parametrize("spec", ["no-such-model", "./no/such", "a/b/c", "/no/such"])
def test_what_is_neither_here_nor_a_hub_name_is_refused(spec):
    refused(spec, "give one, a hub name organisation/name.*, smollm2-135m or tiny")


def test_a_hub_model_out_of_reach_points_to_what_works(monkeypatch):
    monkeypatch.setattr(hub, "reachable", lambda: False)
    refused("nowag-bench/no-such-model@v2", "at 'v2' is not in .* connect once; a local directory or smollm2-135m")


def test_a_hub_model_is_fetched_without_pickles_or_code(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "snapshot", lambda name, files, **_: asked.extend(files) or folder)
    assert load_model("org/name").name == "org/name"
    assert not {"*.py", "*.bin", "*"} & set(asked)


def test_smollm2_says_that_it_came_from_four_bits(smollm2):
    assert "4-bit" in smollm2.note and smollm2.storage_dtype == torch.float16


def test_smollm2_has_thirty_blocks_and_tied_embeddings(smollm2):
    assert len(decoder_blocks(smollm2.model)) == 30
    assert smollm2.model.lm_head.weight is smollm2.model.get_input_embeddings().weight


def test_smollm2_predicts_plain_english(smollm2):
    ids = smollm2.tokenizer(ENGLISH, return_tensors="pt").input_ids
    with torch.no_grad():
        loss = smollm2.model(ids, labels=ids).loss
    assert math.exp(loss) < 40  # 32 as it should be, 51 with the rotary order of the file


@pytest.mark.parametrize("text", [ENGLISH, " two  spaces\n\nand 1234 digits", "é 日本 <|im_start|>user<|im_end|>"])
def test_smollm2_tokens_decode_to_the_text(smollm2, text):
    ids = smollm2.tokenizer(text).input_ids
    assert smollm2.tokenizer.decode(ids) == text


def test_smollm2_takes_digits_one_by_one_and_adds_no_first_token(smollm2):
    assert smollm2.tokenizer.tokenize("in  123") == ["in", "ĠĠ", "1", "2", "3"]
    assert smollm2.tokenizer("<|im_start|>").input_ids == [smollm2.tokenizer.bos_token_id] == [1]
