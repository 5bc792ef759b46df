import pytest
import torch
from torch.nn import functional

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
