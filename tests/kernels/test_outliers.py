"""Outliers beside another format: what is stored, what comes back, what it costs."""

import pytest
import torch

from kernels.format import bits_of
from kernels.formats import FORMATS
from kernels.outliers import WithOutliers
from kernels.packing import pack
from kernels.quantized import GroupedInt
from kernels.sparse import Dense


@pytest.fixture(params=[1, 7, 33, 64])
def weight(request):
    return torch.randn(24, request.param, generator=torch.Generator().manual_seed(0)).half()


def with_outliers(weight, share=0.1):
    kept = weight.float().abs() >= weight.float().abs().quantile(1 - share)
    codes = pack(torch.zeros(weight.shape, dtype=torch.int32), 2)
    inner = GroupedInt(tuple(weight.shape), codes, None, torch.ones(24, 1).half(), 2, None)
    return kept, WithOutliers.of(inner, weight, kept)


def test_outliers_come_back_bit_for_bit_and_the_rest_is_the_other_formats(weight):
    kept, stored = with_outliers(weight)
    decoded = stored.dequantize()
    assert torch.equal(decoded[kept], weight[kept].float())
    assert torch.equal(decoded[~kept], stored.inner.dequantize()[~kept])


def test_a_file_gives_the_same_weight_back(weight):
    _, stored = with_outliers(weight)
    again = FORMATS[stored.name].from_tensors(stored.tensors(), stored.meta())
    assert torch.equal(again.dequantize(), stored.dequantize())
    assert again.meta() == stored.meta()


def test_a_row_may_be_all_outliers():
    weight = torch.randn(3, 256).half()
    kept = torch.zeros(3, 256, dtype=torch.bool)
    kept[1] = True
    stored = WithOutliers.of(Dense((3, 256), torch.zeros_like(weight)), weight, kept)
    assert torch.equal(stored.dequantize(), torch.where(kept, weight.float(), 0))


def test_the_bits_are_those_of_both_parts(weight):
    kept, stored = with_outliers(weight)
    side = bits_of(WithOutliers.planned(stored.shape, int(kept.sum())), 16)
    assert stored.storage_bits() == stored.inner.storage_bits() + side
    assert {"outliers", "outlier places"} <= stored.breakdown().keys()


def test_gradients_reach_both_parts(weight):
    kept, stored = with_outliers(weight)
    floats = {name: stored.tensors()[name].float().requires_grad_() for name in stored.continuous()}
    assert floats.keys() == {"inner_scale", "values"}
    stored.with_tensors(floats).dequantize().sum().backward()
    assert torch.equal(floats["values"].grad, torch.ones(int(kept.sum())))
    assert floats["inner_scale"].grad.abs().sum() > 0
