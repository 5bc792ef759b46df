"""y = x Wᵀ for 1 to 8 tokens straight from codes, in CUDA C++ (decode.cu, matvec.cu): Triton measurably loses.

Weights are put in another order once, `Layout`, of the same bits but for rows padded to 16 and inputs to a unit.
"""

import functools
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from kernels import e8p, lattice
from kernels.format import Format
from kernels.gpu import nvrtc
from kernels.lattice import Lattice
from kernels.packing import pack, unpack
from kernels.quantized import Codebook, GroupedInt

logger = logging.getLogger(__name__)

SOURCES = tuple(Path(__file__).with_name(name) for name in ("decode.cu", "matvec.cu"))
TOKENS = 8
"""Most tokens of a launch: the width of a product of the tensor cores."""

WARPS, TEAMS = 32, 8
"""Warps of a block, and the most tiles that they share among them: barriers are numbered."""

GRID, CODEBOOK, LATTICE, SHORT = range(4)
TYPES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2}
BOOKS = {(2, 8), (4, 8), (4, 12), (6, 12), (8, 8), (8, 12)}
"""The codebooks that matvec.cu can take: dim, bits of a code. Larger ones do not fit in shared memory."""


@dataclass(frozen=True)
class Kind:
    """What a kernel is compiled for."""

    format: int
    bits: int
    dim: int = 8
    groups: int = 1

    @property
    def unit(self) -> int:
        """Inputs of a unit: eight codes of a lane, or 32 inputs."""
        return 32 * self.dim if self.format == CODEBOOK else 128

    @property
    def table_bytes(self) -> int:
        """Shared memory for the codebook or the points, with its copies."""
        if self.format == CODEBOOK:
            return int(2**self.bits) * 2 * self.dim * (16 if (self.dim, self.bits) == (4, 8) else 1)
        return 0 if self.format == GRID else 256 * 16 * 8

    def shared_bytes(self, tokens: int, units: int) -> int:
        """Shared memory of a block: the table, the inputs as halves, their sums by group, and the warps' sums."""
        inputs = 2 * tokens * (units * self.unit + 32)
        return self.table_bytes + inputs + 4 * tokens * (units * 2 * self.groups + 16 * WARPS) + 2 * self.unit


@dataclass(frozen=True, eq=False)
class Layout:
    """Codes int32 [tiles, units, words, 32, 2], a table of halves, scales with zeros [tiles, groups, 8, 4], norms.

    y = factor * (r_out * (x * r_in) Vᵀ) for the decoded V; r_in is at most 1. `span` units share their scales.
    """

    kind: Kind
    shape: tuple[int, int]
    codes: Tensor
    table: Tensor | None = None
    scales: Tensor | None = None
    span: int = 1
    r_in: Tensor | None = None
    r_out: Tensor | None = None
    factor: float = 1.0

    def __call__(self, x: Tensor, dtype: torch.dtype, before: Tensor | None = None) -> Tensor:
        """x [tokens, in] of any floating dtype, contiguous, to y [tokens, out]; `before`, float32, is added to it.

        x is rounded to half precision, in a scale of its own.
        """
        y = torch.empty(len(x), self.shape[0], dtype=dtype, device=x.device)
        for at in range(0, len(x), self.most_tokens):
            part = slice(at, at + self.most_tokens)
            self._launch(x[part], None if before is None else before[part], y[part])
        return y

    @functools.cached_property
    def most_tokens(self) -> int:
        """Tokens of a launch: as many as fit in shared memory; 0 if not even one does."""
        units, limit = self.codes.shape[1], nvrtc.most_shared_bytes(self.codes.device)
        return max((n for n in range(1, TOKENS + 1) if self.kind.shared_bytes(n, units) <= limit), default=0)

    def _launch(self, x: Tensor, before: Tensor | None, y: Tensor) -> None:
        (rows, inputs), tokens, units = self.shape, len(x), self.codes.shape[1]
        properties = torch.cuda.get_device_properties(x.device)
        tiles = -(-rows // 16)
        grid = min(tiles, properties.multi_processor_count)
        teams = min(TEAMS, -(-tiles // grid))
        splits = WARPS // teams
        groups = 1 if self.scales is None else self.scales.shape[1]
        kernel = _kernel(self.kind, x.dtype, y.dtype, x.device.index or 0)
        tensors = self.codes, self.table, self.scales, x, self.r_in, self.r_out, before, y
        share, team_of = -(-(1 << 20) // self.span), -(-(1 << 16) // splits)
        numbers = self.factor, rows, inputs, tokens, units, groups, share, splits, team_of
        with torch.cuda.device(x.device):
            kernel(grid, 32 * WARPS, self.kind.shared_bytes(tokens, units), (*tensors, *numbers))


@functools.cache
def _kernel(kind: Kind, x: torch.dtype, y: torch.dtype, device: int) -> nvrtc.Kernel:
    defines = {
        "FORMAT": kind.format,
        "BITS": kind.bits,
        "DIM": kind.dim,
        "GROUPS": kind.groups,
        "THREADS": 32 * WARPS,
        "X_TYPE": TYPES[x],
        "Y_TYPE": TYPES[y],
    }
    return nvrtc.Kernel(SOURCES, "matvec", [f"{name}={value}" for name, value in defines.items()], device)


@functools.cache
def usable(device: torch.device) -> bool:
    """Whether these kernels run on a GPU: Ampere or later, with the bindings that come with PyTorch."""
    if not nvrtc.available() or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        _kernel(Kind(GRID, 2), torch.float16, torch.float16, device.index or 0)
    except (RuntimeError, ImportError) as error:
        logger.warning("%s: CUDA C++ cannot be compiled, Triton is used: %s", device, str(error).splitlines()[0])
        return False
    return True


def multiply(x: Tensor, parts: tuple[Layout, ...], dtype: torch.dtype) -> Tensor:
    """x [tokens, in], contiguous, times the sum of the parts [tokens, out]."""
    if x.data_ptr() % 8:  # part of a larger tensor; inputs are read in pairs
        x = x.clone()
    total: Tensor | None = None
    for part in parts[1:]:
        total = part(x, torch.float32, total)
    return parts[0](x, dtype, total)


def layouts(weight: Format) -> tuple[Layout, ...] | None:
    """What the kernels need of a weight, or None where they cannot take it. A lattice has two at 3 and 4 bits.

    That of a lattice is of its points alone, times the scale: rotations and input scales are the caller's.
    """
    if isinstance(weight, Lattice):
        return _points(weight)
    if weight.shape[1] % 2:
        return None  # inputs are read in pairs
    if isinstance(weight, GroupedInt):
        return _grid(weight)
    return _book(weight) if isinstance(weight, Codebook) else None


def _grid(weight: GroupedInt) -> tuple[Layout, ...] | None:
    size, bits = weight.group_size, weight.bits
    if (
        bits not in (2, 3, 4)
        or weight.scale.dtype != torch.float16
        or (size and size not in (32, 64) and size % 128)
    ):
        return None
    kind = Kind(GRID, bits, groups=128 // size if size and size < 128 else 1)
    codes = _ordered(unpack(weight.codes, bits, weight.shape[1]), 4, 8)
    words = (
        torch.cat([_pairs(codes & 3, 2), _pairs(_third_bits(codes), 1)], -1) if bits == 3 else _pairs(codes, bits)
    )
    units, groups = words.shape[1], weight.scale.shape[1]
    span = size // 128 if size and size >= 128 else 1 if size else units
    wanted = -(-units * kind.groups // span)
    middle = torch.full_like(weight.scale, 2 ** (bits - 1))
    zeros = middle if weight.zeros is None else unpack(weight.zeros, bits, groups).half()
    side = torch.cat([_by_tile(weight.scale, wanted), _by_tile(zeros, wanted)], -1)
    return (Layout(kind, weight.shape, _placed(words), None, side, span, *_norms(weight.r_out, weight.r_in)),)


def _book(weight: Codebook) -> tuple[Layout, ...] | None:
    dim, bits = weight.codebook.shape[1], weight.code_bits
    if (dim, bits) not in BOOKS or weight.codebook.dtype != torch.float16:
        return None
    kind, piece = Kind(CODEBOOK, bits, dim), 12 if dim == 6 else 8
    codes = _ordered(unpack(weight.codes, bits, -(-weight.shape[1] // dim)), 8 * dim // piece, piece // dim)
    words, norms = _placed(_stream(codes, bits)), _norms(weight.r_out, weight.r_in)
    return (Layout(kind, weight.shape, words, weight.codebook.contiguous(), None, 1, *norms),)


def _points(weight: Lattice) -> tuple[Layout, ...]:
    shape, scale = (weight.shape[0], weight.groups * e8p.DIM), float(weight.scale)
    every = torch.arange(256, device=weight.codes.device)
    patterns = e8p.patterns(every.device).half()
    first = Layout(Kind(LATTICE, 16), shape, _lattice_words(weight.codes, weight.groups), patterns, factor=scale)
    if weight.residual is None:
        return (first,)
    book = lattice.RESIDUALS[weight.bits]
    if book.bits == 16:
        again = _lattice_words(weight.residual, weight.groups)
        return first, Layout(first.kind, shape, again, patterns, factor=scale / book.growth)
    words = _placed(_stream(_ordered(unpack(weight.residual, 8, weight.groups), 4, 1), 8))
    return first, Layout(Kind(SHORT, 8), shape, words, book.decode(every).half(), factor=scale / book.growth)


def _lattice_words(codes: Tensor, groups: int) -> Tensor:
    """E8P codes two to a word, their signs where decode.cu moves them to the signs of halves by one shift."""
    c = _ordered(unpack(codes, 16, groups), 4, 1)[..., 0]  # [tiles, units, 32, 2, 4]
    even = sum(((c >> 8 + 2 * k & 1) << k for k in range(4)), torch.zeros_like(c))
    odd = sum(((c >> 9 + 2 * k & 1) << k for k in range(4)), torch.zeros_like(c))  # the last is the shift
    signs = even << 8 | odd << 24
    return _placed(c[..., 0::2] & 0xFF | (c[..., 1::2] & 0xFF) << 16 | signs[..., 0::2] | signs[..., 1::2] << 4)


def _ordered(codes: Tensor, pieces: int, per: int) -> Tensor:
    """Codes [rows, n], padded with zeros, as lanes hold them: [tiles, units, 32, 2, pieces, per]."""
    unit = pieces * 4 * per
    padded = functional.pad(codes, (0, -codes.shape[1] % unit, 0, -len(codes) % 16))
    parts = padded.view(
        len(padded) // 16, 2, 8, -1, pieces, 4, per
    )  # tile, half, row, unit, piece, lane of four, code
    return parts.permute(0, 3, 2, 5, 1, 4, 6).reshape(len(parts), parts.shape[3], 32, 2, pieces, per)


def _stream(codes: Tensor, bits: int) -> Tensor:
    """The codes of a lane and row, one after the other: words int32 [tiles, units, 32, 2, words]."""
    flat = codes.flatten(4)
    return pack(flat.reshape(-1, flat.shape[-1]), bits).view(torch.int32).view(*flat.shape[:-1], -1)


def _pairs(codes: Tensor, bits: int) -> Tensor:
    """Words whose low halves hold the codes of even places and whose high halves those of odd ones."""
    halves = [pack(part.reshape(-1, 16), bits).view(torch.int16) for part in (codes[..., 0::2], codes[..., 1::2])]
    return torch.stack(halves, -1).view(torch.int32).view(*codes.shape[:4], -1)


def _third_bits(codes: Tensor) -> Tensor:
    """The highest bits of 3-bit codes [..., 4, 8], so ordered that a piece has every other bit of a word."""
    pairs = (codes >> 2).view(*codes.shape[:4], 2, 2, 4, 2)  # two of pieces, piece, pair, even or odd
    return pairs.transpose(5, 6).reshape(codes.shape)


def _placed(words: Tensor) -> Tensor:
    """Words [tiles, units, 32, 2, words] so that the lanes' reads lie together: [tiles, units, words, 32, 2]."""
    return words.permute(0, 1, 4, 2, 3).contiguous()


def _by_tile(values: Tensor, groups: int) -> Tensor:
    """Values [rows, groups] to [tiles, `groups`, 8, 2], a row beside the eighth after it; zeros beyond."""
    padded = functional.pad(values, (0, groups - values.shape[1], 0, -len(values) % 16))
    return padded.view(-1, 2, 8, groups).permute(0, 3, 2, 1).contiguous()


def _norms(r_out: Tensor | None, r_in: Tensor | None) -> tuple[Tensor | None, Tensor | None, float]:
    """r_in over its largest, r_out, and that largest: inputs times r_in then stay in the range of halves."""
    most = 1.0 if r_in is None else float(r_in.max()) or 1.0
    return None if r_in is None else r_in.float() / most, None if r_out is None else r_out.float(), most
