"""Orthonormal Hadamard matrices of every order that three constructions reach, and fast products with them.

Sylvester doubles an order; Paley (1933) gives q + 1 for a prime power q = 3 mod 4 and 2 (q + 1) for q = 1 mod 4;
the Kronecker product of two Hadamard matrices is one. Where no order that fits is reached, the transform is
block-diagonal in blocks of the largest that divides the size.
"""

import functools
import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.backend import fused
from kernels.packing import unpack


@functools.cache
def order(size: int, most: int | None = None) -> int:
    """The largest constructible order that divides `size`, and is not above `most`.

    Without `most` it is `size` itself where the transform is full.
    """
    divisors = (d for k in range(1, math.isqrt(size) + 1) if size % k == 0 for d in (k, size // k))
    return max(d for d in divisors if d <= (most or size) and _constructible(d))


@functools.cache
def hadamard(size: int) -> Tensor:
    """A Hadamard matrix [size, size] of +-1, float32. ValueError where none of the constructions gives one."""
    if size == 1:
        return torch.ones(1, 1)
    if size == 2:
        return torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    if pair := _split(size):
        return torch.kron(hadamard(pair[0]), hadamard(pair[1]))
    if found := _paley(size):
        return _paley_matrix(*found)
    raise ValueError(f"no construction for a Hadamard matrix of order {size}")


@functools.cache
def factors(size: int) -> tuple[Tensor, ...]:
    """Orthonormal matrices whose Kronecker product is a Hadamard transform: two of like size, or one."""
    pairs = [(d, size // d) for d in range(2, math.isqrt(size) + 1) if size % d == 0]
    parts = next((pair for pair in reversed(pairs) if _two(*pair)), (size,))
    return tuple(hadamard(part) / math.sqrt(part) for part in parts)


def transform(x: Tensor, parts: tuple[Tensor, ...]) -> Tensor:
    """x [..., n] times the block-diagonal of P1 ⊗ P2 ⊗ …, for square parts Pi whose sizes' product divides n."""
    width = math.prod(len(part) for part in parts)
    for part in reversed(parts):  # each product leaves the axis it was along in front of the others
        size = len(part)
        turned = x.reshape(-1, size) @ part.to(x.device)
        x = turned.view(-1, width // size, size).mT.reshape(x.shape)
    return x


@dataclass(frozen=True, eq=False)
class Rotation:
    """x [..., n] -> (x * signs) V and back, for signs [n] of +-1 and V orthonormal, made of `parts`."""

    signs: Tensor
    parts: tuple[Tensor, ...]

    @classmethod
    def hadamard(cls, signs: Tensor, block: int) -> "Rotation":
        """The randomised Hadamard transform for float32 signs [n], in blocks of an order that divides n."""
        return cls(signs, _factors_on(block, signs.device))

    @classmethod
    def stored(cls, signs: Tensor, size: int, block: int) -> "Rotation":
        """The same for `size` signs packed into [1, bytes], a bit each, set where +1 is."""
        return cls.hadamard(2.0 * unpack(signs, 1, size)[0] - 1, block)

    @property
    def order(self) -> int:
        """That of the matrix which repeats along the diagonal of V."""
        return math.prod(len(part) for part in self.parts)

    def turn(self, x: Tensor) -> Tensor:
        """(x * signs) V."""
        few = self._of_few(x, self.parts, before=True)
        return transform(x * self.signs, self.parts) if few is None else few

    def back(self, x: Tensor) -> Tensor:
        """(x Vᵀ) * signs, the inverse of `turn`."""
        parts = tuple(part.T for part in self.parts)
        few = self._of_few(x, parts, before=False)
        return transform(x, parts) * self.signs if few is None else few

    def _of_few(self, x: Tensor, parts: tuple[Tensor, ...], before: bool) -> Tensor | None:
        """A few tokens on a GPU in one launch, signs and all; None of anything else."""
        if not fused(x):
            return None
        from kernels.gpu.hadamard import fits, turn

        return turn(x, self.signs, parts, before) if fits(x, parts) else None


@functools.cache
def _factors_on(size: int, device: torch.device) -> tuple[Tensor, ...]:
    return tuple(part.to(device) for part in factors(size))


@functools.cache
def _constructible(size: int) -> bool:
    return size in (1, 2) or _split(size) is not None or _paley(size) is not None


@functools.cache
def _split(size: int) -> tuple[int, int] | None:
    """Two constructible orders above 1 of this product; the first is the smallest there is."""
    divisors = (d for d in range(2, math.isqrt(size) + 1) if size % d == 0)
    return next(((d, size // d) for d in divisors if _two(d, size // d)), None)


def _two(first: int, second: int) -> bool:
    return _constructible(first) and _constructible(second)


def _paley(size: int) -> tuple[int, int, bool] | None:
    """(p, k, symmetric): Paley's construction of this order over GF(p^k), the second one where symmetric."""
    for q, residue in ((size - 1, 3), (size // 2 - 1, 1)):
        power = _prime_power(q)
        if size % 4 == 0 and q % 4 == residue and power:
            return *power, residue == 1
    return None


def _prime_power(q: int) -> tuple[int, int] | None:
    """(p, k) with p prime and q = p^k, or None."""
    if q < 2:
        return None
    p = next((d for d in range(2, math.isqrt(q) + 1) if q % d == 0), q)
    k = round(math.log(q, p))
    return (p, k) if p**k == q else None


def _paley_matrix(p: int, k: int, symmetric: bool) -> Tensor:
    jacobsthal = _jacobsthal(p, k)  # [q, q]
    core = torch.ones(len(jacobsthal) + 1, len(jacobsthal) + 1)
    core[0, 0] = 0
    core[1:, 1:] = jacobsthal
    if not symmetric:
        core[1:, 0] = -1
        return core + torch.eye(len(core))
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    return torch.kron(core, signs) + torch.kron(torch.eye(len(core)), torch.tensor([[1.0, -1.0], [-1.0, -1.0]]))


def _jacobsthal(p: int, k: int) -> Tensor:
    """Q [q, q] with Q_ab = chi(a - b), chi being 1 on the squares of GF(p^k), -1 on the others and 0 at zero.

    An element is the number whose digits to base p are its coefficients.
    """
    digits = torch.tensor(list(itertools.product(range(p), repeat=k))).flip(1)  # [q, k], lowest first
    place = p ** torch.arange(k)
    chi = torch.full((p**k,), -1.0)
    chi[(_squares(digits, p) * place).sum(1)] = 1
    chi[0] = 0
    differences = sum(((a[:, None] - a) % p * b for a, b in zip(digits.T, place, strict=True)), torch.tensor(0))
    return chi[differences]


def _squares(digits: Tensor, p: int) -> Tensor:
    """The squares [q, k] of the elements [q, k] of GF(p^k), modulo an irreducible polynomial."""
    k = digits.shape[1]
    tail = _irreducible(p, k)  # x^k = tail
    product = torch.zeros(len(digits), 2 * k - 1, dtype=torch.int64)
    for i, j in itertools.product(range(k), repeat=2):
        product[:, i + j] += digits[:, i] * digits[:, j]
    for degree in range(2 * k - 2, k - 1, -1):
        product[:, degree - k : degree] += product[:, degree : degree + 1] % p * tail
    return product[:, :k] % p


def _irreducible(p: int, k: int) -> Tensor:
    """Coefficients [k], lowest first, of x^k modulo the first monic polynomial of degree k without a divisor."""
    for tail in itertools.product(range(p), repeat=k):
        polynomial = [-c for c in tail] + [1]
        divisors = (d for degree in range(1, k // 2 + 1) for d in itertools.product(range(p), repeat=degree))
        if not any(_divides(divisor, polynomial, p) for divisor in divisors):
            return torch.tensor(tail)
    raise ValueError(f"no irreducible polynomial of degree {k} over GF({p})")


def _divides(divisor: tuple[int, ...], polynomial: list[int], p: int) -> bool:
    """Whether x^m + divisor, for divisor [m], divides a polynomial; coefficients lowest first, modulo p."""
    left, degree = list(polynomial), len(divisor)
    for top in range(len(left) - 1, degree - 1, -1):
        for i, c in enumerate(divisor):
            left[top - degree + i] -= left[top] * c
    return not any(c % p for c in left[:degree])
