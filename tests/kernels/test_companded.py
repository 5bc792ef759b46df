"""Companded codes: their levels, where they are stored, and what is decoded from them."""

import pytest
import torch
from torch import Tensor

from kernels.companded import MAX_DEPTH, Companded, compand, expand


@pytest.fixture
def weight() -> Tensor:
    return torch.randn(21, 19, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def stored(weight: Tensor) -> Companded:
    """Three row groups of uneven size, and groups of every depth."""
    rows = torch.arange(21) * 7 % 3
    depths = torch.arange(57).view(3, 19) % 9
    sides = torch.full((3, 19), 0.1), torch.ones(3, 19)
    return Companded.encoded(weight, rows, depths, *(side.half() for side in sides))


@pytest.mark.parametrize("depth", range(MAX_DEPTH + 1))
def test_a_level_is_in_its_own_cell(depth: int) -> None:
    codes, depths = torch.arange(2**depth), torch.tensor(depth)
    levels = expand(codes, depths)
    assert torch.equal(compand(levels, torch.zeros(()), torch.ones(()), depths), codes.int())
    assert (levels.diff() > 0).all()
    torch.testing.assert_close(levels, -levels.flip(0))


def test_levels_are_quantiles_of_a_laplace_density() -> None:
    levels = expand(torch.arange(4), torch.tensor(2))
    share = torch.distributions.Laplace(0.0, 1.0).cdf(levels)
    torch.testing.assert_close(share, torch.tensor([1, 3, 5, 7]) / 8)


def test_each_weight_is_decoded_at_its_groups_depth(stored: Companded, weight: Tensor) -> None:
    error = (stored.dequantize() - weight).abs()
    depths = (torch.arange(57).view(3, 19) % 9)[torch.arange(21) * 7 % 3]
    means = [float(error[depths == depth].mean()) for depth in range(9)]
    assert means == sorted(means, reverse=True) and means[8] < 0.02 < 0.3 < means[1]
    assert (stored.dequantize()[depths == 0] == torch.tensor(0.1).half()).all()


def test_a_group_of_depth_zero_stores_no_scale_and_no_codes(stored: Companded) -> None:
    assert len(stored.scale) == 57 - 7 and sum(stored.counts) == 21 * 19 - 7 * 7
    assert stored.breakdown()["codes"] == sum(depth * n for depth, n in enumerate(stored.counts, 1))


def test_one_row_group_needs_no_row_groups(weight: Tensor) -> None:
    one = torch.zeros(1, 19)
    found = Companded.encoded(weight, torch.zeros(21, dtype=torch.long), one.int() + 4, one, one + 2)
    assert found.rows is None and "rows" not in found.tensors()
    assert (found.dequantize() - weight).abs().mean() < 0.2


def test_it_is_differentiable_in_its_floats(stored: Companded) -> None:
    floats = {name: getattr(stored, name).float().requires_grad_() for name in stored.continuous()}
    Companded.from_tensors({**stored.tensors(), **floats}, stored.meta()).dequantize().sum().backward()
    assert set(floats) == {"centre", "scale"}
    assert torch.equal(floats["centre"].grad, torch.full((3, 19), 7.0))  # rows of each group
    moved = Companded.from_tensors({**stored.tensors(), "scale": stored.scale.float() + 1}, stored.meta())
    torch.testing.assert_close((moved.dequantize() - stored.dequantize()).sum(), floats["scale"].grad.sum())
