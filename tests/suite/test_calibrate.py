"""The walk sees exactly what the model's own forward pass feeds its linears, on every family of architecture."""

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PhiConfig,
    Qwen3Config,
)
from transformers.models.auto import AutoModelForCausalLM

from methods.statistics import Statistic
from suite.architecture import decoder_blocks, linears
from suite.calibrate import advance, first_inputs, observe
from suite.errors import CalibrationError

SMALL = {"vocab_size": 64, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 3}
WIDE = {**SMALL, "intermediate_size": 32}
GEMMA = {**WIDE, "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 4}
CONFIGS = [
    LlamaConfig(**WIDE, num_key_value_heads=1),
    MistralConfig(**WIDE, num_key_value_heads=1, sliding_window=4),
    Qwen3Config(**WIDE, num_key_value_heads=1, head_dim=8),
    Gemma2Config(**GEMMA),
    Gemma3TextConfig(**GEMMA),
    GPTNeoXConfig(**WIDE),
    PhiConfig(**WIDE),
    OPTConfig(**SMALL, ffn_dim=32, word_embed_proj_dim=16, max_position_embeddings=32),
]
CPU = torch.device("cpu")


@pytest.fixture(params=CONFIGS, ids=lambda config: config.model_type)
def model(request):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(request.param).eval()


@pytest.fixture
def tokens():
    return torch.randint(0, 64, (5, 12), generator=torch.Generator().manual_seed(0))


def inputs_in_the_model(model, tokens) -> dict[str, torch.Tensor]:
    """What each linear is fed when the model runs as a whole."""
    seen = {}
    for block in decoder_blocks(model):
        for name, layer in linears(block).items():
            key = f"{block.name}.{name}"
            layer.register_forward_pre_hook(lambda _, args, key=key: seen.update({key: args[0].flatten(0, -2)}))
    with torch.no_grad():
        model(input_ids=tokens, use_cache=False)
    return seen


def test_statistics_are_those_of_the_models_own_forward_pass(model, tokens):
    batches = first_inputs(model, tokens, 2, CPU)
    blocks = decoder_blocks(model)
    found = [observe(b, i, batches, Statistic.GRAM, move_on=True) for i, b in enumerate(blocks)]
    fed = inputs_in_the_model(model, tokens)
    for block, statistics in zip(blocks, found, strict=True):
        for name, one in statistics.items():
            x = fed[f"{block.name}.{name}"]
            torch.testing.assert_close(one.gram, x.T @ x, rtol=1e-4, atol=1e-4)
            assert one.tokens == tokens.numel()


def test_blocks_one_by_one_give_the_models_last_hidden_states(tokens):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[0]).eval()
    batches = first_inputs(model, tokens, 2, CPU)
    for index, block in enumerate(decoder_blocks(model)):
        advance(block, index, batches)
    with torch.no_grad():
        expected = model.model(input_ids=tokens, use_cache=False).last_hidden_state
        walked = model.model.norm(torch.cat([batch.hidden for batch in batches]))
    torch.testing.assert_close(walked, expected, rtol=1e-5, atol=1e-5)


def test_linears_of_one_input_share_one_object(tokens):
    model = AutoModelForCausalLM.from_config(CONFIGS[0]).eval()
    found = observe(
        decoder_blocks(model)[0], 0, first_inputs(model, tokens, 5, CPU), Statistic.GRAM, move_on=False
    )
    assert found["self_attn.q_proj"] is found["self_attn.k_proj"] is found["self_attn.v_proj"]
    assert found["mlp.gate_proj"] is found["mlp.up_proj"]
    assert len({id(one) for one in found.values()}) == 4


def test_the_batch_size_changes_nothing(tokens):
    model = AutoModelForCausalLM.from_config(CONFIGS[3]).eval()
    one, all_ = (
        observe(
            decoder_blocks(model)[0],
            0,
            first_inputs(model, tokens, n, CPU),
            Statistic.DIAGONAL,
            move_on=False,
        )
        for n in (1, 5)
    )
    for name in one:
        torch.testing.assert_close(one[name].x_sq, all_[name].x_sq)


def test_the_model_is_left_as_it_was(model, tokens):
    with torch.no_grad():
        before = model(input_ids=tokens, use_cache=False).logits
        first_inputs(model, tokens, 2, CPU)
        assert model(input_ids=tokens, use_cache=False).logits.equal(before)


def test_infinite_inputs_name_the_layer(tokens):
    model = AutoModelForCausalLM.from_config(CONFIGS[0]).eval()
    with torch.no_grad():
        model.model.layers[0].input_layernorm.weight[0] = float("inf")
    with pytest.raises(CalibrationError, match=r"model\.layers\.0\.self_attn\.q_proj"):
        observe(
            decoder_blocks(model)[0],
            0,
            first_inputs(model, tokens, 5, CPU),
            Statistic.DIAGONAL,
            move_on=False,
        )
