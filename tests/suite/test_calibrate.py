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
from suite.calibrate import Counted, advance, by_input, first_inputs, observe
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


@pytest.fixture
def first_block(tokens):
    """The first block of a Llama and its input in one batch."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[0]).eval()
    return decoder_blocks(model)[0], first_inputs(model, tokens, 5, CPU)


def inputs_of(block, batches, name: str) -> torch.Tensor:
    seen = []
    layer = linears(block)[name]
    hook = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        observe(block, 0, batches, Statistic.DIAGONAL)
    hook.remove()
    return torch.cat(seen)  # [sequences, length, in]


def test_the_first_tokens_can_be_left_out(first_block):
    x = inputs_of(*first_block, "mlp.down_proj")
    block, batches = first_block
    found = observe(block, 0, batches, Statistic.GRAM, Counted(skip_first=3))["mlp.down_proj"]
    rest = x[:, 3:].flatten(0, 1)
    assert found.tokens == len(rest) == x.shape[0] * (x.shape[1] - 3)
    torch.testing.assert_close(found.gram, rest.T @ rest)


def test_unit_token_weights_give_each_token_one_part(first_block):
    x = inputs_of(*first_block, "mlp.down_proj").flatten(0, 1)
    block, batches = first_block
    found = observe(block, 0, batches, Statistic.DIAGONAL, Counted(token_weights="unit"))["mlp.down_proj"]
    assert float(found.x_sq.sum()) == pytest.approx(len(x))
    torch.testing.assert_close(found.x_sq, (x / x.norm(dim=1, keepdim=True)).square().sum(0))


def test_the_first_tokens_are_found_where_a_model_flattens_its_batch():
    x = torch.arange(24.0).view(2, 3, 4)
    counted = Counted(skip_first=2)
    assert counted(x.flatten(0, 1), torch.Size([2, 3])).equal(counted(x, torch.Size([2, 3])))
    assert counted(x, torch.Size([2, 3])).equal(x[:, 2:])


def test_leaving_out_first_tokens_needs_all_of_them():
    with pytest.raises(CalibrationError, match=r"skip_first is 2, but a linear is fed \(30, 4\) of 40 tokens"):
        Counted(skip_first=2)(torch.ones(30, 4), torch.Size([4, 10]))


def test_only_the_named_linears_are_watched(first_block):
    found = observe(*first_block[:1], 0, first_block[1], Statistic.DIAGONAL, only=["mlp.down_proj"])
    assert list(found) == ["mlp.down_proj"]


def test_linears_are_grouped_by_input_in_the_order_of_calls(first_block):
    block, batches = first_block
    groups = by_input(observe(block, 0, batches, Statistic.DIAGONAL))
    assert groups == [
        ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        ["self_attn.o_proj"],
        ["mlp.gate_proj", "mlp.up_proj"],
        ["mlp.down_proj"],
    ]


def walked(tokens, config, device) -> list[torch.Tensor]:
    """H of every linear and the hidden states behind every block, with statistics in one pass and a second one."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    batches = first_inputs(model, tokens, 1, device)
    found = []
    for index, block in enumerate(decoder_blocks(model)):
        block.module.to(device)
        seen = observe(block, index, batches, Statistic.GRAM, only=["self_attn.o_proj"])
        seen |= observe(block, index, batches, Statistic.GRAM, move_on=index != 1)
        if index == 1:
            advance(block, index, batches)
        found += [each.gram.cpu() for each in seen.values()] + [batch.hidden.cpu().clone() for batch in batches]
    return found


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[3]], ids=lambda config: config.model_type)
def test_hidden_states_that_wait_in_host_memory_are_the_same(tokens, config, monkeypatch):
    near = walked(tokens, config, CPU)
    monkeypatch.setattr("suite.calibrate.HIDDEN_ON_DEVICE_BYTES", 0)
    assert all(map(torch.equal, walked(tokens, config, CPU), near))


def test_hidden_states_that_wait_stay_where_they_are(tokens, monkeypatch):
    monkeypatch.setattr("suite.calibrate.HIDDEN_ON_DEVICE_BYTES", 0)
    model = AutoModelForCausalLM.from_config(CONFIGS[0]).eval()
    batches = first_inputs(model, tokens, 2, CPU)
    homes = [(batch.hidden, batch.hidden.clone()) for batch in batches]
    advance(decoder_blocks(model)[0], 0, batches)
    for batch, (home, before) in zip(batches, homes, strict=True):
        assert batch.hidden is home and not torch.equal(home, before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("count", [1, 2, 40])
def test_on_a_gpu_waiting_hidden_states_are_the_same(count, monkeypatch):
    tokens = torch.randint(0, 64, (count, 128), generator=torch.Generator().manual_seed(0))
    config = LlamaConfig(**WIDE | {"hidden_size": 256}, num_key_value_heads=1)
    device = torch.device("cuda")
    near = walked(tokens, config, device)
    monkeypatch.setattr("suite.calibrate.HIDDEN_ON_DEVICE_BYTES", 0)
    assert all(map(torch.equal, walked(tokens, config, device), near))
