"""Weighted k-means for the sum over vectors n and elements e of w[n, e] * (x[n, e] - c[k, e])².

The weights of a matrix depend on its columns alone, so they come as w [G, d] and repeat: vector n has weights
w[n % G]. Several matrices may share a codebook: each is one of the Vectors. What has no kernel asks of its caller
to have switched TF32 off.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.backend import fused
from kernels.cpu import compiled

TILE_BYTES = {"cpu": 2 << 20}
"""Bytes of distances held at once: on a CPU they must stay in its second-level cache."""

TILE_BYTES_ELSEWHERE = 256 << 20


class Vectors(NamedTuple):
    """x [n, d] and the weights w [G, d] of their elements, both float32; G divides n."""

    x: Tensor
    w: Tensor

    def weights(self) -> Tensor:
        """The weights of each vector [n, d]."""
        return self.w.repeat(len(self.x) // len(self.w), 1)

    def errors(self, codebook: Tensor, codes: Tensor) -> Tensor:
        """The weighted squared error of each vector [n]."""
        return (self.weights() * (self.x - codebook[codes]).square()).sum(1)


Parts = Sequence[Vectors]


@dataclass(frozen=True, eq=False)
class KMeansResult:
    """codes, int32 [n] for each of the Vectors, are the nearest of codebook [K, d], as it rounds to its dtype.

    losses has the weighted squared error of each assignment, the last one being that of `codes`; `reseeded`
    counts the empty clusters that were given a vector on the way.
    """

    codebook: Tensor
    codes: list[Tensor]
    losses: list[float]
    iterations: int
    converged: bool
    empty_clusters: int
    reseeded: int


def assign(x: Tensor, w: Tensor, codebook: Tensor, tile: int | None = None) -> tuple[Tensor, Tensor]:
    """x [n, d], w [G, d], codebook [K, d] to the nearest codes int32 [n], of equals the first, and a cost.

    The cost (float64, []) is the loss less the constant Σ w x². Distances are never held for more than `tile`
    vectors; one product makes a tile of them, [-2 c, c²] against [w x, w]. Kernels choose their own tiles.
    """
    if fused(x):
        from kernels.gpu.kmeans import assign as assign_each

        codes, cost = assign_each(x[None], w[None], codebook[None])
        return codes[0], cost[0]
    if compiled(x):
        from kernels.cpu.kmeans import assign as assign_compiled
        from kernels.cpu.kmeans import suits

        if suits(x, w):
            return assign_compiled(x, w, codebook)
    size = len(codebook)
    tile = tile or _tile(codebook)
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


def nearest_in_metric(x: Tensor, metric: Tensor, codebook: Tensor, tile: int | None = None) -> Tensor:
    """The codes int32 [n] that minimise (x - c)ᵀ M (x - c) for x [n, d], one M [d, d], codebook [K, d]."""
    tile = min(tile or _tile(codebook), len(x))
    factors = -2 * (metric @ codebook.T)  # [d, K]
    offset = ((codebook @ metric) * codebook).sum(1)  # [K]
    distances = x.new_empty(tile, len(codebook))
    codes = torch.empty(len(x), dtype=torch.int32, device=x.device)
    for start in range(0, len(x), tile):
        part = x[start : start + tile]
        torch.addmm(offset, part, factors, out=distances[: len(part)])
        codes[start : start + tile] = distances[: len(part)].min(1).indices
    return codes


def _tile(codebook: Tensor) -> int:
    return max(512, TILE_BYTES.get(codebook.device.type, TILE_BYTES_ELSEWHERE) // (4 * len(codebook)))


def sums(parts: Parts, codes: Sequence[Tensor], size: int) -> tuple[Tensor, Tensor]:
    """Σ w and Σ w x, float64 [size, d], over the vectors with each code: no order of adding shows."""
    if fused(parts[0].x):
        from kernels.gpu.segments import segment_sums

        each = segment_sums([(x[None], w[None]) for x, w in parts], [own[None] for own in codes], size)
        return each[0][0], each[1][0]
    if compiled(parts[0].x):
        from kernels.cpu.kmeans import sums as sums_compiled

        return sums_compiled(parts, codes, size)
    x = parts[0].x
    total, summed = (x.new_zeros(size, x.shape[1], dtype=torch.float64) for _ in range(2))
    for (x, w), own in zip(parts, codes, strict=True):
        for element, column in enumerate(x.unbind(1)):
            weights = w[:, element].double().repeat(len(x) // len(w))  # [n]; bincount adds in the dtype of these
            total[:, element] += torch.bincount(own, weights, size)
            summed[:, element] += torch.bincount(own, weights * column, size)
    return total, summed


def update(parts: Parts, codes: Sequence[Tensor], codebook: Tensor) -> Tensor:
    """The next codebook [K, d]: Σ w x / Σ w, element by element, over the vectors with each code [n].

    An element without weight stays as it was, and so does an emptied cluster.
    """
    total, summed = sums(parts, codes, len(codebook))
    return torch.where(total > 0, summed / total, codebook).to(codebook.dtype)


def weighted_kmeans(
    parts: Parts,
    init: Tensor,
    iterations: int,
    dtype: torch.dtype = torch.float32,
    reseed: bool = False,
) -> KMeansResult:
    """Lloyd's iteration from init [K, d]: at most `iterations` updates of one codebook for all parts.

    It stops once an assignment changes nothing and ends on an assignment: the codes belong to the codebook.
    Codewords are rounded to `dtype` as they are made. With `reseed`, empty clusters take the worst vectors after
    each assignment, which never raises its loss. ValueError when a part's n is no multiple of its G.
    """
    return weighted_kmeans_batch([parts], [init], iterations, dtype, reseed)[0]


def weighted_kmeans_batch(
    problems: Sequence[Parts],
    inits: Sequence[Tensor],
    iterations: int,
    dtype: torch.dtype = torch.float32,
    reseed: bool = False,
) -> list[KMeansResult]:
    """`weighted_kmeans` of each problem from its init, with the very same results.

    On a GPU, problems whose parts and codebooks have equal shapes run together, at the memory of their copies.
    """
    for x, w in (part for parts in problems for part in parts):
        if len(x) % len(w):
            raise ValueError(f"{len(x)} vectors cannot share {len(w)} weights evenly")
    each = list(zip(problems, inits, strict=True))
    if reseed or not all(fused(init) for init in inits):
        return [_lloyd(parts, init, iterations, dtype, reseed) for parts, init in each]
    shapes = {(init.shape, *((part.x.shape, part.w.shape) for part in parts)) for parts, init in each}
    if len(shapes) == 1:
        return _together(problems, inits, iterations, dtype)
    return [_together([parts], [init], iterations, dtype)[0] for parts, init in each]


def _together(
    problems: Sequence[Parts], inits: Sequence[Tensor], iterations: int, dtype: torch.dtype
) -> list[KMeansResult]:
    """Lloyd's iteration of problems of equal shapes by the GPU's kernels, which may run past convergence."""
    from kernels.gpu.kmeans import lloyd

    stacked = [Vectors(*map(_stack, zip(*same, strict=True))) for same in zip(*problems, strict=True)]
    run = lloyd(stacked, _stack(inits).to(dtype).to(torch.float32), iterations, dtype)
    results: list[KMeansResult] = []
    for at, (costs, settled) in enumerate(zip(run.costs.T.tolist(), run.settled.T.tolist(), strict=True)):
        converged = any(settled)
        steps = settled.index(True) + 1 if converged else len(costs)
        constant = _constant(problems[at])
        losses = [constant + cost for cost in costs[:steps]]
        codes = [own[at] for own in run.codes]
        results.append(_result(run.codebook[at].to(dtype), codes, losses, converged, 0))
    return results


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(tensors)) if len(tensors) > 1 else tensors[0][None]


def _lloyd(parts: Parts, init: Tensor, iterations: int, dtype: torch.dtype, reseed: bool) -> KMeansResult:
    """Lloyd's iteration of one problem, with a look at the codes after each assignment."""
    constant = _constant(parts)
    codebook = init.to(dtype).to(torch.float32)
    losses: list[float] = []
    codes: list[Tensor] = []
    converged, reseeded = False, 0
    while True:
        previous = codes
        codes, cost = _assign_all(parts, codebook)
        if reseed:
            codebook, moved = _reseeded(parts, codes, codebook, dtype)
            if moved:
                codes, cost = _assign_all(parts, codebook)
                reseeded += moved
        losses.append(constant + cost)
        converged = len(losses) > 1 and all(map(torch.equal, codes, previous))
        if converged or len(losses) > iterations:
            break
        codebook = update(parts, codes, codebook).to(dtype).to(torch.float32)
    return _result(codebook.to(dtype), codes, losses, converged, reseeded)


def _result(
    codebook: Tensor, codes: list[Tensor], losses: list[float], converged: bool, reseeded: int
) -> KMeansResult:
    empty = int((_members(codes, len(codebook)) == 0).sum())
    return KMeansResult(codebook, codes, losses, len(losses) - 1, converged, empty, reseeded)


def _constant(parts: Parts) -> float:
    """Σ w x², what `assign` leaves out of the loss."""
    return sum(float((x.view(-1, *w.shape).square().sum(0, dtype=torch.float64) * w).sum()) for x, w in parts)


def _assign_all(parts: Parts, codebook: Tensor) -> tuple[list[Tensor], float]:
    found = [assign(x, w, codebook) for x, w in parts]
    return [codes for codes, _ in found], sum(float(cost) for _, cost in found)


def _members(codes: Sequence[Tensor], size: int) -> Tensor:
    """How many vectors each of `size` clusters has, int64 [size]."""
    return torch.stack([torch.bincount(own, minlength=size) for own in codes]).sum(0)


def _reseeded(parts: Parts, codes: Sequence[Tensor], codebook: Tensor, dtype: torch.dtype) -> tuple[Tensor, int]:
    """The codebook with its empty clusters on the vectors of the largest error, and how many were moved.

    Nobody used the codewords that go, so the next assignment can only be better.
    """
    empty = (_members(codes, len(codebook)) == 0).nonzero()[:, 0]
    if not len(empty):
        return codebook, 0
    errors = torch.cat([part.errors(codebook, own) for part, own in zip(parts, codes, strict=True)])
    order = errors.argsort(descending=True, stable=True)[: len(empty)]
    order = order[errors[order] > 0]
    moved = codebook.clone()
    moved[empty[: len(order)]] = take(parts, order).x.to(dtype).to(torch.float32)
    return moved, len(order)


def take(parts: Parts, index: Tensor) -> Vectors:
    """The vectors at `index` [m] of all parts in a row, each with its own weights: x [m, d], w [m, d]."""
    x = index.new_empty(len(index), parts[0].x.shape[1], dtype=torch.float32)
    w = torch.empty_like(x)
    start = 0
    for part in parts:
        own = (index >= start) & (index < start + len(part.x))
        local = index[own] - start
        x[own], w[own] = part.x[local], part.w[local % len(part.w)]
        start += len(part.x)
    return Vectors(x, w)
