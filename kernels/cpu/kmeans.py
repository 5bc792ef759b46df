"""The two steps of weighted k-means on CPUs, for vectors [n, d] that share weights [G, d]: vector n has w[n % G].

Those vectors n = r G + g that share weights are taken together. For them the loss of codeword k, less what no
codeword changes, is q_k + Σ v_ke x_e with v = -2 w c and q = Σ w c²: d multiply-adds, half of what unrelated
weights need, with vectors in the lanes of a register. Loops are compiled for one d, on its first use, and kept on
disk. Work is cut into chunks that do not depend on the number of threads, and results are added in their order.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from kernels.cpu.threads import share

FACTORS, SHARING = 12, 16
"""The most factors of a codeword that compilers keep in registers (16 run at a fifth of the speed), and how many
vectors must share weights to gain by it: fewer leave most of STEP empty."""

ROWS = 2048
"""Most vectors of equal weights in one task, which read their lines of x from the second-level cache."""

LANES, STEP = 256, 32
"""Most vectors held against all codewords at once, in the first-level cache; they are padded to whole steps."""

UNROLL = 4
"""Codewords between two looks at memory: written out in the loop. Their factors just fit 16 to 32 registers."""

CHUNK, MOST_CHUNKS = 1 << 14, 16
"""Least vectors of one table of sums, and most tables."""


def suits(x: Tensor, w: Tensor) -> bool:
    """Whether `assign` beats a product of matrices: mostly by 2 to 10 times on 2 threads; at d = 16 it loses."""
    return 1 <= x.shape[1] * (1 if _shared(x, w) else 2) <= FACTORS


def assign(x: Tensor, w: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """x [n, d], w [G, d], codebook [K, d], float32, to the codes int32 [n] of least loss, and their cost.

    Of equals the first. The cost (float64, []) is the loss less the constant Σ w x². A vector that is not
    finite has code 0 and an infinite cost.
    """
    scale, offset = -2 * w, w
    if not _shared(x, w):  # then [w x, w] share the weights one
        weights = w.repeat(-(-len(x) // len(w)), 1)[: len(x)]
        x, codebook = torch.cat([weights * x, weights], 1), torch.cat([-2 * codebook, codebook.square()], 1)
        scale, offset = torch.ones_like(x[:1]), torch.zeros_like(x[:1])
    groups, dim = scale.shape
    vectors = _array(x).reshape(-1, groups, dim)
    codes = np.empty(vectors.shape[:2], np.int32)
    costs = np.empty(-(-len(vectors) // ROWS) * groups)
    given = vectors, _array(scale), _array(offset), _array(codebook), tuple(range(dim))
    share(lambda first, last: _assign(*given, first, last, codes, costs), len(costs))
    return torch.from_numpy(codes.reshape(-1)), torch.tensor(costs.sum())


def _shared(x: Tensor, w: Tensor) -> bool:
    rows, rest = divmod(len(x), len(w))
    return rows >= SHARING and not rest


def sums(parts: Iterable[tuple[Tensor, Tensor]], codes: Sequence[Tensor], size: int) -> tuple[Tensor, Tensor]:
    """Σ w and Σ w x, float64 [size, d], of parts x [n, d], w [G, d] with codes int32 [n], all below `size`."""
    each = [_part_sums(x, w, own, size) for (x, w), own in zip(parts, codes, strict=True)]
    total = torch.from_numpy(sum(each[1:], each[0]))
    return total[:, 0], total[:, 1]


def _part_sums(x: Tensor, w: Tensor, codes: Tensor, size: int) -> NDArray[np.float64]:
    """Σ w and Σ w x of one part [size, 2, d]."""
    count, dim = x.shape
    chunks = max(1, min(MOST_CHUNKS, count // max(CHUNK, size)))
    tables = np.zeros((chunks, size, 2, dim))
    given = _array(x), _array(w), _array(codes), tuple(range(dim))
    share(lambda first, last: _sums(*given, first, last, tables), chunks)
    total: NDArray[np.float64] = tables.sum(0)
    return total


def _array(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().contiguous().numpy()


@njit(nogil=True, cache=True, fastmath={"contract"})
def _nearest(block, factors, axes, lanes, best, index):
    """block [d, lanes] and factors [K / 4, d + 1, 4] to the least loss best [lanes] and its code."""
    dim = len(axes)
    for i in range(lanes):
        best[i] = np.float32(np.inf)
        index[i] = 0
    for q in range(len(factors)):
        f = factors[q]
        k0 = np.int32(UNROLL * q)
        k1, k2, k3 = k0 + np.int32(1), k0 + np.int32(2), k0 + np.int32(3)
        for i in range(lanes):
            a, b, c, d = f[dim, 0], f[dim, 1], f[dim, 2], f[dim, 3]
            for e in range(dim):
                v = block[e, i]
                a += f[e, 0] * v
                b += f[e, 1] * v
                c += f[e, 2] * v
                d += f[e, 3] * v
            least, code = best[i], index[i]
            code = k0 if a < least else code
            least = a if a < least else least
            code = k1 if b < least else code
            least = b if b < least else least
            code = k2 if c < least else code
            least = c if c < least else least
            code = k3 if d < least else code
            least = d if d < least else least
            best[i], index[i] = least, code


@njit(nogil=True, cache=True, fastmath={"contract"})
def _fill(factors, scale, offset, codebook, axes):
    """factors [K / 4, d + 1, 4], v = scale c and q = Σ offset c²; those that pad K lose to any codeword."""
    for k in range(UNROLL * len(factors)):
        q = np.float32(0 if k < len(codebook) else np.inf)
        for e in range(len(axes)):
            c = codebook[k, e] if k < len(codebook) else np.float32(0)
            factors[k // UNROLL, e, k % UNROLL] = scale[e] * c
            q += offset[e] * c * c
        factors[k // UNROLL, len(axes), k % UNROLL] = q


@njit(nogil=True, cache=True)
def _assign(x, scale, offset, codebook, axes, first, last, codes, costs):
    """x [R, G, d] to codes [R, G] and costs [tasks]: tasks first to last, each of ROWS rows and one g."""
    rows, groups = x.shape[:2]
    factors = np.empty((-(-len(codebook) // UNROLL), len(axes) + 1, UNROLL), np.float32)
    block = np.zeros((len(axes), LANES), np.float32)
    best, index = np.empty(LANES, np.float32), np.empty(LANES, np.int32)
    for task in range(first, last):
        g = task % groups
        start = task // groups * ROWS
        stop = min(start + ROWS, rows)
        blocks = -(-(stop - start) // LANES)
        lanes = -(-(stop - start) // (blocks * STEP)) * STEP
        _fill(factors, scale[g], offset[g], codebook, axes)
        cost = 0.0
        for row in range(start, stop, lanes):
            here = min(lanes, stop - row)
            for i in range(here):
                for e in range(len(axes)):
                    block[e, i] = x[row + i, g, e]
            _nearest(block, factors, axes, lanes, best, index)
            for i in range(here):
                codes[row + i, g] = index[i]
                cost += np.float64(best[i])
        costs[task] = cost


@njit(nogil=True, cache=True)
def _sums(x, w, codes, axes, first, last, tables):
    """Chunks first to last of the vectors x [n, d] to their tables [chunks, K, 2, d]."""
    count, groups = len(x), len(w)
    for chunk in range(first, last):
        table = tables[chunk]
        start = count * chunk // len(tables)
        g = start % groups
        for n in range(start, count * (chunk + 1) // len(tables)):
            k = codes[n]
            for e in range(len(axes)):
                weight = np.float64(w[g, e])
                table[k, 0, e] += weight
                table[k, 1, e] += weight * np.float64(x[n, e])
            g = g + 1 if g + 1 < groups else 0
