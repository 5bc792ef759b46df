import pytest
import torch

from methods import statistics
from methods.statistics import Accumulator, Statistic, Statistics


@pytest.fixture
def x(rng: torch.Generator) -> torch.Tensor:
    """Inputs [batch, tokens, in]."""
    return torch.randn(3, 7, 5, generator=rng)


def test_the_gram_matrix_is_plain_x_transposed_x_over_tokens(x: torch.Tensor) -> None:
    accumulator, tokens = Accumulator(Statistic.GRAM, 5), x.view(21, 5)
    accumulator.add(x)
    found = accumulator.finish()
    torch.testing.assert_close(found.gram, tokens.T @ tokens)
    torch.testing.assert_close(found.mean, tokens.mean(0))
    torch.testing.assert_close(found.x_abs, tokens.abs().mean(0))
    assert found.tokens == 21


def test_batches_add_up_whatever_their_size(x: torch.Tensor) -> None:
    whole, parts = Accumulator(Statistic.GRAM, 5), Accumulator(Statistic.GRAM, 5)
    whole.add(x)
    for part in torch.split(x.view(21, 5), 4):
        parts.add(part)
    torch.testing.assert_close(parts.finish().gram, whole.finish().gram)


@pytest.mark.parametrize("sizes", [[40], [3, 3, 3, 31], [1] * 40, [7, 30, 3]])
def test_h_is_the_same_in_blocks_and_from_batches_that_wait(
    sizes: list[int], rng: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "ROW_BLOCK", 4)
    monkeypatch.setattr(statistics, "ENOUGH_TOKENS", 8)
    tokens = torch.randint(-9, 10, (40, 11), generator=rng).float()  # whose products float32 has to the last digit
    accumulator = Accumulator(Statistic.GRAM, 11)
    for part in tokens.split(sizes):
        given = part.clone()
        accumulator.add(given)
        given.zero_()  # what waits must not change with the model's own tensors
    gram = accumulator.finish().gram
    assert gram is not None and torch.equal(gram, tokens.T @ tokens)


def test_h_is_symmetric_to_the_last_bit(rng: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "ROW_BLOCK", 16)
    accumulator = Accumulator(Statistic.GRAM, 40)
    accumulator.add(torch.randn(300, 40, generator=rng))
    gram = accumulator.finish().gram
    assert gram is not None and torch.equal(gram, gram.T)


def test_the_diagonal_alone_equals_that_of_the_gram_matrix(x: torch.Tensor) -> None:
    found = []
    for needs in (Statistic.DIAGONAL, Statistic.GRAM):
        accumulator = Accumulator(needs, 5)
        accumulator.add(x)
        found.append(accumulator.finish())
    assert found[0].gram is None
    torch.testing.assert_close(found[0].x_sq, found[1].x_sq)


def test_half_precision_inputs_are_summed_in_float32() -> None:
    accumulator = Accumulator(Statistic.DIAGONAL, 1)
    accumulator.add(torch.full((4096, 1), 300.0, dtype=torch.float16))
    assert accumulator.finish().x_sq.item() == 4096 * 300.0**2


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
@pytest.mark.parametrize("needs", [Statistic.DIAGONAL, Statistic.GRAM])
def test_statistics_that_are_not_finite_are_refused(needs: Statistic, value: float) -> None:
    accumulator = Accumulator(needs, 3)
    accumulator.add(torch.tensor([[1.0, value, 0.0]]))
    with pytest.raises(ValueError, match="of 3 inputs have sums that are NaN or infinite"):
        accumulator.finish()


def test_inputs_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="width 4 do not fit statistics of width 3"):
        Accumulator(Statistic.DIAGONAL, 3).add(torch.ones(2, 4))


@pytest.mark.parametrize("needs", Statistic)
def test_an_accumulator_meets_the_need_it_was_made_for(needs: Statistic, x: torch.Tensor) -> None:
    accumulator = Accumulator(needs, 5)
    accumulator.add(x)
    assert accumulator.finish().level is needs


def test_importance_is_relative_and_even_where_no_input_ever_lives() -> None:
    assert Statistics(torch.tensor([1.0, 3.0]), torch.zeros(2), 1).importance().tolist() == [0.5, 1.5]
    assert Statistics.none(3).importance().tolist() == [1.0, 1.0, 1.0]


def test_the_audit_shows_dead_inputs_and_a_dominating_one() -> None:
    audit = Statistics(torch.tensor([0.0, 1.0, 1.0, 98.0]), torch.zeros(4), 1).audit()
    assert audit == {"dead_inputs": 1, "h_mean_over_median": 25.0}


@pytest.mark.parametrize("needs", [Statistic.DIAGONAL, Statistic.GRAM])
def test_statistics_come_back_from_their_tensors_among_those_of_others(x: torch.Tensor, needs: Statistic) -> None:
    accumulator = Accumulator(needs, 5)
    accumulator.add(x)
    given = accumulator.finish()
    found = Statistics.from_tensors(given.tensors("a.") | given.tensors("a.b.") | {"a.weight": x}, 21, "a.")
    assert found.tokens == 21 and found.level is needs
    assert found.tensors() == given.tensors()
