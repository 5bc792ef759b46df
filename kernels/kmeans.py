"""Weighted k-means for the sum over vectors n and elements e of w[n, e] * (x[n, e] - c[k, e])².

The weights of a matrix depend on its columns alone, so they come as w [G, d] and repeat: vector n has weights
w[n % G]. On CUDA the caller must have switched TF32 off. Kernels for these references may follow them here.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

TILE_BYTES = {"cpu": 2 << 20}
"""Bytes of distances held at once: on a CPU they must stay in its second-level cache."""

TILE_BYTES_ELSEWHERE = 256 << 20
SEED_SUBSETS = 4
"""Size of the pool from which the seeding draws, in subsets."""


@dataclass(frozen=True, eq=False)
class KMeansResult:
    """codes int32 [n] are the nearest of codebook [K, d], itself exactly as it rounds to the dtype asked for.

    losses has the weighted squared error of each assignment, the last one being that of `codes`.
    """

    codebook: Tensor
    codes: Tensor
    losses: list[float]
    iterations: int
    converged: bool
    empty_clusters: int


def assign(x: Tensor, w: Tensor, codebook: Tensor, tile: int | None = None) -> tuple[Tensor, Tensor]:
    """x [n, d], w [G, d], codebook [K, d] to the nearest codes int32 [n], of equals the first, and a cost.

    The cost (float64, []) is the loss less the constant Σ w x². Distances are never held for more than `tile`
    vectors; one product makes a tile of them, [-2 c, c²] against [w x, w].
    """
    size = len(codebook)
    tile = tile or max(512, TILE_BYTES.get(x.device.type, TILE_BYTES_ELSEWHERE) // (4 * size))
    factors = torch.cat([-2 * codebook, codebook.square()], 1).T  # [2d, K]
    cyclic = w.repeat(-(-tile // len(w)) + 1, 1)  # the weights of any `tile` vectors in a row
    distances = x.new_empty(tile, size)
    codes = torch.empty(len(x), dtype=torch.int32, device=x.device)
    cost = torch.zeros((), dtype=torch.float64, device=x.device)
    for start in range(0, len(x), tile):
        part = x[start : start + tile]
        weights = cyclic[start % len(w) :][: len(part)]
        torch.mm(torch.cat([weights * part, weights], 1), factors, out=distances[: len(part)])
        nearest = distances[: len(part)].min(1)  # twice as fast as argmin
        codes[start : start + tile] = nearest.indices
        cost += nearest.values.sum(dtype=torch.float64)
    return codes, cost


def update(x: Tensor, w: Tensor, codes: Tensor, codebook: Tensor) -> Tensor:
    """The next codebook [K, d]: Σ w x / Σ w, element by element, over the vectors with each code [n].

    An element without weight stays as it was, and so does an emptied cluster. Sums are float64, so that the
    order in which a device adds does not show.
    """
    total, summed = (torch.empty_like(codebook, dtype=torch.float64) for _ in range(2))  # [K, d]
    for element, column in enumerate(x.unbind(1)):
        weights = w[:, element].repeat(len(x) // len(w))  # [n]
        total[:, element] = torch.bincount(codes, weights, len(codebook))
        summed[:, element] = torch.bincount(codes, weights * column, len(codebook))
    return torch.where(total > 0, summed / total, codebook).to(codebook.dtype)


def weighted_kmeans(
    x: Tensor, w: Tensor, init: Tensor, iterations: int, dtype: torch.dtype = torch.float32
) -> KMeansResult:
    """Lloyd's iteration on float32 x [n, d], w [G, d] from init [K, d]: at most `iterations` updates.

    It stops once an assignment changes nothing and ends on an assignment: the codes belong to the codebook.
    Codewords are rounded to `dtype` as they are made. ValueError when n is no multiple of G.
    """
    if len(x) % len(w):
        raise ValueError(f"{len(x)} vectors cannot share {len(w)} weights evenly")
    constant = float((x.view(-1, *w.shape).square().sum(0, dtype=torch.float64) * w).sum())
    codebook = init.to(dtype).to(x.dtype)
    codes, cost = assign(x, w, codebook)
    losses, converged, done = [constant + float(cost)], False, 0
    while done < iterations and not converged:
        codebook = update(x, w, codes, codebook).to(dtype).to(x.dtype)
        previous = codes
        codes, cost = assign(x, w, codebook)
        losses.append(constant + float(cost))
        done, converged = done + 1, torch.equal(codes, previous)
    empty = int((torch.bincount(codes, minlength=len(init)) == 0).sum())
    return KMeansResult(codebook.to(dtype), codes, losses, done, converged, empty)


def seed_codebook(x: Tensor, w: Tensor, size: int, generator: Generator) -> Tensor:
    """NoWag's start (arXiv:2504.14569), a relative of k-means++: x [n, d], w [G, d] to a codebook [size, d].

    The first codeword is any vector. Each next one comes from a random subset of `size` vectors, with a
    probability in proportion to its weighted squared distance to the codewords so far, clipped to [0, 1].
    The subsets are runs of one random pool, whose distances are thus computed once for all of them.
    """
    device = generator.device
    pool = torch.randperm(len(x), generator=generator, device=device)[: SEED_SUBSETS * size].to(x.device)
    starts = torch.randint(max(1, len(pool) - size + 1), (size,), generator=generator, device=device).tolist()
    draws = torch.rand(size, generator=generator, device=device).to(x.device)
    vectors, weights = x[pool].T.contiguous(), w[pool % len(w)].T.contiguous()  # [d, pool]
    codebook = vectors[:, :1].repeat(1, size)  # [d, size]; the pool is shuffled, so its first will do
    distance = torch.full_like(vectors[0], torch.inf)
    for k in range(1, size):
        latest = (weights * (vectors - codebook[:, k - 1 : k]).square()).sum(0)
        distance = torch.minimum(distance, latest)
        ladder = distance[starts[k] : starts[k] + size].clamp_max(1).cumsum(0)
        step = torch.searchsorted(ladder, draws[k] * ladder[-1], right=True).clamp_max(len(ladder) - 1)
        codebook[:, k] = vectors[:, starts[k] + step]
    return codebook.T.contiguous()
