"""Random weights, inputs, statistics and compressed weights with the structure of real ones; never zeros."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from kernels import e8p, hadamard
from kernels.format import Format
from kernels.lattice import RESIDUALS, Lattice
from kernels.packing import pack
from kernels.quantized import Codebook, GroupedInt
from kernels.sparse import Dense, Masked, NMSparse
from methods.statistics import Accumulator, Statistic, Statistics

BATCH = 2048
TAIL = 0.8
"""Standard deviation of the logarithm of norms: the largest of 4096 is some twenty times the median."""

SIZE = 0.02
"""Root mean square of a weight."""


def generator(device: torch.device, seed: int = 0) -> Generator:
    """A seeded source of random numbers on a device."""
    return Generator(device).manual_seed(seed)


def weight(rows: int, width: int, rng: Generator) -> Tensor:
    """W [rows, width] float16 with rows and columns of different norms."""
    spread: Tensor = SIZE * _norms(rows, 0.3, rng)[:, None] * _norms(width, 0.3, rng)
    return (_normal((rows, width), rng) * spread).half()


def mixing(width: int, rng: Generator) -> Tensor:
    """A [width, width] that turns independent inputs into correlated ones of very different norms."""
    independent = torch.eye(width, device=rng.device)
    return independent.add_(_normal((width, width), rng), alpha=width**-0.5).mul_(_norms(width, TAIL, rng))


def statistics(width: int, rng: Generator, needs: Statistic) -> Statistics:
    """Those of 2 * width tokens of X = Z A."""
    gathered, mix = Accumulator(needs, width, rng.device), mixing(width, rng)
    for start in range(0, 2 * width, BATCH):
        gathered.add(_normal((min(BATCH, 2 * width - start), width), rng) @ mix)
    return gathered.finish()


def _normal(shape: tuple[int, ...], rng: Generator) -> Tensor:
    return torch.randn(shape, generator=rng, device=rng.device)


def _norms(length: int, spread: float, rng: Generator) -> Tensor:
    return (spread * _normal((length,), rng)).exp()


def _codes(rows: int, width: int, bits: int, rng: Generator) -> Tensor:
    return pack(torch.randint(2**bits, (rows, width), generator=rng, device=rng.device), bits)


def dense(rows: int, width: int, rng: Generator) -> Format:
    """A weight as it came, float16."""
    return Dense((rows, width), weight(rows, width, rng))


def grouped(bits: int, group: int) -> Callable[[int, int, Generator], Format]:
    """Codes on grids of `group` inputs with zero points."""

    def draw(rows: int, width: int, rng: Generator) -> Format:
        groups = -(-width // group)
        scale = (SIZE / 2 ** (bits - 2) * _norms(rows * groups, 0.3, rng)).view(rows, groups).half()
        zeros = _codes(rows, groups, bits, rng)
        return GroupedInt((rows, width), _codes(rows, width, bits, rng), zeros, scale, bits, group)

    return draw


def codebook(bits: int, dim: int) -> Callable[[int, int, Generator], Format]:
    """Codes of `bits` for `dim` inputs each, with norms of rows and columns."""

    def draw(rows: int, width: int, rng: Generator) -> Format:
        codes = _codes(rows, -(-width // dim), bits, rng)
        norms = (_norms(rows, 0.3, rng).half(), (SIZE * _norms(width, TAIL, rng)).half())
        return Codebook((rows, width), codes, _normal((2**bits, dim), rng).half(), *norms)

    return draw


def lattice(bits: int) -> Callable[[int, int, Generator], Format]:
    """Points of E8 and a residual, with the rotations of both sides."""

    def draw(rows: int, width: int, rng: Generator) -> Format:
        groups = -(-width // e8p.DIM)
        residual = _codes(rows, groups, RESIDUALS[bits].bits, rng) if bits in RESIDUALS else None
        sign_in, sign_out = (_codes(1, n, 1, rng) for n in (e8p.DIM * groups, rows))
        order_in, order_out = (hadamard.order(n) for n in (e8p.DIM * groups, rows))
        scale = torch.tensor([SIZE], dtype=torch.float16, device=rng.device)
        codes = _codes(rows, groups, 16, rng)
        return Lattice((rows, width), codes, residual, sign_in, sign_out, scale, None, bits, order_in, order_out)

    return draw


def two_of_four(rows: int, width: int, rng: Generator) -> Format:
    """Two random ones of each four inputs."""
    pairs = torch.combinations(torch.arange(4, device=rng.device))  # [6, 2]
    chosen = pairs[torch.randint(len(pairs), (rows, width // 4), generator=rng, device=rng.device)]
    values = (SIZE * _normal((rows, width // 4, 2), rng)).half()
    return NMSparse((rows, width), values, pack(chosen.view(rows, -1), 2), 2, 4)


def masked(rows: int, width: int, rng: Generator) -> Format:
    """Each weight kept with probability one half."""
    keep = torch.rand((rows, width), generator=rng, device=rng.device) < 0.5
    return Masked.of(weight(rows, width, rng), keep)
