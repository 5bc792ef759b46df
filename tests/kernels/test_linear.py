import copy

import pytest
import torch
from torch.nn import functional

from kernels import linear
from kernels.format import Format
from kernels.linear import CompressedLinear


def test_a_compressed_linear_multiplies_by_the_dequantized_weight(weight: Format, rng: torch.Generator) -> None:
    x, bias = torch.randn(2, 3, 20, generator=rng), torch.randn(5, generator=rng)
    wanted = functional.linear(x, weight.dequantize(), bias)
    assert torch.equal(CompressedLinear(weight, bias)(x), wanted)


def test_the_output_has_the_dtype_of_the_input(weight: Format) -> None:
    assert CompressedLinear(weight)(torch.ones(1, 20, dtype=torch.bfloat16)).dtype is torch.bfloat16


def test_a_state_dict_carries_the_whole_weight(weight: Format) -> None:
    layer = CompressedLinear(weight, torch.ones(5))
    blank = CompressedLinear(
        type(weight).from_tensors({k: torch.zeros_like(t) for k, t in weight.tensors().items()}, weight.meta()),
        torch.zeros(5),
    )
    blank.load_state_dict(layer.state_dict())
    assert torch.equal(blank(torch.eye(20)), layer(torch.eye(20)))


def test_a_bias_of_another_width_is_refused(weight: Format) -> None:
    with pytest.raises(ValueError, match=r"bias has shape \(4,\), this layer gives \(5,\)"):
        CompressedLinear(weight, torch.ones(4))


def test_a_layer_prints_its_format(weight: Format) -> None:
    assert f"20, 5, {weight.name}" in repr(CompressedLinear(weight))


def test_preparing_leaves_the_state_as_it_was(weight: Format) -> None:
    layer = CompressedLinear(weight)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    layer.prepared(torch.float16)
    after = layer.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())


def test_a_layout_is_kept_until_the_dtype_changes(weight: Format) -> None:
    layer = CompressedLinear(weight)
    first = layer.prepared(torch.float16)
    assert layer.prepared(torch.float16) is first
    assert layer.prepared(torch.bfloat16) is not first


def test_a_layout_follows_what_is_written_to_the_buffers(weight: Format) -> None:
    layer = CompressedLinear(weight)
    first = layer.prepared(torch.float16)
    layer.load_state_dict({name: torch.zeros_like(tensor) for name, tensor in layer.state_dict().items()})
    try:
        second = layer.prepared(torch.float16)
    except ValueError as error:  # an empty mask beside kept values
        assert "mask keeps 0" in str(error)
    else:
        assert second is not first


def test_a_layout_follows_the_layer_to_other_buffers(weight: Format) -> None:
    layer = CompressedLinear(weight)
    first = layer.prepared(torch.float16)
    layer.to(torch.float16)._apply(torch.clone)
    assert layer.prepared(torch.float16) is not first


def test_a_copy_of_a_layer_makes_its_own_layout(weight: Format) -> None:
    layer = CompressedLinear(weight)
    layer.prepared(torch.float16)
    assert copy.deepcopy(layer)._prepared is None


def test_a_layer_made_in_inference_mode_is_prepared_too(weight: Format) -> None:
    with torch.inference_mode():
        layer = CompressedLinear(weight).to(torch.float16)._apply(torch.clone)
        assert layer.prepared(torch.float16) is layer.prepared(torch.float16)


def test_where_there_are_kernels_the_layout_is_multiplied_and_the_bias_added(
    weight: Format, rng: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "by_kernels", lambda x: True)
    x, bias = torch.randn(3, 20, generator=rng), torch.randn(5, generator=rng)
    layer = CompressedLinear(weight, bias)
    assert torch.equal(layer(x), functional.linear(x, weight.dequantize()) + bias)
    assert layer.prepared(torch.float32) is layer.prepared(torch.float32)
