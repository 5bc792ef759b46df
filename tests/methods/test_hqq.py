import math
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.format import Format
from methods.hqq import HQQ
from methods.rtn import RTN
from methods.statistics import Statistics

GROUP = 16


def stored(weight: Tensor, **settings: Any) -> Format:
    method = HQQ(**{"bits": 3, "group_size": GROUP} | settings)
    return method.compress(weight, Statistics.none(weight.shape[1]), torch.Generator()).format


def rtn(weight: Tensor, bits: int = 3) -> Tensor:
    method = RTN(bits=bits, group_size=GROUP)
    return method.compress(weight, Statistics.none(weight.shape[1]), torch.Generator()).format.dequantize()


def by_hand(values: list[float], p: float, beta: float) -> float:
    """The least sum of |e|^p over the published updates of the zero point of one group at 3 bits."""
    low, high = min(*values, 0.0), max(*values, 0.0)
    step = (high - low) / 7
    zero, least = float(round(-low / step)), math.inf
    for _ in range(21):
        codes = [min(max(round(w / step + zero), 0), 7) for w in values]
        errors = [w - step * (code - zero) for w, code in zip(values, codes, strict=True)]
        least = min(least, sum(abs(e) ** p for e in errors))
        outliers = [math.copysign(max(abs(e) - abs(e) ** (p - 1) / beta, 0), e) if e else 0.0 for e in errors]
        aims = [c - (w - out) / step for c, w, out in zip(codes, values, outliers, strict=True)]
        zero, beta = sum(aims) / len(aims), 1.01 * beta
    return least


@pytest.mark.parametrize(("p", "beta"), [(0.7, 10.0), (0.7, 100.0), (1.0, 10.0), (0.4, 3.0)])
def test_each_group_has_the_best_of_the_published_zero_points(p: float, beta: float, rng: torch.Generator) -> None:
    weight = torch.randn(12, GROUP, generator=rng) + 0.2
    sums = (stored(weight, p=p, beta=beta).dequantize() - weight).abs().pow(p).sum(1)
    expected = torch.tensor([by_hand(row, p, beta) for row in weight.tolist()])
    torch.testing.assert_close(sums, expected, rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_no_group_is_worse_than_rounded_to_nearest_and_most_are_better(bits: int, rng: torch.Generator) -> None:
    weight = 0.02 * torch.randn(40, 4 * GROUP, generator=rng)
    errors = stored(weight, bits=bits).dequantize() - weight, rtn(weight, bits) - weight
    ours, theirs = (error.view(-1, GROUP).abs().pow(0.7).sum(1) for error in errors)
    assert (ours <= theirs * (1 + 1e-6)).all() and (ours < 0.99 * theirs).float().mean() > 0.5


def test_without_an_update_it_is_rounding_to_nearest(rng: torch.Generator) -> None:
    weight = torch.randn(8, 2 * GROUP, generator=rng)
    torch.testing.assert_close(stored(weight, iterations=0).dequantize(), rtn(weight))


def test_what_fills_a_short_last_group_has_no_say(rng: torch.Generator) -> None:
    weight = torch.randn(4, 20, generator=rng) + 0.5
    assert torch.equal(stored(weight).dequantize()[:, 16:], stored(weight[:, 16:], group_size=4).dequantize())


def test_zero_points_are_kept_as_scales_are_and_lie_between_codes(rng: torch.Generator) -> None:
    found = stored(torch.randn(8, 2 * GROUP, generator=rng).half())
    zeros = found.tensors()["zeros"]
    assert zeros.dtype is torch.float16 and zeros.shape == (8, 2) and (zeros != zeros.round()).any()


def test_the_codes_are_nearest_under_the_zero_point_as_stored(rng: torch.Generator) -> None:
    weight = torch.randn(8, 2 * GROUP, generator=rng).half()
    found = stored(weight)
    step = found.tensors()["scale"].float().repeat_interleave(GROUP, 1)
    inside = (found.dequantize() - weight.float()).abs() <= 0.5001 * step
    assert inside.float().mean() > 0.9
