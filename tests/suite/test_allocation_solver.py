"""The choice of least predicted loss within a size: exact, within it, and never worse with more room."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.allocation import solve as engine
from suite.allocation.solve import Problem, Shared, solve
from suite.errors import ConfigError


def total_loss(problem: Problem, chosen) -> float:
    return sum(problem.loss[pair] for pair in enumerate(chosen))


def drawn(seed: int, linears: int = 4, options: int = 4, shared: bool = False) -> Problem:
    """Options of about 1, 2, … bits, each with a quarter of the loss of the one before, in an unruly way."""
    draw = random.Random(seed)
    pairs = list(itertools.product(range(linears), range(options)))
    bits = {(i, o): 8 * draw.randint(50, 200) * (o + 1) for i, o in pairs}
    loss = {(i, o): draw.random() / 4**o * 10 ** draw.uniform(-3, 0) for i, o in pairs}
    users = [tuple((i, o) for i in range(linears) if draw.random() < 0.7) for o in range(options)]
    books = [Shared(8 * draw.randint(100, 800), each) for each in users if shared and len(each) > 1]
    return Problem(loss, bits, 1000 * linears, books)


def by_hand(problem: Problem, budget: int) -> float | None:
    options = [[o for i, o in problem.pairs if i == linear] for linear in range(1 + problem.pairs[-1][0])]
    fitting = (each for each in itertools.product(*options) if problem.total_bits(each) <= budget)
    return min((total_loss(problem, each) for each in fitting), default=None)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_no_choice_within_the_budget_loses_less(seed, shared):
    problem = drawn(seed, shared=shared)
    for budget in range(4_000, 20_000, 4_000):
        best = by_hand(problem, budget)
        if best is None:
            with pytest.raises(ConfigError):
                solve(problem, budget)
        else:
            assert total_loss(problem, solve(problem, budget)) == pytest.approx(best, rel=1e-5)


def test_a_shared_tensor_counts_once_for_all_and_not_at_all_for_none():
    problem = Problem({}, {(0, 0): 8, (0, 1): 1, (1, 0): 8, (1, 1): 1}, 2, [Shared(5, ((0, 1), (1, 1)))])
    assert [problem.total_bits(each) for each in ([0, 0], [0, 1], [1, 1])] == [16, 14, 7]


def test_what_is_shared_is_chosen_together_or_not_at_all():
    loss = {(i, o): float(o) for i in range(3) for o in range(2)}
    bits = {(i, o): 10 - 4 * o for i in range(3) for o in range(2)}
    problem = Problem(loss, bits, 3, [Shared(7, ((0, 1), (1, 1), (2, 1)))])
    assert solve(problem, 25) == [1, 1, 1] and solve(problem, 30) == [0, 0, 0]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), room=st.floats(0, 1), shared=st.booleans())
def test_a_budget_is_kept_and_more_of_it_is_never_worse(seed, room, shared):
    problem = drawn(seed, linears=8, options=3, shared=shared)
    least, most = problem.total_bits([0] * 8), problem.total_bits([2] * 8)
    budget = round(least + room * max(0, most - least))
    chosen, roomier = solve(problem, budget), solve(problem, budget + 2_000)
    assert problem.total_bits(chosen) <= budget
    assert total_loss(problem, roomier) <= total_loss(problem, chosen) * (1 + 1e-6)


def test_large_problems_are_solved_to_the_bit_of_their_budget_and_always_alike():
    problem = drawn(0, linears=100, options=6)
    budget = 100 * 8 * 125 * 3
    chosen = solve(problem, budget)
    assert 0.999 * budget < problem.total_bits(chosen) <= budget and chosen == solve(problem, budget)


def test_a_linear_that_an_option_leaves_alone_gets_another():
    problem = Problem({(0, 0): 9.0, (0, 1): 1.0, (1, 0): 9.0}, {(0, 0): 1, (0, 1): 1, (1, 0): 1}, 2)
    assert solve(problem, 2) == [1, 0]


def test_a_single_bit_in_ten_to_the_ten_is_too_many():
    problem = Problem({(0, 0): 0.0, (0, 1): 1.0}, {(0, 0): 10**10, (0, 1): 10**10 - 99}, 10**10)
    assert solve(problem, 10**10 - 1) == [1] and solve(problem, 10**10) == [0]


def test_a_solver_that_takes_the_budget_lightly_is_asked_again(monkeypatch):
    exact = engine._minimised
    monkeypatch.setattr(engine, "_minimised", lambda *each: exact(*each[:3], each[3] and each[3] + 2))
    problem = Problem({(0, 0): 0.0, (0, 1): 1.0}, {(0, 0): 10, (0, 1): 7}, 10)
    assert solve(problem, 9) == [1]


def test_equal_losses_are_no_obstacle():
    assert solve(Problem({(0, 0): 0.0, (0, 1): 0.0}, {(0, 0): 9, (0, 1): 4}, 1), 5) == [1]


def test_a_target_that_cannot_be_met_says_what_can():
    problem = Problem({(0, 0): 1.0, (1, 0): 1.0}, {(0, 0): 800, (1, 0): 800}, 400, [Shared(80, ((0, 0), (1, 0)))])
    with pytest.raises(
        ConfigError, match=r"125 bytes \(2.500 bits per weight\), and the least .* 210 bytes \(4.200"
    ):
        solve(problem, 1000)
