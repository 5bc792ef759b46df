"""Paired bootstrap over windows or items and over seeds, Holm's adjustment, and intervals over seeds.

The same units are scored under every seed, so units and seeds are crossed factors, and both are resampled with
replacement, each on its own (Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1). Resampled
deviations are scaled by sqrt(n / (n - 1)), as in Rao and Wu (1988, JASA 83), so that a factor's bootstrap variance
is s²/n, the unbiased one, for 3 seeds as for 300 windows. Then each is divided by a draw of sqrt(chi² / (n - 1))
with n - 1 degrees of freedom, which is what makes Student's t of a normal: three seeds do not know their spread.

The deviations of the factors are added. Owen's product of both is left out: noise that belongs to one pair of unit
and seed is in either factor already, so the variance is too large by that noise and never too small.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
Sample = Sequence[
    Array
]  # strata, each [seeds, units]: one for a protocol or task, one a task in a mean over tasks

LEVEL = 0.05
RESAMPLES = 10_000
FEWEST_UNITS = 6  # even if all of 5 units agree, the exact sign test has p = 2 / 2^5 = 0.0625
CHUNK = 1 << 21  # drawn numbers in memory at once: 16 MiB
SPREAD = 1 << 20  # the stream of the spreads, apart from those of the draws
DRAWING = 8  # a multinomial count costs about as much as drawing 8 single units


@dataclass(frozen=True)
class Difference:
    """A difference of two means, its 95 % interval and two-sided p.

    The interval is symmetric (Hall 1988, JRSS B 50) and so leaves out 0 where p is below 0.05. Where there are too
    few units it is NaN, and p is 1.
    """

    estimate: float
    low: float
    high: float
    p: float
    units: int  # of all strata together
    seeds: tuple[int, int]  # of a and of b

    @property
    def too_few(self) -> bool:
        """Whether there were too few units to tell anything."""
        return math.isnan(self.low)


def paired(
    a: Sample, b: Sample, resamples: int = RESAMPLES, seed: int = 0, seeds_paired: bool = True
) -> Difference:
    """mean(a) - mean(b), where mean is the mean over strata of the mean over seeds and units.

    a, b: strata of [seeds, units]; both sides have the same units in the same order. With `seeds_paired`, row s of
    both sides is the same seed; otherwise each side's seeds are drawn on their own, and their numbers may differ.
    Strata are drawn independently in units and together in seeds. A side with one seed is taken as it is: the
    answer then holds for that seed. Fewer than FEWEST_UNITS units in a stratum tell nothing: p is 1.
    Raises ValueError if the sides do not match or hold a number that is not finite.
    """
    _check(a, b, seeds_paired)
    units = sum(stratum.shape[1] for stratum in a)
    seeds = len(a[0]), len(b[0])
    estimate = float(np.mean([x.mean() - y.mean() for x, y in zip(a, b, strict=True)]))
    if min(stratum.shape[1] for stratum in a) < FEWEST_UNITS:
        return Difference(estimate, math.nan, math.nan, 1.0, units, seeds)
    deviations = np.zeros(resamples)
    for number, effects in enumerate(_factors(a, b, seeds_paired)):
        if len(effects) > 1:
            deviations += _resampled(effects, resamples, (seed, number))
    size = np.abs(deviations)
    most = max(1, math.ceil(LEVEL * (resamples + 1) - 1))  # resamples as large, and p is LEVEL or more
    half = float(np.partition(size, -most)[-most])
    p = (1 + int(np.count_nonzero(size >= abs(estimate)))) / (resamples + 1)
    return Difference(estimate, estimate - half, estimate + half, p, units, seeds)


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979), in the order given: monotone in p, at most 1."""
    adjusted, so_far = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        so_far = max(so_far, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = so_far
    return adjusted


def interval_over_seeds(values: Sequence[float]) -> float:
    """Half-width of the 95 % interval of the mean by Student's t, one value a seed; NaN below two."""
    if len(values) < 2:
        return math.nan
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(stats.t.ppf(1 - LEVEL / 2, len(values) - 1)) * error


def _check(a: Sample, b: Sample, seeds_paired: bool) -> None:
    shapes = [(x.shape, y.shape) for x, y in zip(a, b, strict=True)]
    same_units = all(len(x) == len(y) == 2 and x[1] == y[1] for x, y in shapes)
    same_seeds = len({(x[0], y[0]) for x, y in shapes}) == 1
    if not same_units or not same_seeds or any(0 in x + y for x, y in shapes):
        raise ValueError(f"each stratum is [seeds, units], seeds and units above 0 and alike, got {shapes}")
    if seeds_paired and len(a[0]) != len(b[0]):
        raise ValueError(f"{len(a[0])} and {len(b[0])} seeds cannot be paired; pass seeds_paired=False")
    if not all(np.isfinite(stratum).all() for stratum in (*a, *b)):
        raise ValueError("every unit needs a finite number, got infinity or NaN")


def _factors(a: Sample, b: Sample, seeds_paired: bool) -> Iterator[Array]:
    """What is resampled: for each factor the effects [n] whose mean moves with the draw."""
    for x, y in zip(a, b, strict=True):
        yield (x.mean(axis=0) - y.mean(axis=0)) / len(a)  # [units]
    over_a, over_b = (np.mean([stratum.mean(axis=1) for stratum in side], axis=0) for side in (a, b))  # [seeds]
    yield from (over_a - over_b,) if seeds_paired else (over_a, -over_b)


def _resampled(effects: Array, resamples: int, stream: tuple[int, ...]) -> Array:
    """Deviations [resamples] of the mean of n > 1 effects, drawn with replacement and by Student's t in spread."""
    n, centred = len(effects), effects - effects.mean()
    values, counts = np.unique(centred, return_counts=True)
    if DRAWING * len(values) < n:  # items that are right or wrong: draw how many of each
        means: Array = _rng(*stream).multinomial(n, counts / n, size=resamples) @ values / n
    else:
        rows = max(1, CHUNK // n)
        sizes = [min(rows, resamples - start) for start in range(0, resamples, rows)]
        means = np.concatenate([_drawn(n, size, (*stream, at)) @ centred for at, size in enumerate(sizes)]) / n
    return means * _spread(n, resamples, stream)


@lru_cache(maxsize=16)
def _drawn(n: int, resamples: int, stream: tuple[int, ...]) -> Array:
    """How often each of n units is drawn in each resample [resamples, n].

    The same for every pair of entries of a table, as its entries have the same units.
    """
    drawn = _rng(*stream).integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    counts: Array = np.bincount(drawn.ravel(), minlength=resamples * n).astype(np.float64)
    return counts.reshape(resamples, n)


@lru_cache(maxsize=16)
def _spread(n: int, resamples: int, stream: tuple[int, ...]) -> Array:
    """sqrt(n / chi²) with n - 1 degrees of freedom [resamples]; the factor sqrt(n / (n - 1)) is in it."""
    chi_squared: Array = _rng(*stream, SPREAD).chisquare(n - 1, resamples)
    return np.sqrt(n / chi_squared)


def _rng(*stream: int) -> np.random.Generator:
    """Random numbers that depend on nothing but what they are for."""
    return np.random.default_rng(stream)
