"""First codebooks [size, d] for weighted k-means over one matrix's vectors, or several matrices'.

All draws come from `generator`, on its own device, so that a seed means the same on every device.
"""

import torch
from torch import Generator, Tensor

from kernels.backend import fused
from kernels.kmeans import Parts, Vectors, assign, sums, take, weighted_kmeans

SUBSETS = 4
"""Size of the pool from which NoWag's start draws, in subsets."""

ROUNDS, OVERSAMPLING = 4, 2.0
"""Passes of `seed_plus_plus` over the vectors, and how many candidates they draw in all, in codebooks."""

SAMPLE, SAMPLE_ITERATIONS = 16, 10
"""Vectors on which `seed_refined` works, in codebooks, and its updates."""


def seed_nowag(parts: Parts, size: int, generator: Generator) -> Tensor:
    """NoWag's start (arXiv:2504.14569), a relative of k-means++.

    The first codeword is any vector. Each next one comes from a random subset of `size` vectors, with a
    probability in proportion to its weighted squared distance to the codewords so far, clipped to [0, 1].
    The subsets are runs of one random pool, whose distances are thus computed once for all of them.
    """
    return _spread(take(parts, _random(parts, SUBSETS * size, generator)), size, size, 1.0, generator)


def seed_plus_plus(parts: Parts, size: int, generator: Generator) -> Tensor:
    """k-means++ over all vectors, by k-means|| (arXiv:1203.6402).

    In a few rounds each vector becomes a candidate with a probability in proportion to its weighted squared
    distance to the candidates so far. Each candidate moves to the mean of the vectors nearest to it and takes
    over their weights; of these means k-means++ draws the codebook.
    """
    candidates = take(parts, _random(parts, -(-size // ROUNDS), generator)).x
    distance = _distances(parts, candidates)
    for _ in range(ROUNDS):
        share = OVERSAMPLING * size / ROUNDS / distance.sum(dtype=torch.float64)
        drawn = torch.rand(len(distance), generator=generator, device=generator.device).to(distance.device)
        latest = take(parts, (drawn < distance * share).nonzero()[:, 0]).x
        if len(latest):
            candidates = torch.cat([candidates, latest])
            distance = torch.minimum(distance, _distances(parts, latest))
    short = max(0, size - len(candidates))  # only where fewer than `size` vectors differ
    candidates = torch.cat([candidates, candidates[:1].expand(short, -1)])
    weight, summed = sums(parts, [assign(x, w, candidates)[0] for x, w in parts], len(candidates))
    means = torch.where(weight > 0, summed / weight, candidates).float()
    return _spread(Vectors(means, weight.float()), size, len(means), torch.inf, generator)


def seed_refined(parts: Parts, size: int, generator: Generator) -> Tensor:
    """NoWag's start, then k-means on a random sample: at the cost of a fraction of one update of the whole."""
    sample = [take(parts, _random(parts, SAMPLE * size, generator))]
    return weighted_kmeans(sample, seed_nowag(sample, size, generator), SAMPLE_ITERATIONS).codebook


def _random(parts: Parts, count: int, generator: Generator) -> Tensor:
    """The places of `count` different vectors, or of all where there are fewer, in random order."""
    total = sum(len(x) for x, _ in parts)
    drawn = torch.randperm(total, generator=generator, device=generator.device)[:count]
    return drawn.to(parts[0].x.device)


def _distances(parts: Parts, codebook: Tensor) -> Tensor:
    """The weighted squared distance of each vector of all parts to its nearest codeword."""
    return torch.cat([part.errors(codebook, assign(*part, codebook)[0]) for part in parts])


def _spread(pool: Vectors, size: int, subset: int, most: float, generator: Generator) -> Tensor:
    """k-means++ on a pool [m, d] in random order: each draw from `subset` vectors, distances clipped to `most`."""
    device = generator.device
    starts = torch.randint(max(1, len(pool.x) - subset + 1), (size,), generator=generator, device=device)
    draws = torch.rand(size, generator=generator, device=device).to(pool.x.device)
    if fused(pool.x):
        from kernels.gpu.seeding import MOST, spread

        if len(pool.x) <= MOST:
            return pool.x[spread(*pool, starts.to(pool.x.device), draws, subset, most)]
    return _spread_plainly(pool, starts.tolist(), draws, subset, most)


def _spread_plainly(pool: Vectors, starts: list[int], draws: Tensor, subset: int, most: float) -> Tensor:
    """The codebook [size, d] for draws [size], each from the vectors that begin at its start."""
    size = len(starts)
    vectors, weights = pool.x.T.contiguous(), pool.w.T.contiguous()  # [d, m]
    codebook = vectors[:, :1].repeat(1, size)  # [d, size]
    distance = torch.full_like(vectors[0], torch.inf)
    for k in range(1, size):
        latest = (weights * (vectors - codebook[:, k - 1 : k]).square()).sum(0)
        distance = torch.minimum(distance, latest)
        ladder = distance[starts[k] : starts[k] + subset].clamp_max(most).cumsum(0)
        step = torch.searchsorted(ladder, draws[k] * ladder[-1], right=True).clamp_max(len(ladder) - 1)
        codebook[:, k] = vectors[:, starts[k] + step]
    return codebook.T.contiguous()
