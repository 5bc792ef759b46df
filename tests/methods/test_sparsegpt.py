from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from kernels.packing import unpack
from kernels.sparse import Masked
from methods.hessian import gram_error
from methods.magnitude import Magnitude
from methods.method import Method
from methods.normalizer import Normalize, normalize
from methods.sparsegpt import SparseGPT
from methods.statistics import Statistics
from methods.wanda import Wanda
from tests.methods.conftest import statistics_of

ROWS, WIDTH = 24, 48


@pytest.fixture
def weight(rng: Generator) -> Tensor:
    return torch.randn(ROWS, WIDTH, generator=rng)


@pytest.fixture
def statistics(correlated: Callable[[int], Statistics]) -> Statistics:
    return correlated(WIDTH)


def pruned(method: Method, weight: Tensor, statistics: Statistics) -> Tensor:
    return method.compress(weight, statistics, torch.Generator()).format.dequantize()


def lost(weight: Tensor, decoded: Tensor, statistics: Statistics) -> float:
    assert statistics.gram is not None
    return gram_error(weight.float(), decoded, statistics.gram) or torch.nan


@pytest.mark.parametrize("sparsity", [0.3, 0.5, "2:4", "1:3"])
def test_compensation_loses_less_than_wanda_and_magnitude(
    sparsity: float | str, weight: Tensor, statistics: Statistics
) -> None:
    methods = SparseGPT(sparsity=sparsity), Wanda(sparsity=sparsity), Magnitude(sparsity=sparsity)
    errors = [lost(weight, pruned(method, weight, statistics), statistics) for method in methods]
    assert errors[0] < 0.8 * min(errors[1:])


@pytest.mark.parametrize("sparsity", [0.5, 0.7, "1:4"])
def test_what_is_kept_makes_up_for_what_was_dropped_to_its_left(
    sparsity: float | str, weight: Tensor, statistics: Statistics
) -> None:
    found = pruned(SparseGPT(sparsity=sparsity), weight, statistics)
    assert lost(weight, found, statistics) < 0.9 * lost(weight, weight * (found != 0), statistics)


def test_uncorrelated_inputs_leave_kept_weights_alone(weight: Tensor) -> None:
    h = torch.rand(WIDTH, generator=torch.Generator().manual_seed(1)) + 0.5
    found = pruned(SparseGPT(sparsity="2:4"), weight, Statistics(h, torch.zeros(WIDTH), 9, torch.diag(h)))
    assert torch.equal(found, weight * (found != 0))


@pytest.mark.parametrize("block", [1, 5, 8, 16, 48])
@pytest.mark.parametrize("sparsity", ["2:4", "1:3", "5:8"])
def test_the_block_size_changes_no_choice_of_n_of_m(
    sparsity: str, block: int, weight: Tensor, statistics: Statistics
) -> None:
    found, usual = (
        pruned(SparseGPT(sparsity=sparsity, block_size=size), weight, statistics) for size in (block, 128)
    )
    assert torch.equal(found == 0, usual == 0)
    torch.testing.assert_close(found, usual, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("block", [10, 16, 48])
def test_each_block_drops_its_share_and_one_weight_more(
    block: int, weight: Tensor, statistics: Statistics
) -> None:
    found = SparseGPT(sparsity=0.4, block_size=block).compress(weight, statistics, torch.Generator()).format
    assert isinstance(found, Masked)
    for keep in unpack(found.mask, 1, WIDTH).split(block, dim=1):
        assert int((keep == 0).sum()) == int(0.4 * keep.numel()) + 1


def test_the_audit_has_the_sparsity_that_ties_lead_to(weight: Tensor, statistics: Statistics) -> None:
    weight[:, :12] = 0
    audit = SparseGPT(sparsity=0.1).compress(weight, statistics, torch.Generator()).audit
    assert audit["sparsity"] == pytest.approx(12 / WIDTH, abs=0.005)


def test_the_audit_has_damping_and_loss(weight: Tensor, statistics: Statistics) -> None:
    outcome = SparseGPT(damping=0.02).compress(weight, statistics, torch.Generator())
    error = lost(weight, outcome.format.dequantize(), statistics)
    assert (outcome.audit["damping"], outcome.audit["damping_raised"]) == (0.02, 0)
    assert outcome.audit["gram_error"] == pytest.approx(error, rel=1e-4)


def test_dead_inputs_are_the_first_to_go(weight: Tensor, rng: Generator) -> None:
    x = torch.randn(200, WIDTH, generator=rng)
    x[:, [3, 7, 40]] = 0
    weight[:, [3, 7, 40]] *= 100
    found = pruned(SparseGPT(sparsity=0.1), weight, statistics_of(x))
    assert not found[:, [3, 7, 40]].any()


@pytest.mark.parametrize("how", ["columns", "rows", "nowag"])
@pytest.mark.parametrize("sparsity", [0.5, "2:4"])
def test_a_normalised_weight_is_pruned_as_if_it_were_the_weight(
    how: Normalize, sparsity: float | str, weight: Tensor, statistics: Statistics
) -> None:
    weight *= torch.logspace(-1, 1, ROWS)[:, None] * torch.logspace(1, -1, WIDTH)
    normalized, r_out, r_in = normalize(weight, how=how)
    scale = (1 if r_out is None else r_out[:, None]) * (torch.ones(WIDTH) if r_in is None else r_in)
    found = pruned(SparseGPT(sparsity=sparsity, normalize=how), weight, statistics) / scale
    expected = pruned(SparseGPT(sparsity=sparsity), normalized, statistics)
    assert torch.equal(found == 0, expected == 0)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_the_rounding_of_kept_weights_is_made_up_for(weight: Tensor, statistics: Statistics) -> None:
    coarse = weight.bfloat16()
    found = pruned(SparseGPT(), coarse, statistics)
    afterwards = pruned(SparseGPT(), coarse.float(), statistics).bfloat16().float()
    exact = lost(coarse, pruned(SparseGPT(), coarse.float(), statistics), statistics)
    assert lost(coarse, found, statistics) - exact < 0.5 * (lost(coarse, afterwards, statistics) - exact)


def test_an_updated_weight_beyond_its_dtype_is_refused() -> None:
    weight, gram = torch.full((1, 2), 6e4, dtype=torch.float16), torch.ones(2, 2)
    with pytest.raises(ValueError, match="updated weights reach"):
        pruned(SparseGPT(sparsity="1:2"), weight, Statistics(torch.ones(2), torch.zeros(2), 1, gram))


def test_a_table_prints_what_is_not_usual() -> None:
    assert SparseGPT().variant == "50%"
    assert SparseGPT(sparsity="2:4", block_size=64, damping=0.1, normalize="nowag").variant == (
        "2:4 damping=0.1 block=64 norm=nowag"
    )
