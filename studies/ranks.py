"""Whether one figure orders things as another does, and what share of a figure's variance groups explain."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from reports.statistics import LEVEL

Array = NDArray[np.float64]

RESAMPLES = 1000
FEWEST = 4  # pairs below which a resample may well hold one of them alone


def rank_correlation(a: Sequence[float], b: Sequence[float], seed: int = 0) -> dict[str, float]:
    """`rho`, Spearman's, and `tau`, Kendall's tau-b, of pairs a [n], b [n]; `rho low`, `rho high` and so on.

    The 95 % intervals are percentiles of the bootstrap over pairs (Efron and Tibshirani 1993, "An Introduction to
    the Bootstrap", chapter 13). A figure is NaN where one side is constant, an interval below FEWEST pairs.
    """
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    draws = np.random.default_rng(seed).integers(len(x), size=(RESAMPLES if len(x) >= FEWEST else 0, len(x)))
    found: dict[str, float] = {}
    for name, of in {"rho": _spearman, "tau": _kendall}.items():
        resampled = np.array([value for draw in draws if not math.isnan(value := of(x[draw], y[draw]))])
        ends = np.quantile(resampled, [LEVEL / 2, 1 - LEVEL / 2]) if len(resampled) else (math.nan, math.nan)
        found |= {name: of(x, y), f"{name} low": float(ends[0]), f"{name} high": float(ends[1])}
    return found


def _spearman(x: Array, y: Array) -> float:
    return _alike(*(each - each.mean() for each in (stats.rankdata(x), stats.rankdata(y))))


def _kendall(x: Array, y: Array) -> float:
    return _alike(*(np.sign(each[:, None] - each) for each in (x, y)))


def _alike(a: Array, b: Array) -> float:
    """Daniels' coefficient of scores a, b of the same pairs (1944, Biometrika 33), of which both are cases."""
    scale = np.square(a).sum() * np.square(b).sum()
    return float((a * b).sum() / np.sqrt(scale)) if scale else math.nan


def explained(values: Sequence[float], groups: Sequence[object]) -> float:
    """Adjusted R² of log values [n] on their groups [n]: 0 is what groups at random would explain, on average.

    NaN where each value has a group of its own, where all are equal, and where one is not above 0.
    """
    numbers = np.asarray(values, dtype=float)
    _, index = np.unique([str(group) for group in groups], return_inverse=True)
    n, k = len(numbers), int(index.max()) + 1
    if n == k or not (numbers > 0).all() or numbers.min() == numbers.max():
        return math.nan
    logs = np.log(numbers)
    means = np.bincount(index, logs) / np.bincount(index)
    left, total = np.square(logs - means[index]).sum(), np.square(logs - logs.mean()).sum()
    return float(1 - (left / (n - k)) / (total / (n - 1)))
