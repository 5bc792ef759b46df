"""x [tokens, n] times a block-diagonal of P1 ⊗ P2, with signs before or after: one launch for a few tokens.

A block of a token's inputs is X [a, b], and P1ᵀ X P2 is what it becomes. A program makes some columns of that.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

TOKENS = 16  # beyond so many, products of all tokens at once read the factors less often
LARGEST = 256  # of a, whose rows one program holds
INNER, COLUMNS, WARPS = 32, 16, 4  # what a product sums over, and columns of a program


@triton.jit
def _turn(
    x, signs, first, second, y, n, a, b, first_row, first_column, second_row, second_column,
    BEFORE: tl.constexpr, A: tl.constexpr, K: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """x, y [tokens, n], signs [n], first [a, a] and second [b, b] by strides; A >= a."""
    block = tl.program_id(1) * a * b
    start = tl.program_id(0).to(tl.int64) * n + block
    column = tl.program_id(2) * BN + tl.arange(0, BN)
    row = tl.arange(0, A)
    turned = tl.full([A, BN], 0.0, tl.float32)
    for top in range(0, a, K):
        upper = top + tl.arange(0, K)
        half = tl.full([K, BN], 0.0, tl.float32)
        for left in range(0, b, K):
            inner = left + tl.arange(0, K)
            at = upper[:, None] * b + inner[None, :]  # [K, K]
            inside = (upper < a)[:, None] & (inner < b)[None, :]
            tokens = tl.load(x + start + at, mask=inside, other=0.0).to(tl.float32)
            if BEFORE:
                tokens *= tl.load(signs + block + at, mask=inside, other=0.0)
            at = inner[:, None] * second_row + column[None, :] * second_column  # [K, BN]
            inside = (inner < b)[:, None] & (column < b)[None, :]
            factor = tl.load(second + at, mask=inside, other=0.0)
            half = tl.dot(tokens, factor, half, input_precision="ieee")  # [K, BN]
        at = row[:, None] * first_column + upper[None, :] * first_row  # [A, K]
        inside = (row < a)[:, None] & (upper < a)[None, :]
        factor = tl.load(first + at, mask=inside, other=0.0)
        turned = tl.dot(factor, half, turned, input_precision="ieee")  # [A, BN]
    at = row[:, None] * b + column[None, :]  # [A, BN]
    inside = (row < a)[:, None] & (column < b)[None, :]
    if not BEFORE:
        turned *= tl.load(signs + block + at, mask=inside, other=0.0)
    tl.store(y + start + at, turned, mask=inside)


def fits(x: Tensor, parts: tuple[Tensor, ...]) -> bool:
    """Whether `turn` takes x [..., n] and these parts."""
    few = 0 < x.numel() <= TOKENS * x.shape[-1] and not x.requires_grad
    return few and len(parts) == 2 and len(parts[0]) <= LARGEST


def turn(x: Tensor, signs: Tensor, parts: tuple[Tensor, ...], before: bool) -> Tensor:
    """(x * signs) V where `before`, else (x V) * signs: float32 [..., n] for x [..., n] of any float dtype.

    signs [n] float32; V is the block-diagonal of parts[0] ⊗ parts[1], square and float32.
    """
    (a, b), n, x = map(len, parts), x.shape[-1], x.contiguous()
    y = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    grid = (x.numel() // n, n // (a * b), triton.cdiv(b, COLUMNS))
    strides = *parts[0].stride(), *parts[1].stride()
    padded = max(triton.next_power_of_2(a), COLUMNS)
    sizes = {"BEFORE": before, "A": padded, "K": INNER, "BN": COLUMNS, "num_warps": WARPS, "num_stages": 1}
    _turn[grid](x, signs, *parts, y, n, a, b, *strides, **sizes)
    return y
