"""Decoding from a cell token by token: the same logits as a whole forward pass, the same text as transformers."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoTokenizer

from kernels.linear import CompressedLinear
from suite.checkpoint import load_cell
from suite.config import Recipe
from suite.errors import CheckpointError, ConfigError
from suite.generate import Decoder, Wish, decode, generate, on_device, weight_bytes
from suite.graphs import WARM_UPS, Replay
from suite.runner import Options, run

CPU = torch.device("cpu")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
WISH = Wish("The old king saw", tokens=12)


@pytest.fixture(scope="module")
def cell(no_tracking, tmp_path_factory, tiny_model, calibration_text, evaluation_text):
    """The folder of a cell at 4 bits, rounded to the nearest."""
    values = {
        "name": "cell",
        "models": str(tiny_model),
        "calibration": {"source": str(calibration_text), "sequences": 4, "length": 32},
        "evaluation": {"source": str(evaluation_text), "windows": 1, "length": 32},
        "methods": {"rtn": {"bits": 4, "group_size": 16}},
    }
    outcome = run(
        Recipe.model_validate(values), Options(tmp_path_factory.mktemp("cell"), offline=True, device="cpu")
    )
    return outcome.folder / "cells" / outcome.rows[0].cell_id


@pytest.fixture(scope="module")
def prompt(cell):
    """The prompt's ids [1, n]."""
    return AutoTokenizer.from_pretrained(cell)(WISH.prompt, return_tensors="pt").input_ids


@pytest.mark.parametrize("device", DEVICES)
def test_greedy_decoding_is_that_of_transformers_on_the_decoded_weights(cell, prompt, device):
    found = next(generate(cell, replace(WISH, device=torch.device(device), dtype="float32")))
    model = load_cell(cell).model
    wanted = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=WISH.tokens, pad_token_id=1
    )[0, prompt.shape[1] :]
    assert found.ids == wanted.tolist()
    assert found.text == AutoTokenizer.from_pretrained(cell).decode(found.ids, skip_special_tokens=True)
    assert found.tokens_per_second > 0 and found.graph == (device == "cuda")


def test_a_step_after_the_prompt_gives_the_logits_of_a_whole_forward_pass(cell, prompt):
    model = load_cell(cell, compressed=True).model
    ids = torch.cat([prompt, torch.randint(2, 300, (1, 9), generator=torch.Generator().manual_seed(0))], 1)
    whole = model(ids).logits[0]  # [n + 9, vocabulary]
    start = prompt.shape[1]
    with torch.inference_mode():
        decoder = Decoder(model, ids.shape[1])
        for _ in range(2):  # a prompt read again begins anew
            decoder.read(prompt)
            for place in range(start, ids.shape[1]):
                torch.testing.assert_close(decoder.logits, whole[place - 1], rtol=1e-5, atol=1e-5)
                decoder.token[0, 0] = ids[0, place]
                decoder.step()
        torch.testing.assert_close(decoder.logits, whole[-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tokens", [2, 12])
def test_the_runs_before_a_recording_leave_no_trace(cell, monkeypatch, tokens):
    def recorded(work, device):
        for _ in range(WARM_UPS + 1):
            work()
        return Replay(work, None)

    wish = Wish("a", tokens=tokens)
    plain = next(generate(cell, wish))
    monkeypatch.setattr("suite.generate.recorded", recorded)
    found = next(generate(cell, wish))
    assert found.graph and not plain.graph and found.ids == plain.ids


def test_a_text_is_cut_at_its_end(cell, prompt):
    model = load_cell(cell).model
    ids = decode(model, prompt, WISH)[0]
    assert len(ids) == WISH.tokens
    model.generation_config.eos_token_id = ids[4]
    assert decode(model, prompt, WISH)[0] == ids[: ids.index(ids[4]) + 1]


def test_a_seed_draws_the_same_text_and_a_temperature_flattens_the_odds(cell, prompt):
    model = load_cell(cell).model
    hot = replace(WISH, temperature=50.0)
    first, again, other = (decode(model, prompt, replace(hot, seed=seed))[0] for seed in (1, 1, 2))
    assert first == again != other
    assert decode(model, prompt, replace(WISH, temperature=1e-6))[0] == decode(model, prompt, WISH)[0]


def test_the_dense_model_follows_and_says_the_same_in_float32(cell):
    compressed, dense = generate(cell, WISH, dense=True)
    assert compressed.ids == dense.ids and compressed.what.startswith("RTN 4 bits")
    assert compressed.weight_bytes < dense.weight_bytes and "tokens a second" in str(dense)


def test_a_token_reads_what_is_stored_and_the_rest_in_the_dtype_of_the_arithmetic(cell):
    loaded = load_cell(cell, compressed=True)
    model = on_device(loaded.model, CPU, torch.float16)
    assert weight_bytes(model) == loaded.size.model_bytes  # the tiny model is stored in float16, its head tied
    assert {p.dtype for p in model.parameters()} == {torch.float16}
    linears = [module for module in model.modules() if isinstance(module, CompressedLinear)]
    assert sum(linear.format.storage_bits() for linear in linears) == 8 * loaded.size.stored_bytes
    model.set_output_embeddings(torch.nn.Linear(32, 300, bias=False).half())
    assert weight_bytes(model) == loaded.size.model_bytes + 32 * 2  # of the table one row, all of the head


MISTAKES = [
    ({"prompt": "  "}, "--prompt is empty"),
    ({"prompt": "the king " * 1000, "tokens": 200}, "2048 positions"),
    ({"dtype": "float8"}, "--dtype float8"),
]


@pytest.mark.parametrize(
    ("change", "message"), MISTAKES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_cannot_be_generated_is_refused(cell, change, message):
    with pytest.raises(ConfigError, match=message):
        next(generate(cell, replace(WISH, **change)))


def test_a_folder_that_is_no_cell_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="not a finished cell"):
        next(generate(tmp_path, WISH))
