from typing import Any

import pytest
import torch

from methods.grids import GridRule
from methods.normalizer import Normalize, normalize
from methods.rtn import RTN
from methods.statistics import Statistics


def rounded(weight: torch.Tensor, **settings: Any) -> torch.Tensor:
    method = RTN(**settings)
    return method.compress(weight, Statistics.none(weight.shape[1]), torch.Generator()).format.dequantize()


@pytest.mark.parametrize("bits", range(2, 9))
def test_no_weight_moves_further_than_half_a_step(bits: int, rng: torch.Generator) -> None:
    weight = torch.randn(6, 24, generator=rng)
    step = (weight.amax(1).clamp_min(0) - weight.amin(1).clamp_max(0)) / (2**bits - 1)
    # The zero point is rounded as well, so an end of the range may be cut by another half step.
    error = (rounded(weight, bits=bits, group_size=None) - weight).abs()
    assert (error <= (1 + 1e-5) * step[:, None]).all() and (error.mean(1) <= 0.5 * step).all()


def test_zero_stays_zero(rng: torch.Generator) -> None:
    weight = torch.rand(4, 16, generator=rng) + 1
    weight[:, 3] = 0
    assert not rounded(weight, bits=3, group_size=8)[:, 3].any()


def test_a_whole_row_is_the_group_when_none_is_given(rng: torch.Generator) -> None:
    weight = torch.randn(4, 16, generator=rng)
    assert torch.equal(rounded(weight, group_size=None), rounded(weight, group_size=16))


def test_a_short_last_group_has_its_own_grid(rng: torch.Generator) -> None:
    weight = torch.randn(4, 20, generator=rng)
    assert torch.equal(rounded(weight, group_size=16)[:, 16:], rounded(weight[:, 16:], group_size=4))


def test_zero_points_belong_to_the_scale_as_stored() -> None:
    scale, zeros = GridRule(8, False, torch.float16).grid(torch.tensor([[-0.3, 0.7001]]))
    assert scale.dtype is torch.float16
    assert zeros.item() == round(0.3 / scale.float().item())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("sym", [False, True])
def test_a_group_without_range_has_a_finite_grid(sym: bool, dtype: torch.dtype) -> None:
    scale, zeros = GridRule(4, sym, dtype).grid(torch.tensor([[0.0, 0.0], [0.0, 1e-44]]))
    assert (scale > 0).all() and zeros.isfinite().all()


def test_a_range_beyond_float16_is_refused() -> None:
    with pytest.raises(ValueError, match="scales reach 6.66"):
        rounded(torch.tensor([[999424.0, 0.0]]).bfloat16(), bits=4)


@pytest.mark.parametrize("bits", range(2, 9))
def test_a_symmetric_grid_has_its_zero_in_the_middle(bits: int, rng: torch.Generator) -> None:
    weight = torch.randn(6, 24, generator=rng)
    error = (rounded(weight, bits=bits, group_size=None, sym=True) - weight).abs()
    step = 2 * weight.abs().amax(1) / (2**bits - 1)
    assert (error <= 0.5 * (1 + 1e-4) * step[:, None]).all()


@pytest.mark.parametrize("how", ["columns", "rows", "nowag"])
def test_a_normalised_weight_is_rounded_in_place_of_the_weight(how: Normalize, rng: torch.Generator) -> None:
    weight = torch.randn(6, 24, generator=rng)
    normalized, r_out, r_in = normalize(weight, how=how)
    expected = rounded(normalized, group_size=8) * (1 if r_in is None else r_in)
    expected = expected if r_out is None else expected * r_out[:, None]
    torch.testing.assert_close(rounded(weight, group_size=8, normalize=how), expected)


def test_settings_say_how_rows_are_grouped() -> None:
    assert [RTN(bits=3, group_size=g).variant for g in (32, None)] == ["3 bits g32", "3 bits per row"]
    assert RTN(sym=True, normalize="columns").variant == "4 bits g64 sym norm=columns"
