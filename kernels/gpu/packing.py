"""Codes to bytes and back, and the weights that a mask keeps, each in one pass.

The references are in `kernels.packing` and `kernels.sparse`; results are the same, bit for bit.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

BYTES, CODES, WARPS = 1024, 1024, 4  # of a program that packs, or unpacks: eight a thread
KEPT, KEPT_WARPS = 1024, 8  # weights of a program of `_write_kept`: few a thread, so that a warp writes one run
GROUPED = 1024  # weights of a program of `_write_groups`


def pack(codes: Tensor, bits: int, known_to_fit: bool = False) -> tuple[Tensor, bool]:
    """Numbers [rows, width] to uint8 [rows, ceil(width * bits / 8)], and whether each is in [0, 2^bits).

    Codes may be bool or of any whole or floating dtype, and need not be contiguous. bits is 1 to 16. Codes that
    are known to fit are not looked at again, which spares the host a wait.
    """
    rows, width = codes.shape
    packed = torch.empty(rows, triton.cdiv(width * bits, 8), dtype=torch.uint8, device=codes.device)
    if not packed.numel():
        return packed, True
    sure = known_to_fit or codes.dtype == torch.bool or (codes.dtype == torch.uint8 and bits >= 8)
    misfit = packed if sure else torch.zeros(1, dtype=torch.int32, device=codes.device)
    given = codes.view(torch.uint8) if codes.dtype == torch.bool else codes
    sizes = width, packed.shape[1], packed.numel(), *codes.stride()
    _pack[(triton.cdiv(packed.numel(), BYTES),)](
        given, packed, misfit, *sizes, BITS=bits, PARTS=_parts(8, bits), CHECKED=not sure, BN=BYTES,
        num_warps=WARPS,
    )  # fmt: skip
    return packed, sure or not int(misfit)


def unpack(packed: Tensor, bits: int, width: int) -> Tensor:
    """uint8 [rows, ceil(width * bits / 8)] to int32 codes [rows, width]. bits is 1 to 16."""
    packed = packed.contiguous()
    codes = torch.empty(len(packed), width, dtype=torch.int32, device=packed.device)
    if codes.numel():
        sizes = width, packed.shape[1], codes.numel()
        grid = (triton.cdiv(codes.numel(), CODES),)
        _unpack[grid](packed, codes, *sizes, BITS=bits, PARTS=_parts(bits, 8), BN=CODES, num_warps=WARPS)
    return codes


def kept(weight: Tensor, keep: Tensor) -> Tensor:
    """The weights [kept], in row order, where the boolean keep is set; both have one shape."""
    mask, programs = keep.contiguous().view(torch.uint8), triton.cdiv(keep.numel(), KEPT)
    if not programs:
        return weight.new_empty(0)
    counts = torch.empty(programs, dtype=torch.int32, device=weight.device)
    _count_kept[(programs,)](mask, counts, mask.numel(), BN=KEPT, num_warps=WARPS)
    ends = counts.cumsum(0, dtype=torch.int64)
    values = weight.new_empty(int(ends[-1]))
    _write_kept[(programs,)](weight.contiguous(), mask, ends, values, mask.numel(), BN=KEPT, num_warps=KEPT_WARPS)
    return values


def kept_of_groups(weight: Tensor, keep: Tensor, count: int, of: int) -> tuple[Tensor, Tensor, Tensor]:
    """What a mask keeps of each `of` consecutive weights: values and uint8 places in their groups, both [kept].

    The third, int32 [1], is not zero where a group does not keep `count`: the others are then not to be used.
    `of`, of at most 256, divides the number of weights.
    """
    groups, width = weight.numel() // of, triton.next_power_of_2(of)
    values = weight.new_empty(groups * count)
    places = torch.empty(groups * count, dtype=torch.uint8, device=weight.device)
    irregular = torch.zeros(1, dtype=torch.int32, device=weight.device)
    if groups:
        mask, each = keep.contiguous().view(torch.uint8), GROUPED // width
        _write_groups[(triton.cdiv(groups, each),)](
            weight.contiguous(), mask, values, places, irregular, groups, COUNT=count, OF=of, BM=each, BN=width,
            num_warps=WARPS,
        )  # fmt: skip
    return values, places, irregular


def _parts(span: int, bits: int) -> int:
    """The most units of `bits` bits that `span` bits overlap, where spans and units tile one stream."""
    return -(-(span + bits - math.gcd(span, bits)) // bits)


@triton.jit
def _rows_of(first, width, BN: tl.constexpr):
    """The rows int64 [BN] and places int32 [BN] of BN elements from the `first` of a matrix [rows, width]."""
    row = first // width
    at = (first - row * width).to(tl.int32) + tl.arange(0, BN)
    return row + at // width, at % width


@triton.jit
def _pack(
    codes, packed, misfit, width, stored, size, row_stride, column_stride,
    BITS: tl.constexpr, PARTS: tl.constexpr, CHECKED: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(0).to(tl.int64) * BN
    row, byte = _rows_of(first, stored, BN)
    inside = first + tl.arange(0, BN) < size
    start = 8 * (byte % BITS)  # bits of its block before the byte: BITS bytes hold 8 codes
    code = start // BITS
    column = byte // BITS * 8 + code
    value = tl.zeros([BN], tl.int32)
    wrong = tl.zeros([BN], tl.int32)
    for part in tl.static_range(PARTS):
        above = (code + part) * BITS - start  # bits from the start of the byte to that of the code, or less than 0
        known = inside & (column + part < width) & (above < 8)
        at = row * row_stride + (column + part).to(tl.int64) * column_stride
        found = tl.load(codes + at, mask=known, other=0)
        if CHECKED:
            number = found if found.dtype.is_floating() else found.to(tl.int64)
            fits = (number > -1) & (number < (1 << BITS))  # as a whole number; NaN does not fit
            wrong |= fits.to(tl.int32) ^ 1
            found = tl.where(fits, found, 0)  # what no int32 holds has no defined value there
        value |= (found.to(tl.int32) << 8) >> tl.maximum(8 - above, 0)
    tl.store(packed + first + tl.arange(0, BN), (value & 0xFF).to(tl.uint8), mask=inside)
    if CHECKED:
        any_wrong = tl.max(wrong)
        tl.store(misfit, any_wrong, mask=any_wrong > 0)


@triton.jit
def _unpack(packed, codes, width, stored, size, BITS: tl.constexpr, PARTS: tl.constexpr, BN: tl.constexpr):
    first = tl.program_id(0).to(tl.int64) * BN
    row, column = _rows_of(first, width, BN)
    inside = first + tl.arange(0, BN) < size
    start = column % 8 * BITS  # bits of its block before the code
    byte = column // 8 * BITS + start // 8
    value = tl.zeros([BN], tl.int32)
    for part in tl.static_range(PARTS):
        known = inside & (byte + part < stored)
        value |= tl.load(packed + row * stored + byte + part, mask=known, other=0).to(tl.int32) << (8 * part)
    value = (value >> start % 8) & ((1 << BITS) - 1)
    tl.store(codes + first + tl.arange(0, BN), value, mask=inside)


@triton.jit
def _count_kept(mask, counts, size, BN: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BN + tl.arange(0, BN)
    tl.store(counts + tl.program_id(0), tl.sum(tl.load(mask + at, mask=at < size, other=0).to(tl.int32)))


@triton.jit
def _write_kept(weight, mask, ends, values, size, BN: tl.constexpr):
    """ends int64 [programs] are the numbers kept up to the end of each program's weights."""
    at = tl.program_id(0).to(tl.int64) * BN + tl.arange(0, BN)  # [BN]
    one = tl.load(mask + at, mask=at < size, other=0).to(tl.int32)
    before = tl.load(ends + tl.program_id(0)) - tl.sum(one)
    found = tl.load(weight + at, mask=one > 0)
    tl.store(values + before + tl.cumsum(one) - one, found, mask=one > 0)


@triton.jit
def _write_groups(
    weight, mask, values, places, irregular, groups,
    COUNT: tl.constexpr, OF: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)  # [BM]
    slot = tl.arange(0, BN)[None, :]
    inside = (group < groups)[:, None] & (slot < OF)  # [BM, BN]
    at = group[:, None] * OF + slot
    one = tl.load(mask + at, mask=inside, other=0).to(tl.int32)
    rank = tl.cumsum(one, 1) - one
    found = (one > 0) & (rank < COUNT)
    to = group[:, None] * COUNT + rank
    tl.store(values + to, tl.load(weight + at, mask=found), mask=found)
    tl.store(places + to, tl.broadcast_to(slot, [BM, BN]).to(tl.uint8), mask=found)
    wrong = tl.max(((tl.sum(one, 1) != COUNT) & (group < groups)).to(tl.int32))
    tl.store(irregular, wrong, mask=wrong > 0)
