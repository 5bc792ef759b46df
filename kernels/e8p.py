"""The E8P codebook of QuIP# (arXiv:2402.04396): 2^16 points of the lattice E8, found and decoded by symmetry.

A codeword is v + 1/4 or v - 1/4, v being a vector of halves of odd numbers whose sum is even. 256 patterns |v| are
allowed: the 227 of squared norm at most 10 and 29 of squared norm 12. The signs of seven elements decide the
eighth's. A code has the pattern in bits 0 to 7, those seven signs in bits 8 to 14, and the shift in bit 15.
"""

import functools
import itertools
from typing import NamedTuple

import torch
from torch import Tensor

DIM = 8
SHIFT = 0.25
SIGN_BIT, SHIFT_BIT = 8, 15

CLASSES = (
    (0.5,) * 8,
    *((1.5,) * k + (0.5,) * (8 - k) for k in (1, 2, 3, 4)),
    (2.5,) + (0.5,) * 7,
    (2.5, 1.5) + (0.5,) * 6,
)
"""The patterns of squared norm at most 10 are the permutations of these."""


class _Tables(NamedTuple):
    """patterns [256, 8] hold |v|, the last element negative where Σ|v| is odd, so that signs flip in pairs."""

    patterns: Tensor
    number: Tensor  # [4^8], of |v|'s digits |v_i| - 1/2, or -1 where no pattern has them
    place: Tensor  # [1, 8], what a digit is worth in that number
    sign: Tensor  # [1, 8], what the sign of an element is worth in a code
    shifts: Tensor  # [2, 1]
    lanes: Tensor  # int32 [8, 1], the numbers of the elements
    classes: Tensor  # [7, 10]: |v|, and the price of an even and of an odd number of minuses in y
    norms: Tensor  # [7, 1], half their squared norms, negative
    heavy: Tensor  # [29, 8], the patterns of squared norm 12
    halves: Tensor  # [3, 29], where those hold 1/2


def heavy_patterns() -> Tensor:
    """The 29 patterns of squared norm 12 [29, 8]: 3/2, but 1/2 at three places.

    The triples of places are those with one or three of the first four, but for 014 and 237 in place of 145.
    """
    triples = {t for t in itertools.combinations(range(DIM), 3) if sum(place < 4 for place in t) % 2}
    triples ^= {(1, 4, 5), (0, 1, 4), (2, 3, 7)}
    places = torch.tensor(sorted(triples))
    return torch.full((len(triples), DIM), 1.5).scatter_(1, places, 0.5)


@functools.cache
def _tables(device: torch.device) -> _Tables:
    heavy, classes = heavy_patterns(), torch.tensor(CLASSES)
    patterns = torch.cartesian_prod(*[torch.tensor([0.5, 1.5, 2.5])] * DIM)  # [3^8, 8]
    patterns = torch.cat([patterns[patterns.square().sum(1) <= 10], heavy])  # [256, 8]
    place = 4.0 ** torch.arange(DIM)
    number = torch.full((4**DIM,), -1, dtype=torch.int32)
    number[((patterns - 0.5) @ place).long()] = torch.arange(len(patterns), dtype=torch.int32)
    patterns[:, -1] *= 1 - 2 * (patterns.sum(1) % 2)
    odd = classes.sum(1, keepdim=True) % 2
    tables = _Tables(
        patterns=patterns,
        number=number,
        place=place[None],
        sign=torch.tensor([[*(2.0 ** torch.arange(SIGN_BIT, SHIFT_BIT)), 0.0]]),
        shifts=torch.tensor([[SHIFT], [-SHIFT]]),
        lanes=torch.arange(DIM, dtype=torch.int32)[:, None],
        classes=torch.cat([classes, -odd, odd - 1], 1),
        norms=-classes.square().sum(1, keepdim=True) / 2,
        heavy=heavy,
        halves=(heavy == 0.5).nonzero()[:, 1].view(-1, 3).T,
    )
    return _Tables(*(table.to(device) for table in tables))


def patterns(device: torch.device | str = "cpu") -> Tensor:
    """|v| of the 256 patterns [256, 8], float32, the last element negative where their sum is odd."""
    return _tables(torch.device(device)).patterns


def decode(codes: Tensor) -> Tensor:
    """Codes int [...] to codewords [..., 8] in float32."""
    codes = codes.to(torch.int32)[..., None]
    signs = codes >> torch.arange(SIGN_BIT, SHIFT_BIT, dtype=torch.int32, device=codes.device) & 1  # [..., 7]
    signs = torch.cat([signs, signs.sum(-1, keepdim=True, dtype=torch.int32) & 1], -1)
    patterns = torch.nn.functional.embedding(codes[..., 0] & 0xFF, _tables(codes.device).patterns)
    return patterns * (1 - 2 * signs) + SHIFT * (1 - 2 * (codes >> SHIFT_BIT & 1))


def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [n, 8] float32 to the codes int32 [n] of the nearest codewords, and the codewords [n, 8].

    Columns x.T in memory are what it works on. Where two are equally near, either may be chosen, but the same
    one whenever x is the same.
    """
    tables = _tables(x.device)
    shifted = x.T.contiguous()[:, None] - tables.shifts  # [8, 2, n]
    lower, points = _nearer(shifted, _round(shifted.flatten(1), tables).view(shifted.shape))
    pattern = _pattern(points, tables)
    beyond = (pattern < 0).nonzero()[:, 0]
    if len(beyond):
        shifted = shifted.index_select(2, beyond)
        lower[beyond], found = _nearer(shifted, _search(shifted.flatten(1), tables).view(shifted.shape))
        points[:, beyond] = found
        pattern[beyond] = _pattern(found, tables)
    negative = (tables.sign @ (points < 0).float())[0]
    codes = pattern + negative.to(torch.int32) + (lower.to(torch.int32) << SHIFT_BIT)
    return codes, (points + tables.shifts[:, 0][lower.int()]).T


def _nearer(shifted: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Of two points [8, 2, n], the nearer to its target: whether it is the second [n], and the point [8, n]."""
    distance = (shifted - points).square_().sum(0)  # [2, n]
    second = distance[1] < distance[0]
    return second, torch.where(second, points[:, 1], points[:, 0])


def _round(y: Tensor, tables: _Tables) -> Tensor:
    """y [8, m] to the nearest halves of odd numbers whose sum is even, at whatever norm."""
    points = y.floor().add_(0.5)
    error = y - points
    odd = points.sum(0).remainder_(2)
    return points.addcmul_(_only_largest(error.abs(), tables), torch.copysign(odd, error))


def _only_largest(x: Tensor, tables: _Tables) -> Tensor:
    """1 at the largest of each x [8, m] >= 0, to 1e-6 of it, and 0 elsewhere: exactly one 1 even in a tie."""
    tagged = x.view(torch.int32).bitwise_and(-DIM).bitwise_or_(tables.lanes)
    return (tagged == tagged.amax(0)).float()


def _pattern(points: Tensor, tables: _Tables) -> Tensor:
    """The patterns' numbers int32 [n] of points [8, n], -1 where a point is no codeword."""
    digits = points.abs().sub_(0.5).clamp_max_(3)
    return tables.number[(tables.place @ digits)[0].long()]


def _search(y: Tensor, tables: _Tables) -> Tensor:
    """y [8, m] to the nearest v [8, m] among the 256 patterns.

    With the signs of y, v would have the product Σ|v||y|. Where their sum is odd one must change, and the
    cheapest is the least |v||y|. Among the permutations of a class it is best to sort |v| like |y|.
    """
    size = y.abs()
    order = size.sort(0, descending=True)  # [8, m]
    least = order.values[-1:]
    odd = (y < 0).float().sum(0, keepdim=True).remainder_(2)  # [1, m]
    price = odd * least
    known = torch.cat((order.values, least - price, price))  # [10, m]
    light = torch.addmm(tables.norms, tables.classes, known).max(0)
    pattern = torch.empty_like(y).scatter_(0, order.indices, tables.classes.T[:DIM, light.indices])
    flip = torch.minimum(size[tables.halves].amin(0), 3 * least)  # [29, m]
    heavy = (tables.heavy @ size - 6).sub_((1 - odd) * flip).max(0)
    pattern = torch.where(heavy.values > light.values, tables.heavy.T[:, heavy.indices], pattern)
    wrong = (pattern.sum(0) + odd).remainder_(2)  # [1, m]
    cheapest = _only_largest(1 / (pattern * size).clamp_min_(1e-30), tables)
    return torch.copysign(pattern, y).mul_(1 - 2 * wrong * cheapest)
