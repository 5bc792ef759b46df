"""Grids of least mean squared error for standard Gaussian vectors: n points in p dimensions.

For p = 1 they are the quantisers of Lloyd and Max (1960), exact. For p > 1 there are many local optima: Lloyd's
steps start from points as dense as many should be, and each sees a new and larger part of a quasi-random sample.
While that is small, its noise leads out of poor optima.
"""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.quasirandom import SobolEngine

from kernels.kmeans import Vectors, assign, update, weighted_kmeans

NEWTON_STEPS, NEWTON_TOLERANCE = 50, 1e-8

FIRST = 2
"""Vectors of the first part, in points."""

GROWTH = 1.03
"""Of the parts: all together are 1 / (GROWTH - 1) times as large as the last."""

SAMPLE, FEWEST, MOST = 1024, 1 << 16, 1 << 19
"""Vectors of the whole sample: in points, but at least and at most so many."""

UPDATES = 10
"""Most updates on the whole sample."""

STARTS, DISTANCES = 8, 1 << 25
"""Most starts, of which the best is kept, and the distances from points to the sample that all may have."""

SAMPLE_SEED, TEST_SEED = 1, 2


class Grid(NamedTuple):
    """points [n, p] float32, and the mean squared error of an element of a Gaussian vector at its nearest."""

    points: Tensor
    distortion: float


@functools.cache
def gaussian_grid(size: int, dim: int) -> Grid:
    """The grid of `size` points in `dim` dimensions, on the CPU. ValueError unless `size` is even.

    It is made once a process, in a second for 256 points of 2 or 4 elements and some 20 for 4096 of 6. Beyond one
    element its last digits are the machine's own: store it, do not make it again.
    """
    if size < 2 or size % 2:
        raise ValueError(f"a grid has an even number of points, got {size}")
    if dim == 1:
        return _scalar(size)
    sample = _sample(min(max(SAMPLE * size, FEWEST), MOST), dim, SAMPLE_SEED)
    starts = min(max(DISTANCES // (size * len(sample)), 1), STARTS)
    return min((_fitted(sample, size, start) for start in range(starts)), key=lambda grid: grid.distortion)


def _scalar(size: int) -> Grid:
    """Newton's method for c = E[x | cell of c]. The points mirror each other: it seeks the positive half."""
    ranks = (torch.arange(size // 2, dtype=torch.float64) + 0.5) / size
    points = -math.sqrt(3) * torch.special.ndtri(0.5 - ranks)  # quantiles of the density of many points
    for _ in range(NEWTON_STEPS):
        inner = (points[1:] + points[:-1]) / 2
        low, high = torch.cat([inner.new_zeros(1), inner]), torch.cat([inner, inner.new_full((1,), math.inf)])
        mass = torch.special.ndtr(-low) - torch.special.ndtr(-high)
        mean = (_density(low) - _density(high)) / mass
        above = _density(inner) * (inner - mean[:-1]) / mass[:-1] / 2  # how a mean follows the point above it
        below = _density(inner) * (mean[1:] - inner) / mass[1:] / 2
        own = 1 - functional.pad(above, (0, 1)) - functional.pad(below, (1, 0))
        slopes = own.diag() - above.diag(1) - below.diag(-1)
        step = torch.linalg.solve(slopes, points - mean)
        points = points - step
        if float(step.abs().max()) < NEWTON_TOLERANCE:
            break
    distortion = 1 - 2 * float((mass * mean.square()).sum())
    return Grid(torch.cat([-points.flip(0), points])[:, None].float(), distortion)


def _density(x: Tensor) -> Tensor:
    """Of the standard normal distribution."""
    return torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)


def _fitted(sample: Tensor, size: int, start: int) -> Grid:
    """A grid of `size` points fitted to sample [m, p], from the start of this number."""
    dim = sample.shape[1]
    ones = torch.ones(1, dim)
    points = math.sqrt((dim + 2) / dim) * _sample(size, dim, TEST_SEED + 1 + start)  # as dense as many points are
    at, length = 0, float(FIRST * size)
    while length < len(sample):
        if at + int(length) > len(sample):
            at = 0
        part = Vectors(sample[at : at + int(length)], ones)
        points = update([part], [assign(*part, points)[0]], points)
        at, length = at + int(length), length * GROWTH
    points = weighted_kmeans([Vectors(sample, ones)], points, UPDATES, reseed=True).codebook
    return Grid(points, _distortion(points, len(sample)))


def _distortion(points: Tensor, count: int) -> float:
    """The mean squared error of an element, by `count` vectors to which no grid was fitted."""
    part = Vectors(_sample(count, points.shape[1], TEST_SEED), torch.ones(1, points.shape[1]))
    codes = assign(*part, points)[0]
    return float(part.errors(points, codes).mean(dtype=torch.float64)) / points.shape[1]


def _sample(count: int, dim: int, seed: int) -> Tensor:
    """Gaussian vectors [count, dim] in float32: a scrambled Sobol sequence through the quantile function."""
    engine = SobolEngine(dim, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    uniform = engine.draw(count, dtype=torch.float64) + 2.0**-31  # multiples of 2^-30, zero among them
    normal: Tensor = torch.special.ndtri(uniform)
    return normal.float()
