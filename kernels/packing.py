"""Codes of 1 to 16 bits <-> bytes: a little-endian bit stream that starts anew, on a byte, at each row.

Eight codes of b bits fill b bytes exactly, so one block of eight is all the arithmetic there is. The bits
that round a row up to whole bytes are zero; they are stored, hence counted.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from kernels.backend import fused

BLOCK = 8


def row_bytes(width: int, bits: int) -> int:
    """Bytes of one packed row of `width` codes. ValueError unless bits is 1 to 16."""
    if not 1 <= bits <= 16:
        raise ValueError(f"codes of {bits} bits cannot be packed: bits must be 1 to 16")
    return -(-width * bits // 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Whole numbers [rows, width], each in [0, 2^bits), to uint8 [rows, ceil(width * bits / 8)].

    ValueError when a code does not fit, or bits is not 1 to 16.
    """
    rows, width = codes.shape
    stored = row_bytes(width, bits)
    if fused(codes):
        from kernels.gpu.packing import pack

        packed, fit = pack(codes, bits)
        if not fit:
            _refuse_misfits(codes, bits)
        return packed
    _refuse_misfits(codes, bits)
    blocks = functional.pad(codes.to(torch.int32), (0, -width % BLOCK)).view(rows, -1, BLOCK)
    packed = codes.new_zeros(rows, blocks.shape[1], bits, dtype=torch.uint8)
    for code, byte, shift in _overlaps(bits):
        part = blocks[..., code] << shift if shift >= 0 else blocks[..., code] >> -shift
        packed[..., byte] |= (part & 0xFF).to(torch.uint8)
    return packed.view(rows, -1)[:, :stored].contiguous()


def unpack(packed: Tensor, bits: int, width: int) -> Tensor:
    """The inverse of `pack`: uint8 [rows, ceil(width * bits / 8)] to int32 codes [rows, width].

    ValueError when the bytes of a row are not those of `width` codes.
    """
    rows, stored = packed.shape
    if stored != row_bytes(width, bits):
        wanted = row_bytes(width, bits)
        raise ValueError(f"{width} codes of {bits} bits take {wanted} bytes a row, these rows have {stored}")
    if fused(packed):
        from kernels.gpu.packing import unpack

        return unpack(packed, bits, width)
    count = -(-width // BLOCK)
    blocks = functional.pad(packed, (0, count * bits - stored)).view(rows, count, bits)
    codes = packed.new_zeros(rows, count, BLOCK, dtype=torch.int32)
    for code, byte, shift in _overlaps(bits):
        part = blocks[..., byte].to(torch.int32)
        codes[..., code] |= part >> shift if shift >= 0 else part << -shift
    codes &= 2**bits - 1
    return codes.view(rows, -1)[:, :width]


def _refuse_misfits(codes: Tensor, bits: int) -> None:
    if not codes.numel() or codes.dtype == torch.bool:
        return
    lowest, highest = int(codes.min()), int(codes.max())
    if not 0 <= lowest <= highest < 2**bits:
        raise ValueError(f"codes run from {lowest} to {highest}: {bits} bits hold 0 to {2**bits - 1}")


def _overlaps(bits: int) -> Iterator[tuple[int, int, int]]:
    """Each (code, byte, shift) of a block that share bits; the code starts `shift` bits above the byte."""
    for code in range(BLOCK):
        first, last = code * bits, code * bits + bits - 1
        for byte in range(first // 8, last // 8 + 1):
            yield code, byte, first - 8 * byte
