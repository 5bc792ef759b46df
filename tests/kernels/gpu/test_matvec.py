"""CUDA C++ cannot run without a GPU: on a CPU only its layouts are read back, as decode.cu and matvec.cu say."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from kernels.format import Format
from kernels.gpu import matvec
from kernels.gpu.matvec import CODEBOOK, Layout, layouts
from kernels.lattice import Lattice
from kernels.packing import pack, unpack
from kernels.quantized import Codebook, GroupedInt

Maker = Callable[..., Any]


def integers(bits: int, group: int | None, *, zeros: bool = True, norms: bool = False) -> Maker:
    def make(rows: int, width: int, rng: Generator) -> GroupedInt:
        groups = -(-width // (group or width))
        codes = pack(torch.randint(2**bits, (rows, width), generator=rng), bits)
        zero = pack(torch.randint(2**bits, (rows, groups), generator=rng), bits) if zeros else None
        side = [torch.rand(n, generator=rng).half() + 0.5 if norms else None for n in (rows, width)]
        return GroupedInt(
            (rows, width), codes, zero, torch.rand(rows, groups, generator=rng).half(), bits, group, *side
        )

    return make


def codebook(dim: int, bits: int) -> Maker:
    def make(rows: int, width: int, rng: Generator) -> Codebook:
        codes = pack(torch.randint(2**bits, (rows, -(-width // dim)), generator=rng), bits)
        norms = [3 * torch.rand(n, generator=rng).half() + 0.5 for n in (rows, width)]
        return Codebook((rows, width), codes, torch.randn(2**bits, dim, generator=rng).half(), *norms)

    return make


def lattice(bits: int) -> Maker:
    def make(rows: int, width: int, rng: Generator) -> Lattice:
        groups, rest = -(-width // 8), {3: 8, 4: 16}.get(bits)
        codes = pack(torch.randint(2**16, (rows, groups), generator=rng), 16)
        residual = pack(torch.randint(2**rest, (rows, groups), generator=rng), rest) if rest else None
        signs = [pack(torch.randint(2, (1, n), generator=rng), 1) for n in (8 * groups, rows)]
        return Lattice((rows, width), codes, residual, *signs, torch.tensor([0.3]).half(), None, bits, 1, 1)

    return make


MAKERS = {
    "2 bits": integers(2, 128),
    "2 bits per row": integers(2, None, zeros=False, norms=True),
    "2 bits g32": integers(2, 32),
    "2 bits g256": integers(2, 256),
    "3 bits": integers(3, 64),
    "4 bits": integers(4, 128, norms=True),
    **{f"d{dim} {bits} bits": codebook(dim, bits) for dim, bits in sorted(matvec.BOOKS)},
    **{f"lattice {bits} bits": lattice(bits) for bits in (2, 3, 4)},
}


def lanes_codes(layout: Layout, row: int, column: int) -> tuple[Tensor, int, int]:
    """The words of the lane that has an element of the weight, its piece, and its place among the P of that."""
    book = layout.kind.format == CODEBOOK
    p = 12 if book and layout.kind.dim == 6 else 8
    unit, within = divmod(column, layout.kind.unit)
    piece, rest = divmod(within, 4 * p)
    lane = row % 8 * 4 + rest // p
    return layout.codes[row // 16, unit, :, lane, row % 16 // 8].long() & 0xFFFFFFFF, piece, rest % p


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_integers_lie_where_the_tensor_cores_take_them(bits: int, rng: Generator) -> None:
    weight = integers(bits, None)(20, 200, rng)
    (layout,) = layouts(weight) or ()
    codes = unpack(weight.codes, bits, 200)
    for row, column in torch.cartesian_prod(torch.arange(20), torch.arange(0, 200, 7)).tolist():
        words, piece, place = lanes_codes(layout, row, column)
        pair, odd = divmod(place, 2)  # pairs are the halves of a word
        if bits == 4:
            found = words[piece] >> 4 * pair + 16 * odd & 15
        else:
            found = words[piece // 2] >> 8 * (piece % 2) + 2 * pair + 16 * odd & 3
        if bits == 3:
            found = found + 4 * (words[2] >> piece // 2 * 8 + piece % 2 + 2 * pair + 16 * odd & 1)
        assert int(found) == int(codes[row, column])


@pytest.mark.parametrize(("dim", "bits"), sorted(matvec.BOOKS))
def test_codes_of_codewords_are_a_stream_for_each_lane(dim: int, bits: int, rng: Generator) -> None:
    weight = codebook(dim, bits)(20, 300, rng)
    (layout,) = layouts(weight) or ()
    codes = unpack(weight.codes, bits, -(-300 // dim))
    for row, group in torch.cartesian_prod(torch.arange(20), torch.arange(0, 300 // dim, 5)).tolist():
        words, piece, place = lanes_codes(layout, row, group * dim)
        at = (piece * (12 if dim == 6 else 8) + place) // dim * bits
        stream = sum(int(word) << 32 * i for i, word in enumerate(words))
        assert stream >> at & 2**bits - 1 == int(codes[row, group])


def test_points_have_their_signs_one_shift_from_those_of_halves(rng: Generator) -> None:
    weight = lattice(2)(20, 160, rng)
    (layout,) = layouts(weight) or ()
    codes = unpack(weight.codes, 16, 20)
    for row, group in torch.cartesian_prod(torch.arange(20), torch.arange(20)).tolist():
        words, piece, _ = lanes_codes(layout, row, 8 * group)
        word, second, code = int(words[piece // 2]), piece % 2, int(codes[row, group])
        assert word >> 16 * second & 0xFF == code & 0xFF
        for pair in range(4):
            moved = word << (7 - pair) >> 4 * second
            assert moved >> 15 & 1 == code >> 8 + 2 * pair & 1
            if pair < 3:
                assert moved >> 31 & 1 == code >> 9 + 2 * pair & 1
        assert word >> 27 + 4 * second & 1 == code >> 15


def test_norms_of_inputs_are_at_most_one_so_that_halves_do_not_overflow(rng: Generator) -> None:
    weight = codebook(4, 8)(16, 64, rng)
    (layout,) = layouts(weight) or ()
    assert layout.r_in is not None and float(layout.r_in.max()) == 1
    torch.testing.assert_close(layout.r_in * layout.factor, weight.r_in.float())


@pytest.mark.parametrize(
    "weight",
    [integers(8, 128), integers(2, 48), codebook(2, 4), codebook(8, 16)],
    ids=["8 bits", "groups of 48", "d2 of 4 bits", "a large codebook"],
)
def test_what_the_kernels_cannot_take_has_no_layout(weight: Maker, rng: Generator) -> None:
    assert layouts(weight(16, 96, rng)) is None


def decoded(weight: Format) -> Tensor:
    """What a layout stands for, float64 [out, in]; a lattice's is turned by nobody."""
    found = weight.points() * weight.scale.float() if isinstance(weight, Lattice) else weight.dequantize()
    return found.double()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("shape", [(48, 256), (70, 202), (37, 1000), (4100, 2048)], ids=str)
@pytest.mark.parametrize("name", MAKERS)
def test_products_are_right_to_half_precision(name: str, shape: tuple[int, int], rng: Generator) -> None:
    weight = MAKERS[name](*shape, rng).to("cuda")
    parts, wanted = layouts(weight), decoded(weight)
    assert parts is not None
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        for tokens in (1, 3, 8, 11):
            x = torch.randn(tokens, wanted.shape[1], generator=rng).to("cuda", dtype)
            expected = x.double() @ wanted.T
            found = matvec.multiply(x, parts, torch.float32)
            # Inputs are rounded to 11 bits at most, and sums are float32: eps / 2 of halves, twice.
            assert float((found - expected).norm() / expected.norm()) < torch.finfo(torch.float16).eps
            half = matvec.multiply(x, parts, torch.float16).double()
            assert float((half - expected).norm() / expected.norm()) < 2 * torch.finfo(torch.float16).eps


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_large_and_tiny_inputs_survive_the_rounding_to_halves(rng: Generator) -> None:
    weight = integers(2, 128)(64, 512, rng).to("cuda")
    parts, wanted = layouts(weight), decoded(weight)
    assert parts is not None
    for size in (1e-30, 1e-6, 1e6, 1e30):
        x = (torch.randn(2, 512, generator=rng) * size).to("cuda", torch.bfloat16)
        found, expected = matvec.multiply(x, parts, torch.float32), x.double() @ wanted.T
        assert float((found - expected).norm() / expected.norm()) < torch.finfo(torch.float16).eps


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_product_is_the_same_every_time_and_nothing_is_left_unwritten(rng: Generator) -> None:
    weight = codebook(6, 12)(1000, 600, rng).to("cuda")
    parts = layouts(weight)
    assert parts is not None
    x = torch.randn(5, 600, generator=rng).to("cuda", torch.float16)
    torch.full((5, 1000), torch.nan, device="cuda", dtype=torch.float16)  # what the allocator then hands out
    first = matvec.multiply(x, parts, torch.float16)
    assert bool(first.isfinite().all())
    assert all(torch.equal(matvec.multiply(x, parts, torch.float16), first) for _ in range(5))
