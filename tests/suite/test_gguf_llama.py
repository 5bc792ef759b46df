import pytest
import torch
from gguf import GGUFWriter, TokenType
from tokenizers.pre_tokenizers import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM

from suite.gguf_llama import INNER, OUTER, convert, split_rotary
from suite.models import load_model

LETTERS = sorted(ByteLevel.alphabet())
SPECIAL = ["<unk>", "<s>", "</s>"]
TOKENS = [*SPECIAL, *LETTERS, "ab", "11"]


def interleaved(weight, heads):
    """llama.cpp's order of a projection's rows: the two of a rotated pair side by side."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


@pytest.fixture
def model():
    sizes = dict(hidden_size=32, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2)
    config = LlamaConfig(
        **sizes,
        num_hidden_layers=2,
        vocab_size=len(TOKENS),
        tie_word_embeddings=True,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config).half().float().eval()


@pytest.fixture
def file(model, tmp_path):
    """The model as llama.cpp would write it, unquantized."""
    writer = GGUFWriter(tmp_path / "tiny.gguf", "llama")
    config = model.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    add_vocabulary(writer)
    add_tensors(writer, model)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "tiny.gguf"


def add_vocabulary(writer):
    writer.add_token_list(TOKENS)
    writer.add_token_types([TokenType.CONTROL if token in SPECIAL else TokenType.NORMAL for token in TOKENS])
    writer.add_token_merges(["a b", "1 1"])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{{ messages }}")


def add_tensors(writer, model):
    heads = {"attn_q": model.config.num_attention_heads, "attn_k": model.config.num_key_value_heads}
    for short, name in OUTER.items():
        writer.add_tensor(f"{short}.weight", model.get_parameter(f"{name}.weight").detach().numpy())
    for layer in range(model.config.num_hidden_layers):
        for short, name in INNER.items():
            weight = model.get_parameter(f"model.layers.{layer}.{name}.weight").detach()
            weight = interleaved(weight, heads[short]) if short in heads else weight
            writer.add_tensor(f"blk.{layer}.{short}.weight", weight.contiguous().numpy())


def test_rows_of_a_rotated_pair_end_up_half_a_head_apart():
    stored = torch.tensor([[0.0], [4.0], [1.0], [5.0], [2.0], [6.0], [3.0], [7.0]])  # one head of eight
    assert split_rotary(stored, heads=1).flatten().tolist() == list(range(8))


def test_a_converted_model_computes_what_the_original_does(file, model, tmp_path):
    (folder := tmp_path / "converted").mkdir()
    convert(file, folder)
    ids = torch.randint(len(TOKENS), (2, 16))
    with torch.no_grad():
        torch.testing.assert_close(load_model(str(folder)).model(ids).logits, model(ids).logits)


def test_a_converted_vocabulary_merges_letters_but_no_digits_and_keeps_special_tokens_whole(file, tmp_path):
    (folder := tmp_path / "converted").mkdir()
    convert(file, folder)
    tokenizer = load_model(str(folder)).tokenizer
    assert tokenizer.tokenize("<s>ab11") == ["<s>", "ab", "1", "1"]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
