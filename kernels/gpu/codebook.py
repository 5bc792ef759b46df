"""y = x Wᵀ from codes of a codebook: codewords are gathered, and stay in the nearest cache."""

import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.matmul import Tiling, _codes, _inputs, _store, _words, add_parts, partial, plan, pointers
from kernels.prepared import CodebookWords

ONE_TOKEN = Tiling(outputs=8, warps=4)
FEW_TOKENS = Tiling(outputs=32, warps=4)


@triton.jit
def _codebook(
    x, low, high, book, r_in, r_out, y, tokens, rows, width, blocks, run,
    DIM: tl.constexpr, PADDED: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, NORM_IN: tl.constexpr,
    NORM_OUT: tl.constexpr, LANES: tl.constexpr, BN: tl.constexpr, BM: tl.constexpr, PARTS: tl.constexpr,
    DTYPE: tl.constexpr,
):  # fmt: skip
    PLANES: tl.constexpr = 32 // LOW
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    first = tl.program_id(1) * run
    lane = tl.arange(0, LANES * PADDED) // PADDED
    element = tl.arange(0, LANES * PADDED) % PADDED
    acc = tl.zeros((BN, LANES if BM == 1 else BM), tl.float32)
    ahead, ahead_high = _words(low, high, n, rows, blocks * LANES, first, LANES, HIGH)  # [BN, LANES]
    for block in tl.range(first, min(first + run, blocks), num_stages=1):
        lows, highs = ahead, ahead_high
        following = tl.minimum(block + 1, blocks - 1)
        ahead, ahead_high = _words(low, high, n, rows, blocks * LANES, following, LANES, HIGH)
        for plane in tl.static_range(PLANES):
            codes = _codes(lows, highs, plane, LOW, HIGH)
            at = codes[:, :, None] * PADDED + tl.arange(0, PADDED)[None, None, :]
            words = tl.load(book + at)  # [BN, LANES, PADDED]
            k = ((block * PLANES + plane) * LANES + lane) * DIM + element
            known = (element < DIM) & (k < width)
            some = _inputs(x, r_in, k, known, tokens, width, BM, NORM_IN, DTYPE)  # [LANES * PADDED, BM]
            if BM == 1:
                acc += tl.sum(words.to(tl.float32) * some.reshape(1, LANES, PADDED), 2)
            else:
                acc = tl.dot(words.reshape(BN, LANES * PADDED), some, acc)
    if BM == 1:
        acc = tl.sum(acc, 1, keep_dims=True)
    _store(y, acc, r_out, n, rows, tokens, BM, NORM_OUT, PARTS)


def matmul(x: Tensor, prepared: CodebookWords) -> Tensor:
    """x [tokens <= 16, in] float16 or bfloat16, contiguous, to [tokens, out] in its dtype.

    Codewords are rounded to the dtype of x, and so is x * r_in; sums are float32, and r_out comes last.
    """
    weight, words, r_in, r_out = prepared.weight, prepared.words, prepared.weight.r_in, prepared.weight.r_out
    rows, width = weight.shape
    launch = plan(x, rows, words, (ONE_TOKEN, FEW_TOKENS), x.dtype)
    y = x.new_empty(len(x), rows)
    found = partial(y, launch.parts)
    _codebook[launch.grid](
        x,
        *pointers(words),
        prepared.computed,
        x if r_in is None else r_in,
        x if r_out is None else r_out,
        found,
        *(len(x), rows, width, words.blocks, launch.run),
        DIM=weight.codebook.shape[1],
        PADDED=prepared.computed.shape[1],
        LOW=words.low_bits,
        HIGH=words.high_bits,
        NORM_IN=r_in is not None,
        NORM_OUT=r_out is not None,
        **launch.constants,
    )
    return add_parts(found, y, r_out)
