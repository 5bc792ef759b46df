import pytest
import torch
from torch import Generator, Tensor

from kernels.obs import upper_factor
from methods.hessian import UnitGram, factored, gram_error, padded_gram, unit_gram
from methods.statistics import Statistics


@pytest.fixture
def gram(rng: Generator) -> Tensor:
    """XᵀX [8, 8] of 40 tokens."""
    x = 3 * torch.randn(40, 8, generator=rng)
    return x.T @ x


def statistics_of(gram: Tensor) -> Statistics:
    return Statistics(gram.diagonal().clone(), torch.zeros(len(gram)), 40, gram)


def correlated(correlation: float) -> Tensor:
    """H [8, 8] of unit diagonal and of one pair that is correlated: positive definite below 1, if undamped."""
    gram = torch.eye(8)
    gram[0, 1] = gram[1, 0] = correlation
    return gram


def test_a_gram_matrix_is_divided_by_its_mean_diagonal(gram: Tensor) -> None:
    unit = unit_gram(statistics_of(gram))
    assert float(unit.diagonal().mean()) == pytest.approx(1)
    assert torch.equal(unit_gram(statistics_of(2**-5 * gram)), unit)


def test_a_gram_matrix_of_dead_inputs_stays_zero() -> None:
    assert not unit_gram(statistics_of(torch.zeros(3, 3))).any()


def test_statistics_without_a_gram_matrix_are_refused() -> None:
    with pytest.raises(ValueError, match="H is wanted, the statistics have DIAGONAL alone"):
        unit_gram(Statistics(torch.ones(3), torch.zeros(3), 5))


def test_damping_is_a_share_of_the_mean_diagonal(gram: Tensor) -> None:
    found = factored(gram, 0.03, torch.clone)
    torch.testing.assert_close(found.factor, gram + 0.03 * gram.diagonal().mean() * torch.eye(8))
    assert found.audit == {"damping": 0.03, "damping_raised": 0}


def test_damping_never_reaches_the_gram_matrix_itself(gram: Tensor) -> None:
    before, seen = gram.clone(), []
    with pytest.raises(ValueError, match="not positive definite"):
        factored(gram, 0.5, lambda h: seen.append(h.clone()) or h / 0, torch.ones(8))
    assert torch.equal(gram, before) and not torch.equal(seen[0], before)


def test_what_is_extra_on_the_diagonal_counts_for_the_mean(gram: Tensor) -> None:
    found = factored(gram, 0.03, torch.clone, torch.arange(8.0))
    whole = gram + torch.diag(torch.arange(8.0))
    torch.testing.assert_close(found.factor, whole + 0.03 * whole.diagonal().mean() * torch.eye(8))


@pytest.mark.parametrize(
    ("correlation", "damping", "raised"), [(0.9, 0.01, 0), (1.05, 0.1, 1), (1.5, 1.0, 2)], ids=str
)
def test_damping_rises_tenfold_until_the_factor_exists(correlation: float, damping: float, raised: int) -> None:
    found = factored(correlated(correlation), 0.01, upper_factor)
    assert found.audit == {"damping": pytest.approx(damping), "damping_raised": raised}


def test_a_factor_that_is_not_finite_is_a_failure_too(gram: Tensor) -> None:
    results = iter([torch.full((2, 2), torch.nan), torch.eye(2)])
    found = factored(gram, 0.01, lambda _: next(results))
    assert torch.equal(found.factor, torch.eye(2)) and found.raised == 1


def test_the_last_step_stops_at_the_most_that_is_allowed() -> None:
    assert factored(correlated(1.5), 0.3, upper_factor).audit == {"damping": 1.0, "damping_raised": 1}


def test_a_hopeless_gram_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match="H is not positive definite, even with 1 x mean.h. added"):
        factored(correlated(3.0), 0.01, upper_factor)


def test_dead_inputs_need_no_more_than_damping(gram: Tensor) -> None:
    gram[3] = gram[:, 3] = 0
    alive = [0, 1, 2, 4, 5, 6, 7]
    whole = factored(gram, 0.01, upper_factor)
    torch.testing.assert_close(
        whole.factor[alive][:, alive], factored(gram[alive][:, alive], 0.01 * 7 / 8, upper_factor).factor
    )
    assert whole.raised == 0


def test_inputs_that_are_all_dead_are_factored_as_if_they_were_even() -> None:
    torch.testing.assert_close(factored(torch.zeros(3, 3), 0.25, upper_factor).factor, 2 * torch.eye(3))


def test_the_gram_error_is_the_share_of_the_outputs_energy_that_is_lost(rng: Generator) -> None:
    x, weight = torch.randn(30, 8, generator=rng), torch.randn(5, 8, generator=rng)
    decoded = weight + 0.1 * torch.randn(5, 8, generator=rng)
    expected = ((weight - decoded) @ x.T).square().sum() / (weight @ x.T).square().sum()
    assert gram_error(weight, decoded, x.T @ x) == pytest.approx(float(expected), rel=1e-4)


def test_outputs_without_energy_have_no_gram_error() -> None:
    assert gram_error(torch.zeros(2, 3), torch.ones(2, 3), torch.eye(3)) is None


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("step", [2, 5, 100])
def test_rows_of_a_unit_gram_are_those_of_all_of_it_and_leave_the_statistics_alone(
    gram: Tensor, padding: int, step: int
) -> None:
    before, whole = gram.clone(), padded_gram(unit_gram(statistics_of(gram)), padding)
    some, given = UnitGram.of(statistics_of(gram), padding), statistics_of(gram)
    for each in (whole, some):
        each.diagonal().mul_(1.5).add_(0.25)
    parts = [some.rows(slice(start, min(start + step, len(some)))) for start in range(0, len(some), step)]
    assert torch.equal(torch.cat(parts), whole) and torch.equal(given.gram, before)
