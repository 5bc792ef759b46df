from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Generator, Tensor

from kernels.quantized import GroupedInt
from methods.gptq import GPTQ
from methods.hessian import gram_error
from methods.method import Method
from methods.normalizer import Normalize, normalize
from methods.rtn import RTN
from methods.statistics import Statistics
from tests.methods.conftest import statistics_of

ROWS, WIDTH = 24, 44
DEAD = [2, 9, 30]


@pytest.fixture
def weight(rng: Generator) -> Tensor:
    return torch.randn(ROWS, WIDTH, generator=rng)


@pytest.fixture
def statistics(correlated: Callable[[int], Statistics]) -> Statistics:
    return correlated(WIDTH)


def permuted(statistics: Statistics, order: Tensor) -> Statistics:
    assert statistics.gram is not None
    gram = statistics.gram[order][:, order]
    return Statistics(gram.diagonal().clone(), statistics.mean[order], statistics.tokens, gram)


def quantized(method: Method, weight: Tensor, statistics: Statistics) -> GroupedInt:
    found = method.compress(weight, statistics, torch.Generator()).format
    assert isinstance(found, GroupedInt)
    return found


def decoded(method: Method, weight: Tensor, statistics: Statistics) -> Tensor:
    return quantized(method, weight, statistics).dequantize()


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize(
    "settings",
    [
        {"group_size": None},
        {"group_size": 16},
        {"group_size": 16, "sym": True},
        {"group_size": None, "normalize": "rows"},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_compensation_loses_less_than_rounding(
    bits: int, settings: dict[str, Any], dtype: torch.dtype, weight: Tensor, statistics: Statistics
) -> None:
    weight, gram = weight.to(dtype), statistics.gram
    assert gram is not None
    errors = [
        gram_error(weight.float(), decoded(method(bits=bits, **settings), weight, statistics), gram) or torch.nan
        for method in (GPTQ, RTN)
    ]
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("settings", [{}, {"sym": True}, {"group_size": None}, {"normalize": "nowag"}], ids=str)
def test_uncorrelated_inputs_leave_rounding_to_nearest(
    settings: dict[str, Any], dtype: torch.dtype, weight: Tensor
) -> None:
    h = torch.rand(WIDTH, generator=torch.Generator().manual_seed(1)) + 0.5
    statistics = Statistics(h, torch.zeros(WIDTH), 9, torch.diag(h))
    found, expected = (quantized(m(**settings), weight.to(dtype), statistics) for m in (GPTQ, RTN))
    assert found.meta() == expected.meta()
    for name, tensor in found.tensors().items():
        assert torch.equal(tensor, expected.tensors()[name]), name


def test_a_group_does_not_see_the_updates_of_the_block_it_starts_in(
    weight: Tensor, statistics: Statistics
) -> None:
    given = quantized(RTN(group_size=8), weight, statistics).scale
    assert torch.equal(quantized(GPTQ(group_size=8), weight, statistics).scale, given)
    later = quantized(GPTQ(group_size=8, block_size=16), weight, statistics).scale
    assert torch.equal(later[:, :2], given[:, :2])
    assert not torch.isclose(later[:, 2:], given[:, 2:]).all(0).any()


def test_a_group_that_outlives_its_block_keeps_its_grid(weight: Tensor, statistics: Statistics) -> None:
    given = quantized(RTN(group_size=24), weight, statistics).scale
    found = quantized(GPTQ(group_size=24, block_size=10), weight, statistics).scale
    assert torch.equal(found[:, 0], given[:, 0]) and not torch.equal(found[:, 1], given[:, 1])


@pytest.mark.parametrize("settings", [{"group_size": None}, {"group_size": 16, "static_groups": True}], ids=str)
@pytest.mark.parametrize("act_order", [False, True])
def test_fixed_grids_make_the_block_size_a_matter_of_rounding(
    settings: dict[str, Any], act_order: bool, weight: Tensor, statistics: Statistics
) -> None:
    found, expected = (
        quantized(GPTQ(act_order=act_order, block_size=size, **settings), weight, statistics) for size in (7, 128)
    )
    assert torch.equal(found.scale, expected.scale)
    assert torch.equal(found.dequantize(), expected.dequantize())


def test_act_order_of_whole_rows_is_the_permuted_weight(weight: Tensor, statistics: Statistics) -> None:
    order = statistics.x_sq.argsort(descending=True)
    found = decoded(GPTQ(group_size=None, act_order=True), weight, statistics)
    expected = decoded(GPTQ(group_size=None), weight[:, order], permuted(statistics, order))
    assert torch.equal(found[:, order], expected)
    assert not torch.equal(found, decoded(GPTQ(group_size=None), weight, statistics))


def test_act_order_within_static_groups_is_the_permuted_weight(weight: Tensor, rng: Generator) -> None:
    size = torch.logspace(2, 0, WIDTH)
    size[:8] = size[:8].flip(0)  # the order of size scatters columns within a group alone
    size[40:] = size[40:].flip(0)
    mixed = torch.randn(2000, WIDTH, generator=rng)
    statistics = statistics_of(size * (mixed + 0.3 * mixed.roll(1, 1)))
    order = statistics.x_sq.argsort(descending=True)
    assert order.tolist() == [*range(7, -1, -1), *range(8, 40), *range(43, 39, -1)]
    found = decoded(GPTQ(group_size=8, act_order=True, static_groups=True), weight, statistics)
    by_hand = GPTQ(group_size=8, static_groups=True)
    assert torch.equal(found[:, order], decoded(by_hand, weight[:, order], permuted(statistics, order)))


def test_static_groups_have_the_grids_of_the_weight_as_it_came(weight: Tensor, statistics: Statistics) -> None:
    found = quantized(GPTQ(group_size=8, static_groups=True, block_size=16), weight, statistics)
    assert torch.equal(found.scale, quantized(RTN(group_size=8), weight, statistics).scale)


def test_dead_inputs_are_zero_and_widen_the_grids_of_rows_alone(weight: Tensor, rng: Generator) -> None:
    x = torch.randn(200, WIDTH, generator=rng)
    x[:, DEAD] = 0
    weight[:, DEAD] = 50
    zeroed, statistics = weight.clone(), statistics_of(x)
    zeroed[:, DEAD] = 0
    rows, groups = (quantized(GPTQ(group_size=size), weight, statistics) for size in (None, 64))
    assert torch.equal(rows.scale, quantized(RTN(group_size=None), weight, statistics).scale)
    assert torch.equal(groups.scale, quantized(RTN(group_size=64), zeroed, statistics).scale)
    assert not rows.dequantize()[:, DEAD].any() and not groups.dequantize()[:, DEAD].any()


@pytest.mark.parametrize("how", ["columns", "rows", "nowag"])
@pytest.mark.parametrize("group_size", [None, 16])
def test_a_normalised_weight_is_quantised_as_if_it_were_the_weight(
    how: Normalize, group_size: int | None, weight: Tensor, statistics: Statistics
) -> None:
    normalized, r_out, r_in = normalize(weight, how=how)
    expected = decoded(GPTQ(group_size=group_size), normalized, statistics)
    scale = (1 if r_out is None else r_out[:, None]) * (torch.ones(WIDTH) if r_in is None else r_in)
    found = decoded(GPTQ(group_size=group_size, normalize=how), weight, statistics)
    torch.testing.assert_close(found, expected * scale, rtol=1e-5, atol=0)


def test_a_symmetric_grid_stores_no_zero_points(weight: Tensor, statistics: Statistics) -> None:
    found = quantized(GPTQ(sym=True), weight, statistics)
    assert "zeros" not in found.tensors() and "zeros" in quantized(GPTQ(), weight, statistics).tensors()


def test_an_h_that_takes_more_damping_says_so(weight: Tensor) -> None:
    gram = torch.eye(WIDTH)
    gram[0, 1] = gram[1, 0] = 1.05
    statistics = Statistics(torch.ones(WIDTH), torch.zeros(WIDTH), 9, gram)
    audit = GPTQ().compress(weight, statistics, torch.Generator()).audit
    assert (audit["damping"], audit["damping_raised"]) == (pytest.approx(0.1), 1)


def test_act_order_without_static_groups_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValidationError, match="set static_groups to true, or group_size to null"):
        GPTQ(act_order=True)
    assert GPTQ(act_order=True, group_size=None).variant == "4 bits per row act-order"


def test_static_groups_without_groups_are_refused() -> None:
    with pytest.raises(ValidationError, match="static_groups fixes the grids of groups.*: set group_size"):
        GPTQ(static_groups=True, group_size=None)


def test_a_table_prints_every_switch_that_is_not_usual() -> None:
    assert GPTQ().variant == "4 bits g64"
    assert GPTQ(bits=3, act_order=True, static_groups=True).variant == "3 bits g64 act-order static"
    assert GPTQ(sym=True, damping=0.05, block_size=64, normalize="rows").variant == (
        "4 bits g64 sym damping=0.05 block=64 norm=rows"
    )
