"""First codebooks [size, d] for weighted k-means, each over one matrix's vectors, or several matrices'.

Starts of several problems are sought at once: each is what its problem gets alone, which says how often and in
which order its generator is asked. Draws come from the generator's own device: a seed means the same on every one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from kernels.backend import fused
from kernels.kmeans import Parts, Vectors, assign, sums, take, weighted_kmeans_batch

SUBSETS = 4
"""Size of the pool from which NoWag's start draws, in subsets."""

ROUNDS, OVERSAMPLING = 4, 2.0
"""Passes of `seed_plus_plus` over the vectors, and how many candidates they draw in all, in codebooks."""

SAMPLE, SAMPLE_ITERATIONS = 16, 10
"""Vectors on which `seed_refined` works, in codebooks, and its updates."""


class _Pool(NamedTuple):
    """Vectors x, w [m, d] in random order, and for each codeword where its window begins and its draw [size]."""

    vectors: Vectors
    starts: Tensor
    draws: Tensor


def seed_nowag(problems: Sequence[Parts], size: int, generators: Sequence[Generator]) -> list[Tensor]:
    """NoWag's start (arXiv:2504.14569), a relative of k-means++.

    The first codeword is any vector. Each next one comes from a random subset of `size` vectors, with a
    probability in proportion to its weighted squared distance to the codewords so far, clipped to [0, 1].
    The subsets are runs of one random pool, whose distances are thus computed once for all of them.
    """
    each = zip(problems, generators, strict=True)
    return _spread([_subsets(parts, size, generator) for parts, generator in each], size, 1.0)


def seed_plus_plus(problems: Sequence[Parts], size: int, generators: Sequence[Generator]) -> list[Tensor]:
    """k-means++ over all vectors, by k-means|| (arXiv:1203.6402).

    In a few rounds each vector becomes a candidate with a probability in proportion to its weighted squared
    distance to the candidates so far. Each candidate moves to the mean of the vectors nearest to it and takes
    over their weights; of these means k-means++ draws the codebook.
    """
    each = zip(problems, generators, strict=True)
    pools = [_candidates(parts, size, generator) for parts, generator in each]
    return _spread(pools, max(len(pool.vectors.x) for pool in pools), torch.inf)


def seed_refined(problems: Sequence[Parts], size: int, generators: Sequence[Generator]) -> list[Tensor]:
    """NoWag's start, then k-means on a random sample: at the cost of a fraction of one update of the whole."""
    samples: list[Parts] = []
    pools: list[_Pool] = []
    for parts, generator in zip(problems, generators, strict=True):
        samples.append([take(parts, _random(parts, SAMPLE * size, generator))])
        pools.append(_subsets(samples[-1], size, generator))
    found = weighted_kmeans_batch(samples, _spread(pools, size, 1.0), SAMPLE_ITERATIONS)
    return [each.codebook for each in found]


def _random(parts: Parts, count: int, generator: Generator) -> Tensor:
    """The places of `count` different vectors, or of all where there are fewer, in random order."""
    total = sum(len(x) for x, _ in parts)
    device = generator.device
    if 2 * count > total:
        places = torch.randperm(total, generator=generator, device=device)[:count]
    else:  # a permutation of all takes longer than the start itself
        seen: dict[int, None] = {}
        while len(seen) < count:
            drawn = torch.randint(total, (count,), generator=generator, device=device)
            seen |= dict.fromkeys(drawn.tolist())
        places = torch.tensor(list(seen)[:count])
    return places.to(parts[0].x.device)


def _distances(parts: Parts, codebook: Tensor) -> Tensor:
    """The weighted squared distance of each vector of all parts to its nearest codeword."""
    return torch.cat([part.errors(codebook, assign(*part, codebook)[0]) for part in parts])


def _subsets(parts: Parts, size: int, generator: Generator) -> _Pool:
    """The random pool of NoWag's start, and subsets of it."""
    return _drawn(take(parts, _random(parts, SUBSETS * size, generator)), size, size, generator)


def _candidates(parts: Parts, size: int, generator: Generator) -> _Pool:
    """The candidates of k-means||, each with the weights of the vectors that it stands for."""
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
    return _drawn(Vectors(means, weight.float()), size, len(means), generator)


def _drawn(vectors: Vectors, size: int, subset: int, generator: Generator) -> _Pool:
    """A pool with what `_spread` needs of chance, on the generator's device."""
    device = generator.device
    starts = torch.randint(max(1, len(vectors.x) - subset + 1), (size,), generator=generator, device=device)
    return _Pool(vectors, starts, torch.rand(size, generator=generator, device=device))


def _spread(pools: Sequence[_Pool], subset: int, most: float) -> list[Tensor]:
    """k-means++ on each pool: each draw from `subset` vectors, distances clipped to `most`."""
    if all(fused(pool.vectors.x) for pool in pools):
        from kernels.gpu.seeding import MOST, spread

        if max(len(pool.vectors.x) for pool in pools) <= MOST:
            starts, draws = (
                torch.stack([pool.starts for pool in pools]),
                torch.stack([pool.draws for pool in pools]),
            )
            picks = spread([pool.vectors for pool in pools], starts, draws, subset, most)
            return [pool.vectors.x[own] for pool, own in zip(pools, picks, strict=True)]
    return [_spread_plainly(*pool, subset, most) for pool in pools]


def _spread_plainly(pool: Vectors, starts: Tensor, draws: Tensor, subset: int, most: float) -> Tensor:
    """The codebook [size, d] for draws [size], each from the vectors that begin at its start."""
    size, begins, draws = len(starts), starts.tolist(), draws.to(pool.x.device)
    vectors, weights = pool.x.T.contiguous(), pool.w.T.contiguous()  # [d, m]
    codebook = vectors[:, :1].repeat(1, size)  # [d, size]
    distance = torch.full_like(vectors[0], torch.inf)
    for k in range(1, size):
        latest = (weights * (vectors - codebook[:, k - 1 : k]).square()).sum(0)
        distance = torch.minimum(distance, latest)
        ladder = distance[begins[k] : begins[k] + subset].clamp_max(most).cumsum(0)
        step = torch.searchsorted(ladder, draws[k] * ladder[-1], right=True).clamp_max(len(ladder) - 1)
        codebook[:, k] = vectors[:, begins[k] + step]
    return codebook.T.contiguous()
