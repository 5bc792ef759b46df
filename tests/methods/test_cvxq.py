"""CVXQ gives the published depths and weights, and the size that it is asked for."""

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from kernels.companded import Companded
from methods.cvxq import CVXQ, Groups, fitted, log_energies, members, row_groups
from methods.statistics import Statistics
from tests.methods.conftest import GOLDEN, statistics_of


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    return load_file(GOLDEN / "cvxq.safetensors")


@pytest.fixture
def weight() -> Tensor:
    """[96, 80], of rows and columns that differ in size."""
    rng = torch.Generator().manual_seed(1)
    sizes = torch.rand(96, 1, generator=rng) * (0.1 + torch.rand(80, generator=rng))
    return (torch.randn(96, 80, generator=rng) * sizes).half()


@pytest.fixture
def statistics() -> Statistics:
    """Inputs with a mean, and gradients that are not all alike."""
    rng = torch.Generator().manual_seed(2)
    inputs = torch.randn(200, 80, generator=rng) + torch.randn(80, generator=rng)
    grad_sq = torch.randn(96, 80, generator=rng).exp() * torch.randn(80, generator=rng).exp()
    return replace(statistics_of(inputs), grad_sq=grad_sq)


def groups_of(published: dict[str, Tensor]) -> Groups:
    rows = row_groups(published["weight"], published["grad_sq0"][:, 0], 16)
    energies = log_energies(published["weight"], rows, published["grad_sq2"][:, 0])
    return Groups(energies, rows, width=32, beside=0)


def compress(method: CVXQ, weight: Tensor, statistics: Statistics) -> tuple[Companded, Tensor | None]:
    found = method.compress(weight, statistics, torch.Generator())
    assert isinstance(found.format, Companded)
    return found.format, found.bias


@pytest.mark.parametrize("multiplier", [-10, -14])
def test_rows_and_depths_are_the_published_ones(multiplier: int, published: dict[str, Tensor]) -> None:
    groups = groups_of(published)
    for found, expected in zip(members(groups.rows), published[f"lambda{multiplier}_rows"], strict=True):
        assert torch.equal(found, expected.long().sort().values)
    assert torch.equal(groups.depths(multiplier), published[f"lambda{multiplier}_bits"][:, 0].round().int())


@pytest.mark.parametrize("multiplier", [-10, -14])
def test_decoded_weights_are_the_published_ones(multiplier: int, published: dict[str, Tensor]) -> None:
    groups, weight = groups_of(published), published["weight"]
    depths = groups.depths(multiplier)
    stored = Companded.encoded(weight, groups.rows, depths, *fitted(weight, groups.rows, depths))
    expected = published[f"lambda{multiplier}_dequantized"]
    torch.testing.assert_close(stored.dequantize(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bias_correction", [True, False])
@pytest.mark.parametrize("asked", [{"bits_per_weight": 2.4}, {"bits_per_weight": 4.0}, {"bytes": 3333}], ids=str)
def test_what_is_stored_has_the_size_that_is_asked_for(
    asked: dict[str, float], bias_correction: bool, weight: Tensor, statistics: Statistics
) -> None:
    method = CVXQ(target=asked, group_rows=48, bias_correction=bias_correction)
    stored, bias = compress(method, weight, statistics)
    bits = stored.storage_bits() + (0 if bias is None else 8 * bias.nbytes)
    assert 0.995 * method.stored_bits([(96, 80)]) < bits <= method.stored_bits([(96, 80)])


def test_one_price_gives_two_weights_together_the_size(weight: Tensor, statistics: Statistics) -> None:
    method, weights = CVXQ(target={"bits_per_weight": 3.0}, group_rows=32), [weight, 5 * weight]
    settled = method.settled([method.demand(each, statistics) for each in weights])
    sizes = [sum(8 * part.nbytes for part in (*f.tensors().values(), b)) for f, b in
             (compress(settled, each, statistics) for each in weights)]  # fmt: skip
    assert 0.995 * 6 * weight.numel() < sum(sizes) <= 6 * weight.numel()
    assert sizes[1] - sizes[0] > weight.numel()  # log2 5 bits where neither depth ends at 0


def test_a_price_of_ones_own_is_kept(weight: Tensor, statistics: Statistics) -> None:
    method = CVXQ(multiplier=-9.0)
    assert method.settled([method.demand(weight, statistics)]) == method


def test_the_size_is_known_for_any_price(weight: Tensor, statistics: Statistics) -> None:
    for multiplier in (-12.0, -8.0, -5.0, 300.0):
        method = CVXQ(multiplier=multiplier, group_rows=40)
        stored, bias = compress(method, weight, statistics)
        assert method.demand(weight, statistics).bits(multiplier) == stored.storage_bits() + 8 * bias.nbytes


def test_rows_are_grouped_by_variance_times_mean_gradient(weight: Tensor, statistics: Statistics) -> None:
    worth = weight.float().var(1) * statistics.grad_sq.mean(1)
    first, second, third = (worth[some] for some in members(CVXQ(group_rows=32).demand(weight, statistics).rows))
    assert len(first) == len(second) == len(third) == 32
    assert first.max() < second.min() and second.max() < third.min()


def test_the_energy_of_a_group_is_its_spread_times_its_mean_gradient(
    weight: Tensor, statistics: Statistics
) -> None:
    groups = CVXQ(group_rows=32).demand(weight, statistics)
    some = groups.rows == 1
    spread = (weight[some, 5].float() - weight[some, 5].float().median()).square().mean()
    assert float(groups.log_energy[1, 5]) == pytest.approx(
        float((spread * statistics.grad_sq[some, 5].mean()).log2())
    )


def test_sensitive_inputs_get_more_bits(weight: Tensor, statistics: Statistics) -> None:
    grad_sq = torch.ones(96, 80)
    grad_sq[:, :40] = 16.0
    flat = torch.randn(96, 80, generator=torch.Generator().manual_seed(0))
    groups = CVXQ(group_rows=96).demand(flat, replace(statistics, grad_sq=grad_sq))
    depths = groups.depths(-8.0).float()
    assert depths[:, :40].mean() - depths[:, 40:].mean() == pytest.approx(2, abs=0.2)


def test_the_bias_keeps_the_mean_output(weight: Tensor, statistics: Statistics) -> None:
    stored, bias = compress(CVXQ(target={"bits_per_weight": 2.0}, group_rows=96), weight, statistics)
    wanted, found = weight.float() @ statistics.mean, stored.dequantize() @ statistics.mean
    assert (found - wanted).abs().max() > 0.05
    torch.testing.assert_close(found + bias.float(), wanted, atol=2e-3, rtol=0)


def test_a_weight_that_moves_nothing_gets_no_bits(weight: Tensor, statistics: Statistics) -> None:
    stored, _ = compress(CVXQ(), weight, replace(statistics, grad_sq=torch.zeros(96, 80)))
    assert stored.nominal_bits == 0 and stored.dequantize().isfinite().all()


def test_statistics_without_gradients_are_refused(weight: Tensor, statistics: Statistics) -> None:
    with pytest.raises(ValueError, match="cvxq needs squared gradients"):
        compress(CVXQ(), weight, replace(statistics, grad_sq=None))


def test_gradients_of_another_weight_are_refused(weight: Tensor, statistics: Statistics) -> None:
    with pytest.raises(ValueError, match=r"\(2, 80\) for a weight of shape \(96, 80\)"):
        compress(CVXQ(), weight, replace(statistics, grad_sq=torch.ones(2, 80)))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_the_size_of_what_is_not_finite_is_refused(bad: float, weight: Tensor, statistics: Statistics) -> None:
    weight[5, 7] = bad
    with pytest.raises(ValueError, match="weights or their squared gradients are NaN or infinite"):
        CVXQ().demand(weight, statistics)


def test_a_target_that_side_parameters_exceed_is_refused(weight: Tensor, statistics: Statistics) -> None:
    with pytest.raises(ValueError, match="target is 0.1 bits, 768 bits, but means and depths take"):
        compress(CVXQ(target={"bits_per_weight": 0.1}), weight, statistics)


def test_more_bits_than_any_depth_has_are_refused() -> None:
    with pytest.raises(ValidationError, match="depths end at 8"):
        CVXQ(target={"bits_per_weight": 9.0})
