from typing import Any

import pytest
import torch
from torch import Tensor

from methods.awq import AWQ
from methods.method import Compressed
from methods.rtn import RTN
from methods.statistics import Statistics
from tests.methods.conftest import statistics_of

GROUP = 8


@pytest.fixture
def x(rng: torch.Generator) -> Tensor:
    """Inputs [tokens, 40], of which a few are large."""
    x = torch.randn(160, 40, generator=rng) @ (torch.eye(40) + 0.1 * torch.randn(40, 40, generator=rng))
    return x * torch.where(torch.arange(40) % 13 == 5, 25.0, 1.0)


@pytest.fixture
def weight(rng: torch.Generator) -> Tensor:
    return torch.randn(24, 40, generator=rng)


def compress(weight: Tensor, x: Tensor, **settings: Any) -> Compressed:
    method = AWQ(**{"bits": 3, "group_size": GROUP, "clip": False} | settings)
    return method.compress(weight, statistics_of(x), torch.Generator())


def rtn(weight: Tensor, bits: int = 3) -> Tensor:
    method = RTN(bits=bits, group_size=GROUP)
    return method.compress(weight, Statistics.none(weight.shape[1]), torch.Generator()).format.dequantize()


def by_hand(weight: Tensor, x: Tensor, alpha: float) -> Tensor:
    """Q(W s) / s, as section 3.2 of the paper has it."""
    s = x.abs().mean(0) ** alpha
    s = s / (s.max() * s.min()).sqrt()
    return rtn(weight * s) / s


def moved(x: Tensor, error: Tensor) -> float:
    """What an error of the weight makes of the output, from the inputs themselves."""
    return float((x @ error.T).square().sum())


def test_the_exponent_is_that_of_the_least_output_error(weight: Tensor, x: Tensor) -> None:
    tried = {step / 20: by_hand(weight, x, step / 20) for step in range(20)}
    best = min(tried, key=lambda alpha: moved(x, tried[alpha] - weight))
    found = compress(weight, x)
    assert found.audit["alpha"] == best > 0
    torch.testing.assert_close(found.format.dequantize(), tried[best], rtol=1e-4, atol=1e-5)


def test_linears_of_one_input_take_the_exponent_that_is_best_for_them_together(
    x: Tensor, rng: torch.Generator
) -> None:
    weights = [torch.randn(rows, 40, generator=rng) for rows in (24, 6, 6)]
    losses = [sum(moved(x, by_hand(w, x, step / 20) - w) for w in weights) for step in range(20)]
    method = AWQ(bits=3, group_size=GROUP, clip=False)
    found = method.compress_together(weights, [statistics_of(x)] * 3, torch.Generator())
    assert {each.audit["alpha"] for each in found} == {losses.index(min(losses)) / 20}
    assert len({id(each.format.tensors()["r_in"]) for each in found}) == 1


@pytest.mark.parametrize("clip", [False, True])
def test_large_inputs_cost_the_output_less_than_under_rounding_to_nearest(
    weight: Tensor, x: Tensor, clip: bool
) -> None:
    found = compress(weight, x, clip=clip).format.dequantize()
    assert moved(x, found - weight) < 0.5 * moved(x, rtn(weight) - weight)


def test_the_exponent_zero_is_rounding_to_nearest(weight: Tensor, x: Tensor) -> None:
    assert torch.equal(compress(weight, x, alphas=1).format.dequantize(), rtn(weight))


def test_a_group_is_clipped_where_its_own_output_error_is_least(weight: Tensor, x: Tensor) -> None:
    x, w = x[:, :GROUP], weight[:, :GROUP]
    losses = []
    for share in (1 - step / 20 for step in range(10)):
        limit = share * w.abs().amax(1, keepdim=True)
        low, high = w.clamp(-limit, limit).aminmax(dim=1, keepdim=True)
        scale = (high.clamp_min(0) - low.clamp_max(0)) / 3
        zero = (-low.clamp_max(0) / scale).round()
        found = scale * ((w / scale).round().add(zero).clamp(0, 3) - zero)
        losses.append((x @ (found - w).T).square().sum(0))
    found = compress(w, x, bits=2, alphas=1, clip=True).format.dequantize()
    ours, least = (x @ (found - w).T).square().sum(0), torch.stack(losses).amin(0)
    torch.testing.assert_close(ours, least, rtol=1e-3, atol=0.0)


def test_each_group_is_clipped_by_its_own_inputs(weight: Tensor, x: Tensor) -> None:
    whole = compress(weight, x, alphas=1, clip=True).format.dequantize()
    for group in torch.arange(40).split(GROUP):
        alone = compress(weight[:, group], x[:, group], alphas=1, clip=True).format.dequantize()
        assert torch.equal(whole[:, group], alone)


def test_the_units_of_the_inputs_do_not_matter(weight: Tensor, x: Tensor) -> None:
    first, second = (compress(weight, times * x, clip=True).format for times in (1.0, 2.0**-20))
    assert torch.equal(first.dequantize(), second.dequantize())


def test_statistics_without_the_size_of_inputs_are_refused(weight: Tensor, x: Tensor) -> None:
    statistics = Statistics(x.square().sum(0), x.mean(0), len(x), x.T @ x)
    with pytest.raises(ValueError, match=r"awq needs the mean \|x\| of each input"):
        AWQ().compress(weight, statistics, torch.Generator())
