"""k-means++ over pools in one launch: one program draws all codewords of a pool, as each depends on those before.

A distance is needed only where a draw's window lies. A tile of the pool keeps the number of codewords that its
distances have seen, and sees the others when a window next touches it: the minima are the same, in fewer reads.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

ELEMENTS = 8192
"""Numbers of x, and of w, in a tile of the pool: they must fit into the registers of a program."""

WARPS = 32

MOST = 65536
"""The largest pool worth one program's while: at that size plain launches are as fast."""


@triton.jit
def _near(x, w, codebook, distance, tile, seen, k, M, DP: tl.constexpr, TILE: tl.constexpr):
    """The distances [TILE] of a tile, once they have seen codewords `seen` to k - 1 too. Stores them."""
    row = tile * TILE + tl.arange(0, TILE)
    e = tl.arange(0, DP)[None, :]
    at = row.to(tl.int64)[:, None] * DP + e
    own = tl.load(x + at, mask=row[:, None] < M, other=0.0)  # [TILE, DP]
    weight = tl.load(w + at, mask=row[:, None] < M, other=0.0)
    near = tl.load(distance + row)
    for j in range(seen, k):
        off = own - tl.load(codebook + j * DP + e)
        near = tl.minimum(near, tl.sum(weight * off * off, 1))
    tl.store(distance + row, near)
    return near


@triton.jit
def _first_above(mass, start, target, SIZE: tl.constexpr):
    """The first place of mass [SIZE] whose ladder passes `target` from `start`, else the last; never an empty one.

    Returns it, SIZE where all are empty, and what the ladder has before it.
    """
    at = tl.arange(0, SIZE)
    ladder = start + tl.cumsum(mass, 0)
    first = tl.min(tl.where((ladder > target) & (mass > 0), at, SIZE), 0)
    last = tl.max(tl.where(mass > 0, at, -1), 0)
    place = tl.where((first == SIZE) & (last >= 0), last, first)
    return place, start + tl.sum(tl.where(at < place, mass, 0.0), 0)


@triton.jit
def _spread(
    x, w, codebook, distance, seen, starts, draws, picks, counts, longest, SIZE, subset, most,
    DP: tl.constexpr, TILE: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    pool = tl.program_id(0).to(tl.int64)
    x += pool * longest * DP
    w += pool * longest * DP
    codebook += pool * SIZE * DP
    distance += pool * TILES * TILE
    seen += pool * TILES
    starts += pool * SIZE
    draws += pool * SIZE
    picks += pool * SIZE
    M = tl.load(counts + pool)
    e = tl.arange(0, DP)
    tl.store(codebook + e, tl.load(x + e))
    tl.store(picks, 0)
    for k in range(1, SIZE):
        tl.debug_barrier()  # what the last step stored is read by other threads
        start = tl.load(starts + k)
        stop = tl.minimum(start + subset, M)
        masses = tl.zeros([TILES], tl.float64)
        for tile in range(start // TILE, tl.cdiv(stop, TILE)):
            near = _near(x, w, codebook, distance, tile, tl.load(seen + tile), k, M, DP, TILE)
            row = tile * TILE + tl.arange(0, TILE)
            mass = tl.where((row >= start) & (row < stop), tl.minimum(near, most), 0.0)
            masses = tl.where(tl.arange(0, TILES) == tile, tl.sum(mass.to(tl.float64), 0), masses)
        tl.debug_barrier()  # every thread has read `seen`, and has written its distances
        tiles = tl.arange(0, TILES)
        tl.store(seen + tiles, k, mask=(tiles >= start // TILE) & (tiles < tl.cdiv(stop, TILE)))
        target = tl.load(draws + k).to(tl.float64) * tl.sum(masses, 0)
        tile, before = _first_above(masses, 0.0, target, TILES)
        row = tile * TILE + tl.arange(0, TILE)
        near = tl.load(distance + row, mask=(row >= start) & (row < stop), other=0.0)
        place, _ = _first_above(tl.minimum(near, most).to(tl.float64), before, target, TILE)
        pick = tl.where(tile < TILES, tile * TILE + place, stop - 1)
        tl.store(picks + k, pick)
        tl.store(codebook + k * DP + e, tl.load(x + pick.to(tl.int64) * DP + e))


def spread(
    pools: Sequence[tuple[Tensor, Tensor]], starts: Tensor, draws: Tensor, subset: int, most: float
) -> Tensor:
    """The places int64 [B, size] in pools x, w [m, d] that k-means++ takes, by starts and draws [B, size].

    The first is 0. The k-th lies among the `subset` from starts[k] on: where the ladder of their weighted squared
    distances to the vectors taken, clipped to `most`, passes draws[k] of its height. It is at some distance,
    where any is, and else the last. ValueError when a pool is larger than MOST.
    """
    lengths = [len(x) for x, _ in pools]
    longest, (batch, size), d = max(lengths), starts.shape, pools[0][0].shape[1]
    if longest > MOST:
        raise ValueError(f"a pool of {longest} vectors is more than {MOST}")
    device = pools[0][0].device
    width = triton.next_power_of_2(d)
    tile = ELEMENTS // width
    tiles = MOST // tile  # of any pool: a longer one beside it must not change the order in which masses add up
    x, w = (
        torch.nn.functional.pad(pad_sequence(list(each), batch_first=True), (0, width - d)).contiguous()
        for each in zip(*pools, strict=True)
    )  # [B, longest, width]
    distance = x.new_full((batch, tiles * tile), torch.inf)
    seen, picks = (torch.zeros(batch, length, dtype=torch.int32, device=device) for length in (tiles, size))
    _spread[(batch,)](
        x, w, x.new_empty(batch, size, width), distance, seen, starts.to(device, torch.int32), draws.to(device),
        picks, torch.tensor(lengths, dtype=torch.int32).to(device), longest, size, min(subset, longest), most,
        DP=width, TILE=tile, TILES=tiles, num_warps=WARPS,
    )  # fmt: skip
    return picks.long()
