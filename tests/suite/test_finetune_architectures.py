"""Tuned blocks in the place of those of models of all kinds: what is stored whole changes nothing."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GPTNeoXConfig, LlamaConfig, OPTConfig

from kernels.sparse import Dense
from suite.architecture import Block, decoder_blocks, linears
from suite.finetune.end_to_end import divergences, standing_in
from suite.finetune.tuned import TunedBlock

SMALL = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
WIDE = SMALL | {"intermediate_size": 32}
CONFIGS = [
    LlamaConfig(**WIDE, num_key_value_heads=1),
    Gemma2Config(**WIDE, num_key_value_heads=1, head_dim=8, sliding_window=4),
    GPTNeoXConfig(**WIDE),
    OPTConfig(**SMALL, ffn_dim=32, word_embed_proj_dim=16, max_position_embeddings=32, pad_token_id=None),
]
TOKENS = torch.randint(0, 64, (2, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=CONFIGS, ids=lambda config: config.model_type)
def model(request):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(request.param).eval().requires_grad_(False)


def whole(block: Block) -> TunedBlock:
    """A block that stores all of its weights as they are."""
    state = {f"{block.name}.{name}": each for name, each in block.module.state_dict().items()}
    names = [f"{block.name}.{name}.weight" for name in linears(block)]
    formats = {name: Dense(tuple(state[name].shape), state.pop(name)) for name in names}
    return TunedBlock(block, formats, state, norms=True)


@torch.no_grad()
def test_blocks_that_store_everything_predict_what_the_dense_model_does(model):
    tuned = {index: whole(block) for index, block in enumerate(decoder_blocks(model))}
    kl = divergences(model, tuned, 0)
    assert float(kl(TOKENS).abs().max()) < 1e-6
    for each in tuned[1].trained:
        each.mul_(20)
    assert float(kl(TOKENS).max()) > 1e-6


def test_tokens_that_are_context_only_are_left_out(model):
    tuned = {0: whole(decoder_blocks(model)[0])}
    every, later = (divergences(model, tuned, skip)(TOKENS) for skip in (0, 3))
    assert later.equal(every.view(2, 12)[:, 3:].flatten())


def test_a_model_has_its_own_blocks_back_even_after_a_failure(model):
    own = [block.module for block in decoder_blocks(model)]
    with pytest.raises(RuntimeError, match="no luck"), standing_in(model, {0: whole(decoder_blocks(model)[0])}):
        assert decoder_blocks(model)[0].module is not own[0]
        raise RuntimeError("no luck")
    assert all(block.module is each for block, each in zip(decoder_blocks(model), own, strict=True))
