import pytest
import transformers
from torch import nn

from suite.architecture import decoder_blocks, linears, untouched
from suite.errors import AssetError

SIZES = dict(
    hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
    vocab_size=32, max_position_embeddings=32, head_dim=4, bos_token_id=1, eos_token_id=2, pad_token_id=0,
)  # fmt: skip
NO_GROUPS = {key: value for key, value in SIZES.items() if key not in ("num_key_value_heads", "head_dim")}
OPT = {**NO_GROUPS, "ffn_dim": 24, "word_embed_proj_dim": 8}
ATTENTION = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
GATED = [*ATTENTION, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
PHI3 = ["self_attn.o_proj", "self_attn.qkv_proj", "mlp.gate_up_proj", "mlp.down_proj"]
NEOX = ["attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"]
OPT_NAMES = [f"self_attn.{part}" for part in ("k_proj", "v_proj", "q_proj", "out_proj")] + ["fc1", "fc2"]
DENSE = {
    "Llama": (SIZES, "model.layers", GATED),
    "Mistral": (SIZES, "model.layers", GATED),
    "Qwen2": (SIZES, "model.layers", GATED),
    "Qwen3": (SIZES, "model.layers", GATED),
    "Gemma": (SIZES, "model.layers", GATED),
    "Gemma2": (SIZES, "model.layers", GATED),
    "Gemma3Text": (SIZES, "model.layers", GATED),
    "Phi": (SIZES, "model.layers", [*ATTENTION[:3], "self_attn.dense", "mlp.fc1", "mlp.fc2"]),
    "Phi3": (SIZES, "model.layers", PHI3),
    "GPTNeoX": (NO_GROUPS, "gpt_neox.layers", NEOX),
    "OPT": (OPT, "model.decoder.layers", OPT_NAMES),
}


def tiny(family, settings):
    return transformers.AutoModelForCausalLM.from_config(getattr(transformers, f"{family}Config")(**settings))


@pytest.mark.parametrize("family", DENSE)
def test_every_linear_of_every_block_is_found(family):
    settings, prefix, names = DENSE[family]
    model = tiny(family, settings)
    assert [block.name for block in decoder_blocks(model)] == [f"{prefix}.{i}" for i in range(3)]
    assert all(sorted(linears(block)) == sorted(names) for block in decoder_blocks(model))
    assert untouched(model) == {}


def test_linears_come_under_the_names_that_lead_to_them():
    model = tiny("Llama", SIZES)
    block = decoder_blocks(model)[1]
    assert all(model.get_submodule(f"{block.name}.{name}") is found for name, found in linears(block).items())


def test_fused_experts_and_their_router_are_reported_not_missed():
    model = tiny("Mixtral", {**SIZES, "num_local_experts": 4})
    assert list(linears(decoder_blocks(model)[0])) == ATTENTION
    assert {
        name.removeprefix("model.layers.1."): why for name, why in untouched(model).items() if ".1." in name
    } == {
        "mlp.gate.weight": "router of a mixture",
        "mlp.experts.gate_up_proj": "expert of a mixture",
        "mlp.experts.down_proj": "expert of a mixture",
    }


def test_a_shared_expert_is_compressed_and_its_gate_is_not():
    sizes = {"num_experts": 4, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 12}
    model = tiny("Qwen2Moe", {**SIZES, **sizes})
    shared = [f"mlp.shared_expert.{part}_proj" for part in ("gate", "up", "down")]
    assert list(linears(decoder_blocks(model)[0])) == ATTENTION + shared
    assert untouched(model)["model.layers.0.mlp.shared_expert_gate.weight"] == "router of a mixture"


def test_experts_kept_in_a_list_are_left_alone():
    mixture = nn.ModuleDict(
        {"gate": nn.Linear(4, 2), "experts": nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])}
    )
    blocks = nn.ModuleList([nn.ModuleDict({"up": nn.Linear(4, 4), "mlp": mixture})])
    model = nn.ModuleDict({"layers": blocks})
    assert list(linears(decoder_blocks(model)[0])) == ["up"]
    assert len(untouched(model)) == 3


def test_transposed_linears_are_reported():
    settings = {
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 4,
        "vocab_size": 32,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    model = tiny("GPT2", settings)
    assert [linears(block) for block in decoder_blocks(model)] == [{}, {}]
    assert untouched(model)["transformer.h.1.mlp.c_fc.weight"] == "Conv1D is no torch.nn.Linear"


@pytest.mark.parametrize("model", [nn.Linear(4, 4), nn.ModuleList([nn.LayerNorm(4)])])
def test_a_model_without_blocks_is_refused(model):
    with pytest.raises(AssetError, match=f"{type(model).__name__} has no decoder blocks"):
        decoder_blocks(model)
