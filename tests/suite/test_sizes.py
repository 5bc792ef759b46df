"""Predicted sizes against cells that were really written."""

import pytest
import torch

from methods import METHODS
from suite.models import load_model
from suite.recipe_file import load_recipe
from suite.runner import Options, run
from suite.sizes import Layout, bits_per_weight, layout_of, together

CELLS = {
    "dense": {},
    "wanda": {"sparsity": ["2:4", 0.3]},
    "rtn": [{"bits": 3, "group_size": 24}, {"bits": 4, "normalize": "nowag", "sym": True}],
    "quip-sharp": {"bits": 3, "sweeps": 0},
    "higgs": {"bits": 2, "share": ["linear", "block"]},
    "nowag-vq": {"bits": 2, "dim": [2, 3], "iterations": 1, "share": ["linear", "input", "block"]},
}


@pytest.fixture(scope="session")
def tiny(tiny_model):
    return load_model(str(tiny_model))


def test_predicted_bits_are_those_of_the_finished_cells(tiny, recipe_values, write_recipe, tmp_path, no_tracking):
    path = write_recipe(recipe_values | {"methods": CELLS})
    rows = run(load_recipe(path), Options(out=tmp_path / "runs")).rows
    layout = layout_of(tiny)
    for row in rows:
        predicted = bits_per_weight(METHODS[row.method](**row.settings), layout, 16)
        assert predicted == row.size.stored_bits_per_weight, row.label
    assert len(rows) == 14


def test_linears_are_grouped_by_the_input_they_share(tiny):
    first, second = layout_of(tiny).blocks
    names = [[name.removeprefix("model.layers.1.") for name in group] for group in second]
    assert names[0] == ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
    assert names[1:] == [["self_attn.o_proj"], ["mlp.gate_proj", "mlp.up_proj"], ["mlp.down_proj"]]
    assert [list(group.values()) for group in first][0] == [(32, 32), (16, 32), (16, 32)]


def test_the_look_at_a_model_leaves_it_as_it_was(tiny):
    tokens = torch.arange(8)[None]
    before = tiny.model(tokens).logits
    layout_of(tiny)
    assert torch.equal(tiny.model(tokens).logits, before)
    assert not any(module._forward_pre_hooks for module in tiny.model.modules())


def test_a_part_of_the_layout_has_the_size_of_that_part(tiny):
    part = layout_of(tiny).only(lambda name: name.endswith("down_proj"))
    assert part.shapes == {(((32, 64),),): 2}
    method = METHODS["rtn"](bits=2, group_size=64)
    assert bits_per_weight(method, part, 16) == 2 + (16 + 8) / 64  # a zero point of 2 bits fills a byte


def test_of_no_linear_there_are_no_bits_per_weight():
    with pytest.raises(ValueError, match="no linear is compressed"):
        bits_per_weight(METHODS["rtn"](), Layout(()), 16)


@pytest.mark.parametrize(
    ("share", "expected"),
    [("linear", [["q"], ["k"], ["o"]]), ("input", [["q", "k"], ["o"]]), ("block", [["q", "k", "o"]])],
)
def test_what_shares_is_grouped_as_the_method_is_set(share, expected):
    assert together(METHODS["nowag-vq"](share=share), [["q", "k"], ["o"]]) == expected
    assert together(METHODS["rtn"](), [["q", "k"], ["o"]]) == [["q"], ["k"], ["o"]]


def test_where_blocks_are_not_called_one_by_one_each_linear_stands_alone(tiny, monkeypatch):
    monkeypatch.setattr(tiny.model.model, "forward", lambda **given: None)
    assert [len(group) for group in layout_of(tiny).blocks[0]] == [1] * 7
