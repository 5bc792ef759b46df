"""Products of float32 by the tensor cores for bfloat16. The references are PyTorch's, in `kernels.float32`.

A float32 is the sum of three bfloat16, its planes, so a product of two is nine products of bfloat16, each exact
in float32; the three smallest are below its last bit and left out. Of a weight that was stored in bfloat16 one
plane is all there is, and three products are left. Tensor cores cut off what they cannot hold as they add up,
so they take the sum over a few inputs only, small products first; the sum of those sums is for the ordinary
units, which round.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

PLANES = 3
PLANES_BYTES = 512 << 20
"""The most that the planes of one operand take; larger ones are cut into rows."""

ALONG = 64  # inputs are padded to a multiple of so many, and so are tokens where they are summed over
SPLIT = 1024  # numbers split by a program
TURNED = 64  # tokens and inputs of a tile that is turned

_LARGEST = tl.constexpr(0x7F7F8000)  # from here on, rounding to bfloat16 makes an infinity of a finite number


# found best on an H100
TILE = 128  # tokens and outputs of a program
GROUP = 8  # tiles of tokens that go through the outputs together
WARPS, STAGES = 8, 3
OF_THREE, OF_SIX = 64, 32  # inputs of a step, by how many products it takes
SHARED_BYTES = STAGES * (PLANES + 1) * TILE * OF_THREE * 2
"""Of shared memory that a multiprocessor must have for the larger of the two."""


@triton.jit
def _rounded(x):
    """The bfloat16 nearest to x as float32, ties to even; cut off where that would be infinite and x is not."""
    bits = x.to(tl.int32, bitcast=True)
    up = tl.where((bits & 0x7FFFFFFF) >= _LARGEST, 0, 0x7FFF + ((bits >> 16) & 1))
    return ((bits + up) & -65536).to(tl.float32, bitcast=True)


@triton.jit
def _left(x, plane):
    """What a plane leaves of x, exactly; nothing of an infinity."""
    same = x == plane
    return tl.where(same, 0.0, x) - tl.where(same, 0.0, plane)


@triton.jit
def _split(
    source, planes, inexact, width, padded, size,
    FIRST: tl.constexpr, LAST: tl.constexpr, TELL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Planes FIRST to LAST of a row of [rows, width], padded with zeros. With TELL it is noted whether the first
    was not all there is; without the first, nothing is done where it was."""
    if FIRST > 0:
        if tl.load(inexact) == 0:
            return
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(source + row * width + at, at < width, 0.0)
    for plane in tl.static_range(LAST + 1):
        rounded = _rounded(x)
        if plane >= FIRST:
            tl.store(planes + plane * size + row * padded + at, rounded.to(tl.bfloat16), at < padded)
        x = _left(x, rounded)
    if TELL:
        if tl.max((x != 0).to(tl.int32), 0) > 0:
            tl.store(inexact, 1)


@triton.jit
def _split_turned(source, planes, tokens, width, padded, size, SIDE: tl.constexpr):
    """All planes of [tokens, width] as [width, padded], padded with zeros."""
    token = tl.program_id(1) * SIDE + tl.arange(0, SIDE)
    at = tl.program_id(0) * SIDE + tl.arange(0, SIDE)
    inside = (token < tokens)[:, None] & (at < width)[None, :]
    x = tl.load(source + token.to(tl.int64)[:, None] * width + at[None, :], inside, 0.0)
    x = tl.trans(x)
    to = planes + at.to(tl.int64)[:, None] * padded + token[None, :]
    for plane in tl.static_range(3):
        rounded = _rounded(x)
        tl.store(to + plane * size, rounded.to(tl.bfloat16), (at < width)[:, None] & (token < padded)[None, :])
        x = _left(x, rounded)


@triton.jit
def _product(
    x, w, y, inexact, rows, outputs, inputs, x_size, w_size, y_stride,
    SIX: tl.constexpr, TELLS: tl.constexpr, UPPER: tl.constexpr, OPERAND: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """y = x wᵀ from planes, or with UPPER y += x wᵀ in the tiles that are not all below the diagonal.

    Where the weight TELLS whether one plane of it is not enough, only the launch with as many products runs.
    """
    if TELLS:
        if (tl.load(inexact) != 0) != SIX:
            return
    down, across = tl.cdiv(rows, BM), tl.cdiv(outputs, BN)
    first = tl.program_id(0) // (GROUP * across) * GROUP
    of_group = tl.minimum(down - first, GROUP)
    i = first + tl.program_id(0) % (GROUP * across) % of_group
    j = tl.program_id(0) % (GROUP * across) // of_group
    if UPPER:
        if i * BM >= (j + 1) * BN:
            return
    m, n, k = i * BM + tl.arange(0, BM), j * BN + tl.arange(0, BN), tl.arange(0, BK)
    x_at = x + (m % rows).to(tl.int64)[:, None] * inputs + k[None, :]  # what lies beyond is not stored
    w_at = w + (n % outputs).to(tl.int64)[None, :] * inputs + k[:, None]
    acc = tl.zeros((BM, BN), tl.float32)
    for _ in range(0, inputs, BK):
        x0, x1, x2 = tl.load(x_at), tl.load(x_at + x_size), tl.load(x_at + 2 * x_size)
        w0 = tl.load(w_at).to(OPERAND)
        part = tl.dot(x2.to(OPERAND), w0)
        if SIX:
            w1, w2 = tl.load(w_at + w_size).to(OPERAND), tl.load(w_at + 2 * w_size).to(OPERAND)
            part = tl.dot(x0.to(OPERAND), w2, part)
            part = tl.dot(x1.to(OPERAND), w1, part)
        part = tl.dot(x1.to(OPERAND), w0, part)
        if SIX:
            part = tl.dot(x0.to(OPERAND), w1, part)
        acc += tl.dot(x0.to(OPERAND), w0, part)
        x_at += BK
        w_at += BK
    to = y + m.to(tl.int64)[:, None] * y_stride + n[None, :]
    inside = (m < rows)[:, None] & (n < outputs)[None, :]
    if UPPER:
        acc += tl.load(to, inside, 0.0)
    tl.store(to, acc, inside)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x [tokens, in], weight [out, in], both float32 and contiguous, to x weightᵀ [tokens, out]."""
    y = x.new_empty(len(x), len(weight))
    for outputs in _pieces(weight):
        part = weight[outputs]
        inexact = torch.zeros(1, dtype=torch.int32, device=x.device)
        w = _planes(part)
        _launch_split(part, w, inexact, first=0, last=0)
        _launch_split(part, w, inexact, first=1, last=PLANES - 1)
        for tokens in _pieces(x):
            planes = _planes(x[tokens])
            _launch_split(x[tokens], planes, None, first=0, last=PLANES - 1)
            for six in (False, True):
                _launch(planes, w, y[tokens, outputs], inexact, six=six, upper=False)
    return y


def add_gram(gram: Tensor, rows: Tensor) -> None:
    """gram [in, in] += XᵀX for X [tokens, in], both float32 and contiguous, on the diagonal and above it.

    What is below becomes undefined.
    """
    width = rows.shape[1]
    step = max(ALONG, PLANES_BYTES // (2 * PLANES * width) // ALONG * ALONG)
    for some in torch.split(rows, step):
        padded = triton.cdiv(len(some), ALONG) * ALONG
        planes = rows.new_empty(PLANES, width, padded, dtype=torch.bfloat16)
        grid = triton.cdiv(width, TURNED), padded // TURNED
        _split_turned[grid](some, planes, len(some), width, padded, planes.stride(0), SIDE=TURNED)
        _launch(planes, planes, gram, None, six=True, upper=True)


def _pieces(matrix: Tensor) -> list[slice]:
    """Rows whose planes are no larger than they may be, but for what makes whole tiles of them."""
    most = max(1, PLANES_BYTES // (2 * PLANES * _padded(matrix.shape[1])))
    step = triton.cdiv(triton.cdiv(len(matrix), triton.cdiv(len(matrix), most)), TILE) * TILE  # all about as large
    return [slice(start, start + step) for start in range(0, len(matrix), step)]


def _planes(matrix: Tensor) -> Tensor:
    """Room for the planes of [rows, in]: [3, rows, padded in]."""
    return matrix.new_empty(PLANES, len(matrix), _padded(matrix.shape[1]), dtype=torch.bfloat16)


def _padded(width: int) -> int:
    whole: int = triton.cdiv(width, ALONG) * ALONG
    return whole


def _launch_split(matrix: Tensor, planes: Tensor, inexact: Tensor | None, *, first: int, last: int) -> None:
    padded = planes.shape[2]
    _split[(len(matrix), triton.cdiv(padded, SPLIT))](
        matrix,
        planes,
        inexact,
        matrix.shape[1],
        padded,
        planes.stride(0),
        FIRST=first,
        LAST=last,
        TELL=inexact is not None and first == 0,
        BLOCK=SPLIT,
    )


def _launch(x: Tensor, w: Tensor, y: Tensor, inexact: Tensor | None, *, six: bool, upper: bool) -> None:
    rows, outputs = y.shape
    _product[(triton.cdiv(rows, TILE) * triton.cdiv(outputs, TILE),)](
        *(x, w, y, inexact, rows, outputs, x.shape[2]),
        *(x.stride(0), w.stride(0), y.stride(0)),
        SIX=six,
        TELLS=inexact is not None,
        UPPER=upper,
        OPERAND=tl.bfloat16 if x.is_cuda else tl.float32,  # the interpreter has no products of bfloat16
        BM=TILE,
        BN=TILE,
        BK=OF_SIX if six else OF_THREE,
        GROUP=GROUP,
        num_warps=WARPS,
        num_stages=STAGES,
    )
