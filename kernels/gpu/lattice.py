"""Rounding to the lattice codes of QuIP# (arXiv:2402.04396), and its LDLQ and sweeps, a tile of columns a launch.

A point is eight vectors, one an element: [R] for R rows. Rows lie together in memory and along the lanes of a
warp; patterns are spread over what is left. All 512 choices of pattern and shift are tried: their scores cost less
than the sorting that would rule most of them out.
"""

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import e8p
from kernels.lattice import RESIDUALS, code_bits, growth
from kernels.ldlq import TILE, diagonal_blocks, tiles

ROWS, PATTERNS, WARPS = 16, 64, 4  # of a program; 16 rows make 256 programs of 4096: two on each of 132 SMs
NORM, ODD = tl.constexpr(8), tl.constexpr(9)  # rows of a table that follow its eight elements


@triton.jit
def _empty():
    """A tuple to add elements to."""
    return ()


@triton.jit
def _total(x):
    """The sum of the elements of x, a tuple."""
    total = x[0]
    for i in tl.static_range(1, 8):
        total += x[i]
    return total


@triton.jit
def _shifted(x, shift):
    """|x - shift|, and whether an odd number of its elements are negative: 0.0 or 1.0."""
    sizes = _empty()
    minuses = x[0] - shift < 0
    for i in tl.static_range(8):
        y = x[i] - shift
        sizes = sizes + (tl.abs(y),)
        minuses = minuses ^ (y < 0) if i > 0 else minuses
    return sizes, minuses.to(tl.float32)


@triton.jit
def _first_largest(score, number, NONE: tl.constexpr):
    """The lowest number [R] among those of the largest score: score, number [P, R], numbers below NONE."""
    top = tl.max(score, axis=0)
    return tl.min(tl.where(score == top[None, :], number, NONE), axis=0)


@triton.jit
def _search(x, patterns, R: tl.constexpr, P: tl.constexpr):
    """pattern + 256 * (the shift is -1/4) of the nearest codeword: the largest x.c - |c|^2 / 2.

    Signs cost nothing where their parity fits; where not, the element of least |v||y| takes the wrong one.
    """
    above, odd_above = _shifted(x, 0.25)
    below, odd_below = _shifted(x, -0.25)
    tilt = _total(x)[None, :] * 0.25  # what the shift itself adds to x.c
    best = tl.full([P, R], float("-inf"), tl.float32)  # [P, R]
    found = tl.full([P, R], 0, tl.int32)
    for start in range(0, 256, P):
        number = start + tl.arange(0, P)
        at = patterns + number
        odd = tl.load(at + 256 * ODD)[:, None]
        norm = tl.load(at + 256 * NORM)[:, None]
        score_above = tl.full([P, R], 0.0, tl.float32)
        score_below = tl.full([P, R], 0.0, tl.float32)
        least_above = tl.full([P, R], float("inf"), tl.float32)
        least_below = tl.full([P, R], float("inf"), tl.float32)
        for i in tl.static_range(8):
            size = tl.load(at + 256 * i)[:, None]  # [P, 1]
            score_above += size * above[i][None, :]
            score_below += size * below[i][None, :]
            least_above = tl.minimum(least_above, size * above[i][None, :])
            least_below = tl.minimum(least_below, size * below[i][None, :])
        score_above += tilt - norm - 2 * tl.abs(odd - odd_above[None, :]) * least_above
        score_below += -tilt - norm - 2 * tl.abs(odd - odd_below[None, :]) * least_below
        found = tl.where(score_above > best, number[:, None], found)
        best = tl.maximum(best, score_above)
        found = tl.where(score_below > best, number[:, None] + 256, found)
        best = tl.maximum(best, score_below)
    return _first_largest(best, found, 512)


@triton.jit
def _e8p(x, patterns, R: tl.constexpr, P: tl.constexpr):
    """The code int32 [R] of the codeword nearest to x, and its elements."""
    found = _search(x, patterns, R, P)  # [R]
    shift = tl.where(found < 256, 0.25, -0.25)
    sizes, minuses = _shifted(x, shift)
    at = patterns + (found & 255)
    wrong = tl.load(at + 256 * ODD) != minuses
    cheapest = tl.full([R], 0, tl.int32)
    least = tl.full([R], float("inf"), tl.float32)
    for i in tl.static_range(8):
        price = tl.load(at + 256 * i) * sizes[i]
        cheapest = tl.where(price < least, i, cheapest)
        least = tl.minimum(price, least)
    code = (found & 255) | ((found >> 8) << 15)
    values = _empty()
    for i in tl.static_range(8):
        negative = (x[i] - shift < 0) ^ (wrong & (cheapest == i))
        size = tl.load(at + 256 * i)
        values = values + (tl.where(negative, -size, size) + shift,)
        if i < 7:
            code |= negative.to(tl.int32) << (8 + i)
    return code, values


@triton.jit
def _short(x, points, R: tl.constexpr, P: tl.constexpr):
    """The number int32 [R] of the nearest of 256 points, and its elements."""
    best = tl.full([P, R], float("-inf"), tl.float32)  # [P, R]
    found = tl.full([P, R], 0, tl.int32)
    for start in range(0, 256, P):
        number = start + tl.arange(0, P)
        score = tl.full([P, R], 0.0, tl.float32) - tl.load(points + 256 * NORM + number)[:, None]
        for i in tl.static_range(8):
            score += tl.load(points + 256 * i + number)[:, None] * x[i][None, :]
        found = tl.where(score > best, number[:, None], found)
        best = tl.maximum(best, score)
    code = _first_largest(best, found, 256)
    values = _empty()
    for i in tl.static_range(8):
        values = values + (tl.load(points + 256 * i + code),)
    return code, values


@triton.jit
def _round(x, patterns, points, BITS: tl.constexpr, GROWTH: tl.constexpr, R: tl.constexpr, P: tl.constexpr):
    """Two codes int32 [R], the second that of the residual or as the first, and the elements of the value."""
    code, values = _e8p(x, patterns, R, P)
    if BITS == 2:
        return code, code, values
    rest = _empty()
    for i in tl.static_range(8):
        rest = rest + ((x[i] - values[i]) * GROWTH,)
    if BITS == 3:
        second, refined = _short(rest, points, R, P)
    else:
        second, refined = _e8p(rest, patterns, R, P)
    whole = _empty()
    for i in tl.static_range(8):
        whole = whole + (values[i] + tl.div_rn(refined[i], tl.full([R], GROWTH, tl.float32)),)
    return code, second, whole


@triton.jit
def _quantize(
    x, codes, values, patterns, points, count,
    BITS: tl.constexpr, GROWTH: tl.constexpr, R: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """x, values [8, count]; codes int32 [1 or 2, count]."""
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    inside = row < count
    target = _empty()
    for i in tl.static_range(8):
        target = target + (tl.load(x + i * count + row, mask=inside, other=0.0),)
    first, second, found = _round(target, patterns, points, BITS, GROWTH, R, P)
    tl.store(codes + row, first, mask=inside)
    if BITS > 2:
        tl.store(codes + count + row, second, mask=inside)
    for i in tl.static_range(8):
        tl.store(values + i * count + row, found[i], mask=inside)


@triton.jit(do_not_specialize=["start", "width"])
def _tile(
    weight, old, pull, gain, inverses, patterns, points, new, error, codes, start, width, n, rows,
    STEP: tl.constexpr, BITS: tl.constexpr, GROWTH: tl.constexpr,
    COLUMNS: tl.constexpr, R: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Columns start to start + width of weight, old, new and error [n, rows], eight at a time from the last.

    A block's target is old + pull, or old + inverse @ pull where STEP, for pull [width, rows] to which is added
    what the blocks after it moved, old - new, times gain [n, n].

    inverses [n / 8, 8, 8], codes [1 or 2, n / 8, rows].
    """
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    inside = row < rows
    column = tl.arange(0, COLUMNS)
    moved = tl.full([COLUMNS, R], 0.0, tl.float32)  # [COLUMNS, R]
    for step in range(width // 8):
        at = width - 8 - 8 * step
        here = (start + at).to(tl.int64)
        pulled = _empty()
        for i in tl.static_range(8):
            weights = tl.load(gain + (here + i) * n + start + column, mask=column < width, other=0.0)  # [COLUMNS]
            base = tl.load(pull + (at.to(tl.int64) + i) * rows + row, mask=inside, other=0.0)  # [R]
            pulled = pulled + (base + tl.sum(moved * weights[:, None], axis=0),)
        before = _empty()
        target = _empty()
        for i in tl.static_range(8):
            was = tl.load(old + (here + i) * rows + row, mask=inside, other=0.0)  # [R]
            before = before + (was,)
            if STEP:
                aim = was
                for j in tl.static_range(8):
                    aim += tl.load(inverses + here * 8 + i * 8 + j) * pulled[j]
                target = target + (aim,)
            else:
                target = target + (was + pulled[i],)
        first, second, found = _round(target, patterns, points, BITS, GROWTH, R, P)
        tl.store(codes + here // 8 * rows + row, first, mask=inside)
        if BITS > 2:
            tl.store(codes + (n // 8 + here // 8) * rows + row, second, mask=inside)
        for i in tl.static_range(8):
            exact = tl.load(weight + (here + i) * rows + row, mask=inside, other=0.0)
            tl.store(new + (here + i) * rows + row, found[i], mask=inside)
            tl.store(error + (here + i) * rows + row, exact - found[i], mask=inside)
            moved = tl.where((column == at + i)[:, None], (before[i] - found[i])[None, :], moved)


def quantize(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """`kernels.lattice.quantize`: x [n, 8] float32 to codes int32 [n, 1 or 2] and their values [n, 8]."""
    columns = x.T.contiguous()
    codes = torch.empty(len(code_bits(bits)), len(x), dtype=torch.int32, device=x.device)
    values = torch.empty_like(columns)
    if len(x):
        _quantize[(triton.cdiv(len(x), ROWS),)](
            columns, codes, values, *_books(x.device), len(x), **_constants(bits)
        )
    return codes.T, values.T


def ldlq(weight: Tensor, lower: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """`kernels.ldlq.ldlq` onto the lattice, in blocks of 8: weight [rows, n], lower [n, n], float32.

    Codes int32 [rows, n / 8, 1 or 2] and their values [rows, n].
    """
    columns, gain = weight.T.contiguous(), lower.T.contiguous()
    error, codes = torch.empty_like(columns), _codes(columns, bits)
    new = torch.empty_like(columns)
    for tile, _ in tiles(len(columns), e8p.DIM):
        pull = gain[tile, tile.stop :] @ error[tile.stop :]  # [tile, rows]
        _launch((columns, columns, pull, gain, None), (new, error, codes), tile, bits)
    return codes.permute(2, 1, 0), new.T


def sweep(weight: Tensor, quantized: Tensor, h: Tensor, bits: int, count: int) -> tuple[Tensor, Tensor]:
    """`kernels.ldlq.sweep` onto the lattice, in blocks of 8: weight, quantized [rows, n], h [n, n], float32.

    Codes int32 [rows, n / 8, 1 or 2] and their values [rows, n]. Errors are W - Ŵ anew, not a sum of changes.
    """
    columns, old, gain = weight.T.contiguous(), quantized.T.contiguous(), h.contiguous()
    error, codes = columns - old, _codes(columns, bits)
    inverses = torch.linalg.inv(diagonal_blocks(gain, e8p.DIM)).contiguous()  # [n / 8, 8, 8]
    for _ in range(count):
        new = torch.empty_like(columns)
        for tile, _ in tiles(len(columns), e8p.DIM):
            pull = gain[tile] @ error  # [tile, rows]
            _launch((columns, old, pull, gain, inverses), (new, error, codes), tile, bits)
        old = new
    return codes.permute(2, 1, 0), old.T


def _launch(given: tuple[Tensor | None, ...], found: tuple[Tensor, ...], tile: slice, bits: int) -> None:
    """`_tile` on weight, old, pull, gain and inverses or None; new, error and codes take what it finds."""
    *matrices, inverses = given
    n, rows = found[0].shape
    books = _books(found[0].device)
    place = tile.start, tile.stop - tile.start, n, rows
    step = {"STEP": inverses is not None, "COLUMNS": TILE}
    steps = matrices[-1] if inverses is None else inverses
    _tile[(triton.cdiv(rows, ROWS),)](*matrices, steps, *books, *found, *place, **step, **_constants(bits))


def _codes(columns: Tensor, bits: int) -> Tensor:
    """Room for the codes [1 or 2, n / 8, rows] of columns [n, rows]."""
    n, rows = columns.shape
    return torch.empty(len(code_bits(bits)), n // e8p.DIM, rows, dtype=torch.int32, device=columns.device)


def _constants(bits: int) -> dict[str, float]:
    return {"BITS": bits, "GROWTH": growth(bits), "R": ROWS, "P": PATTERNS, "num_warps": WARPS, "num_stages": 1}


@functools.cache
def _books(device: torch.device) -> tuple[Tensor, Tensor]:
    """|v| of E8P's patterns, and the residual's 256 points at 3 bits [10, 256].

    Elements in rows 0 to 7, half the squared norm in row 8, and in row 9 whether the sum of |v| is odd.
    """
    return _book(e8p.patterns().abs()).to(device), _book(RESIDUALS[3].decode(torch.arange(256))).to(device)


def _book(points: Tensor) -> Tensor:
    halves, odd = points.square().sum(1, keepdim=True) / 2, points.sum(1, keepdim=True) % 2
    return torch.cat([points, halves, odd], 1).T.contiguous()
