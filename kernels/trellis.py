"""Trellis-coded quantisation (QTIP, arXiv:2406.11235): a tile of 16 x 16 weights is one cyclic walk of 256 steps.

A state is a number of L bits. A step shifts k = `bits` new ones in from below, and the weight is the value of the
new state, which is computed from its number: no codebook is stored. A walk ends where it began, so that its 256
states are the windows of L bits of one cyclic stream of 256 k bits, which is all that a tile takes.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from kernels.backend import fused
from kernels.cpu import compiled
from kernels.format import BYTES, Format, Part
from kernels.packing import pack, row_bytes, unpack
from kernels.turns import Turns, rotated_layout

EDGE = 16
"""Rows and columns of a tile."""

LENGTH = EDGE * EDGE
"""Steps of a walk: the weights of a tile, row by row."""

BITS, FEWEST_STATE_BITS, MOST_STATE_BITS = (2, 3, 4), 8, 16

Code = Literal["1mad", "3inst"]
"""How a state becomes a number that is nearly Gaussian: the computed codes of the paper."""

TOGETHER = 32
"""Walks that plain PyTorch searches for at once: their choices take 4 MB each at 2 bits and 16 bits a state."""

WORD = 2**32 - 1
HALVES, TWO_MAGIC = 0x8FFF8FFF, 0x3B603B60
"""The bits that stay random of two halves: sign, mantissa and two of the exponent; and 0.922 twice."""


class Affine(NamedTuple):
    """The linear congruence a x + b modulo 2^32 that scrambles a state x."""

    a: int
    b: int

    def __call__(self, states: Tensor) -> Tensor:
        """int64 [...] below 2^16 to int64 [...] below 2^32."""
        return states * self.a + self.b & WORD


SCRAMBLERS: dict[Code, Affine] = {"1mad": Affine(34038481, 76625530), "3inst": Affine(89226354, 64248484)}


def _four_bytes(words: Tensor) -> Tensor:
    """The sum of the four bytes."""
    return sum((words >> shift & 0xFF for shift in (8, 16, 24)), words & 0xFF).float()


def _two_halves(words: Tensor) -> Tensor:
    """The sum of two numbers in half precision, made of the two halves of a word: exact in float32."""
    words = words & HALVES ^ TWO_MAGIC
    halves = torch.stack((words & 0xFFFF, words >> 16))
    return halves.to(torch.uint16).view(torch.float16).float().sum(0)


SUMS: dict[Code, Callable[[Tensor], Tensor]] = {"1mad": _four_bytes, "3inst": _two_halves}


@dataclass(frozen=True)
class Bitshift:
    """A trellis: `bits` a weight, 2^state_bits states, and the code that gives them their values.

    As a `Quantize` of `kernels.ldlq` it takes blocks of 16 columns. ValueError for settings out of range.
    """

    bits: int
    state_bits: int
    code: Code

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise ValueError(f"a trellis takes 2, 3 or 4 bits, got {self.bits}")
        if not FEWEST_STATE_BITS <= self.state_bits <= MOST_STATE_BITS:
            allowed = f"{FEWEST_STATE_BITS} to {MOST_STATE_BITS}"
            raise ValueError(f"a state of a trellis has {allowed} bits, got {self.state_bits}")
        if self.code not in SUMS:
            raise ValueError(f"the code of a trellis is {' or '.join(get_args(Code))}, got {self.code!r}")

    @property
    def overlaps(self) -> int:
        """How many states a step can start from, but for the bits that it shifts out."""
        return 1 << self.state_bits - self.bits

    def values(self, device: torch.device) -> Tensor:
        """The value of each state [2^L], float32, of mean 0 and variance 1 over all states, to rounding."""
        return _values(self.code, self.state_bits, device)

    def search(self, x: Tensor) -> Tensor:
        """x [n, 256] float32 to the states int32 [n, 256] of cyclic walks near it.

        The walk of least error of all is not sought, as that takes a search for each overlap: what the best open
        walk over x rotated by half passes in the middle is where the second search starts and ends, as the paper
        has it. Kernels may round costs otherwise, and so decide a near tie otherwise.
        """
        if fused(x):
            from kernels.gpu import trellis

            if trellis.usable(self, x.device):
                return trellis.search(self, x)
        if compiled(x):
            from kernels.cpu import trellis as loops

            return loops.search(self, x)
        return torch.cat([self._cyclic(part) for part in torch.split(x, TOGETHER)])

    def _cyclic(self, x: Tensor) -> Tensor:
        """`search` in plain PyTorch."""
        half = LENGTH // 2
        open_walk = self._walk(x.roll(half, 1), None)
        return self._walk(x, open_walk[:, half] >> self.bits)

    def _walk(self, x: Tensor, overlap: Tensor | None) -> Tensor:
        """The states int32 [n, steps] of least Σ (x - value)², from and to an overlap [n], or from any to any.

        Viterbi's algorithm. States that differ in the bits that a step shifts out go on alike, so that the least
        cost of each 2^k of them is all that a step needs of the one before.
        """
        table = self.values(x.device).view(-1, self.overlaps)  # [2^k, 2^(L - k)], the bits to be shifted out first
        least = x.new_zeros(len(x), self.overlaps)
        if overlap is not None:
            least.fill_(torch.inf).scatter_(1, overlap[:, None].long(), 0)
        back = []
        for target in x.unbind(1):
            reached = least.repeat_interleave(len(table), 1).view(len(x), *table.shape)
            least, shifted_out = (reached + (target[:, None, None] - table).square()).min(1)
            back.append(shifted_out.to(torch.uint8))
        at = least.argmin(1) if overlap is None else overlap.long()
        states = []
        for shifted_out in reversed(back):
            top = shifted_out.gather(1, at[:, None])[:, 0].long()
            states.append(at + top * self.overlaps)
            at = states[-1] >> self.bits
        return torch.stack(states[::-1], 1).to(torch.int32)

    def states(self, codes: Tensor) -> Tensor:
        """The new bits of each step [n, 256] to the states [n, 256]."""
        states = torch.zeros_like(codes)
        for steps in range(-(-self.state_bits // self.bits)):
            states |= codes.roll(steps, 1) << steps * self.bits
        return states & (1 << self.state_bits) - 1

    def decode(self, codes: Tensor) -> Tensor:
        """The new bits of each step int [n, 256] to weights [n, 256] in float32."""
        return self.values(codes.device)[self.states(codes)]

    def __call__(self, targets: Tensor, block: int) -> tuple[Tensor, Tensor]:
        """targets [rows, 16] float32 to codes int32 [rows / 16, 256] and their values [rows, 16]."""
        states = self.search(targets.reshape(-1, LENGTH))
        return states & 2**self.bits - 1, self.values(targets.device)[states].view(targets.shape)


@functools.cache
def sums(code: Code, state_bits: int) -> Tensor:
    """What each state's value is before it is standardised [2^L]: float32, exact."""
    return SUMS[code](SCRAMBLERS[code](torch.arange(2**state_bits)))


@functools.cache
def moments(code: Code, state_bits: int) -> tuple[float, float]:
    """Mean and standard deviation of `sums`, over all states, as float32 rounds them."""
    each = sums(code, state_bits).double()
    mean, deviation = torch.stack((each.mean(), each.std(correction=0))).float().tolist()
    return mean, deviation


@functools.cache
def _values(code: Code, state_bits: int, device: torch.device) -> Tensor:
    """Made on the CPU whatever the device, so that a stored weight decodes to the same bits everywhere."""
    mean, deviation = moments(code, state_bits)
    return ((sums(code, state_bits) - mean) / deviation).to(device)


@dataclass(frozen=True, eq=False)
class Trellis(Format):
    """W = scale * turned back (values) / rescale, without the outputs and inputs that padded it to whole tiles.

    codes [tiles, 32 * bits] are the 256 steps of a tile, `bits` each; tiles follow one another along the inputs,
    then along the outputs. Signs, rotations and factors are those of `kernels.turns`.
    """

    name: ClassVar[str] = "trellis"
    codes: Tensor
    sign_in: Tensor
    sign_out: Tensor
    scale: Tensor
    rescale: Tensor | None
    bits: int
    state_bits: int
    code: Code
    order_in: int
    order_out: int

    @classmethod
    def of(cls, shape: tuple[int, int], codes: Tensor, trellis: Bitshift, side: dict[str, Any]) -> "Trellis":
        """A weight of codes [out / 16, in / 16, 256], both rounded up; `side` is all that concerns rotations."""
        packed = pack(codes.flatten(0, 1), trellis.bits)
        return cls(shape, packed, **side, bits=trellis.bits, state_bits=trellis.state_bits, code=trellis.code)

    def layout(self) -> dict[str, Part]:
        return self.planned(self.shape, self.trellis, self.rescale is not None)

    @classmethod
    def planned(cls, shape: tuple[int, int], trellis: Bitshift, rescaled: bool) -> dict[str, Part]:
        """The layout of a weight (out, in), with a factor for each input if it was rescaled."""
        rows, width = padded(shape)
        codes = Part(BYTES, (rows * width // LENGTH, row_bytes(LENGTH, trellis.bits)), "codes")
        return {"codes": codes, **rotated_layout((rows, width), shape[1] if rescaled else None)}

    @property
    def trellis(self) -> Bitshift:
        """What decodes the codes."""
        return Bitshift(self.bits, self.state_bits, self.code)

    def values(self) -> Tensor:
        """The walks' values [out, in], both whole tiles, in float32."""
        rows, width = padded(self.shape)
        found = self.trellis.decode(unpack(self.codes, self.bits, LENGTH))
        tiles = found.view(rows // EDGE, width // EDGE, EDGE, EDGE)
        return tiles.transpose(1, 2).reshape(rows, width)

    def dequantize(self) -> Tensor:
        turns = Turns.stored(padded(self.shape), (self.sign_out, self.sign_in), (self.order_out, self.order_in))
        weight = turns.back(self.values())[: self.shape[0], : self.shape[1]] * self.scale.float()
        return (weight if self.rescale is None else weight / self.rescale.float()).contiguous()

    @property
    def nominal_bits(self) -> float:
        return float(self.bits)


def padded(shape: tuple[int, int]) -> tuple[int, int]:
    """A shape (out, in), both rounded up to whole tiles."""
    return -(-shape[0] // EDGE) * EDGE, -(-shape[1] // EDGE) * EDGE
