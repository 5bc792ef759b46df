"""Rank correlations and explained variance, against hand counts."""

import math

import numpy as np
import pytest

from studies.ranks import explained, rank_correlation


def test_one_swapped_pair_of_four_is_rho_0_8_and_tau_two_thirds():
    found = rank_correlation([1, 2, 3, 4], [10, 20, 40, 30])
    assert found["rho"] == pytest.approx(1 - 6 * 2 / (4 * 15)) and found["tau"] == pytest.approx((5 - 1) / 6)


def test_any_rising_function_ranks_alike_and_a_falling_one_in_reverse():
    x = np.linspace(1, 3, 20)
    up, down = rank_correlation(x, np.exp(x)), rank_correlation(x, 1 / x)
    assert (up["rho"], up["tau low"], down["rho high"], down["tau"]) == pytest.approx((1, 1, -1, -1))


def test_the_interval_holds_a_planted_correlation_and_narrows_with_more_pairs():
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    y = 0.8 * x + 0.6 * rng.normal(size=400)
    true = 6 / math.pi * math.asin(0.8 / 2)  # Spearman's rho of a normal pair with correlation 0.8
    many, few = rank_correlation(x, y), rank_correlation(x[:25], y[:25])
    assert many["rho low"] < true < many["rho high"] and few["rho low"] < true < few["rho high"]
    ratio = (few["rho high"] - few["rho low"]) / (many["rho high"] - many["rho low"])
    assert 2 < ratio < 8  # about sqrt(400 / 25) = 4


def test_too_few_pairs_have_no_interval_and_a_constant_no_correlation():
    assert math.isnan(rank_correlation([1, 2, 3], [1, 2, 3])["rho low"])
    assert math.isnan(rank_correlation([1, 1, 1, 1], [1, 2, 3, 4])["tau"])


def test_groups_that_decide_everything_explain_1_and_groups_at_random_nothing_on_average():
    kinds = list("abcd") * 6
    assert explained([1.0 + ord(kind) for kind in kinds], kinds) == pytest.approx(1)
    rng = np.random.default_rng(0)
    chance = [explained(np.exp(rng.normal(size=24)), kinds) for _ in range(400)]
    assert abs(np.mean(chance)) < 4 * np.std(chance) / 20


def test_explained_is_the_adjusted_r2_of_a_regression_on_indicators():
    rng = np.random.default_rng(1)
    kinds = np.repeat(np.arange(3), 5)
    logs = kinds + rng.normal(size=15)
    design = np.eye(3)[kinds]
    left = logs - design @ np.linalg.lstsq(design, logs, rcond=None)[0]
    r2 = 1 - left @ left / ((logs - logs.mean()) @ (logs - logs.mean()))
    assert explained(np.exp(logs), kinds) == pytest.approx(1 - (1 - r2) * 14 / 12)


@pytest.mark.parametrize(("values", "groups"), [([1, 2], ["a", "b"]), ([2, 2, 2], "aab"), ([0, 1, 2], "aab")])
def test_nothing_is_explained_where_there_is_nothing_to_explain(values, groups):
    assert math.isnan(explained(values, list(groups)))
