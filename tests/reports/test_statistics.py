"""The bootstrap covers what it says, and agrees with Student's t and with closed forms where those are exact."""

import math

import numpy as np
import pytest
from scipy import stats

from reports.statistics import Array, Difference, holm, interval_over_seeds, paired


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def against_zero(sample: Array, resamples: int = 10_000) -> Difference:
    return paired([sample], [np.zeros_like(sample)], resamples)


def half_width(found: Difference) -> float:
    return (found.high - found.low) / 2


def test_the_estimate_is_the_difference_of_the_means_over_strata() -> None:
    a, b = [np.full((1, 10), 1.0), np.full((1, 30), 5.0)], [np.zeros((1, 10)), np.zeros((1, 30))]
    assert paired(a, b).estimate == pytest.approx(3.0)


@pytest.mark.parametrize("units", [6, 20, 300])
def test_with_one_seed_the_interval_is_that_of_a_paired_t_test(units: int) -> None:
    a, b = normal(0, 1, units), normal(1, 1, units) + 0.5
    exact = stats.ttest_rel(a[0], b[0]).confidence_interval(0.95)
    found = paired([a], [b])
    assert half_width(found) == pytest.approx((exact.high - exact.low) / 2, rel=0.12)


def test_twelve_units_are_not_taken_for_their_population() -> None:
    samples = normal(2, 100, 1, 12)  # without n / (n - 1) in the variance, the ratio is 0.95
    exact = stats.t.ppf(0.975, 11) * stats.sem(samples[:, 0], axis=1)
    assert np.mean([half_width(against_zero(sample, 999)) for sample in samples] / exact) == pytest.approx(
        1, abs=0.025
    )


def test_with_one_seed_p_is_that_of_a_paired_t_test() -> None:
    a, b = normal(0, 1, 40), normal(1, 1, 40) + 0.5
    assert paired([a], [b]).p == pytest.approx(stats.ttest_rel(a[0], b[0]).pvalue, rel=0.15)


@pytest.mark.parametrize("seeds", [3, 10])
def test_where_only_seeds_differ_p_is_that_of_a_t_test_over_seeds(seeds: int) -> None:
    means = normal(3, seeds) + 1.5
    found = against_zero(np.repeat(means[:, None], 50, axis=1))
    assert found.p == pytest.approx(stats.ttest_1samp(means, 0).pvalue, rel=0.3)


def test_the_variance_is_that_of_crossed_seeds_and_units() -> None:
    seeds, units = 60, 200
    sample = normal(4, seeds, 1) + normal(5, 1, units) + normal(6, seeds, units)
    variance = sample.mean(axis=1).var(ddof=1) / seeds + sample.mean(axis=0).var(ddof=1) / units
    assert half_width(against_zero(sample)) == pytest.approx(1.96 * math.sqrt(variance), rel=0.04)


def test_right_or_wrong_items_have_the_variance_of_a_share() -> None:
    a, b = (np.random.default_rng(seed).integers(0, 2, (1, 2000)).astype(float) for seed in (0, 1))
    error = float((a - b).std(ddof=1)) / math.sqrt(2000)
    assert half_width(paired([a], [b])) == pytest.approx(1.96 * error, rel=0.03)


@pytest.mark.parametrize("shape", [(1, 20), (3, 20), (2, 8)])
def test_nineteen_of_twenty_intervals_cover_the_truth(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(7)
    samples = [rng.normal(size=shape[1]) + rng.normal(size=(shape[0], 1)) * (shape[0] > 1) for _ in range(400)]
    covered = [found.low <= 0 <= found.high for found in (against_zero(sample, 999) for sample in samples)]
    assert 0.9 <= np.mean(covered) <= 0.99


def test_without_a_difference_p_is_below_five_percent_in_one_case_of_twenty() -> None:
    rng = np.random.default_rng(8)
    pairs = [rng.exponential(size=(2, 1, 30)) for _ in range(400)]
    false = [paired([a], [b], 999).p < 0.05 for a, b in pairs]
    assert 0.02 <= np.mean(false) <= 0.08


def test_pairing_takes_out_what_both_sides_share() -> None:
    shared = 10 * normal(9, 1, 100)
    a, b = shared + 0.1 * normal(10, 1, 100), shared + 0.1 * normal(11, 1, 100)
    assert half_width(paired([a], [b])) < half_width(paired([a], [b[:, ::-1]])) / 50


def test_paired_seeds_take_out_what_both_sides_draw() -> None:
    shared = normal(12, 8, 1)
    a, b = shared + 0.01 * normal(13, 8, 50), shared + 0.01 * normal(14, 8, 50)
    assert half_width(paired([a], [b])) < half_width(paired([a], [b], seeds_paired=False)) / 20


def test_unpaired_seeds_add_the_variances_of_both_sides() -> None:
    a, b = np.repeat(normal(15, 40, 1), 10, axis=1), np.repeat(normal(16, 30, 1), 10, axis=1)
    error = math.sqrt(a[:, 0].var(ddof=1) / 40 + b[:, 0].var(ddof=1) / 30)
    assert half_width(paired([a], [b], seeds_paired=False)) == pytest.approx(1.96 * error, rel=0.06)


def test_strata_are_drawn_apart() -> None:
    one = normal(17, 1, 400)
    alone, twice = half_width(against_zero(one)), half_width(paired([one, one], [0 * one, 0 * one]))
    assert twice == pytest.approx(alone / math.sqrt(2), rel=0.04)


def test_the_interval_leaves_out_zero_where_p_is_below_five_percent() -> None:
    found = [against_zero(normal(seed, 1, 12) + 0.6, 999) for seed in range(60)]
    assert [each.p < 0.05 for each in found] == [not each.low <= 0 <= each.high for each in found]
    assert 10 < sum(each.p < 0.05 for each in found) < 50


def test_equal_samples_do_not_differ() -> None:
    sample = normal(18, 3, 20)
    found = paired([sample], [sample])
    assert (found.estimate, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(("units", "too_few"), [(5, True), (6, False)])
def test_five_units_tell_nothing_however_clear_they_are(units: int, too_few: bool) -> None:
    found = against_zero(100 + normal(19, 1, units))
    assert (found.too_few, found.p == 1.0) == (too_few, too_few)


def test_the_same_samples_give_the_same_answer() -> None:
    assert against_zero(normal(20, 3, 50)) == against_zero(normal(20, 3, 50))


def test_p_is_never_zero() -> None:
    assert against_zero(1000 + normal(21, 1, 50), 999).p == 1 / 1000


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.zeros((1, 9)), np.zeros((1, 8))),
        (np.zeros((2, 9)), np.zeros((3, 9))),
        (np.zeros((0, 9)), np.zeros((0, 9))),
        (np.full((1, 9), np.nan), np.zeros((1, 9))),
    ],
)
def test_sides_that_do_not_match_are_refused(a: Array, b: Array) -> None:
    with pytest.raises(ValueError, match="each stratum is|cannot be paired|finite"):
        paired([a], [b])


def test_holm_by_hand() -> None:
    # sorted 0.01, 0.02, 0.03, 0.5: x4 = 0.04, x3 = 0.06, x2 = 0.06, x1 = 0.5
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])


def test_holm_is_monotone_and_at_most_one() -> None:
    assert holm([0.9, 0.012, 0.8, 0.01]) == pytest.approx([1.0, 0.04, 1.0, 0.04])  # 3 x 0.012 would be 0.036


def test_the_interval_over_seeds_is_students() -> None:
    low, high = stats.t.interval(0.95, 2, loc=12, scale=stats.sem([11.0, 12.0, 13.0]))
    assert interval_over_seeds([11.0, 12.0, 13.0]) == pytest.approx((high - low) / 2)
    assert math.isnan(interval_over_seeds([11.0]))
