from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from kernels.hadamard import Rotation
from kernels.lattice import RESIDUALS, Lattice, code_bits, quantize
from kernels.packing import pack

LLOYD_MAX = {2: 0.1175, 3: 0.03454, 4: 0.009497}
"""Mean squared error of the best scalar quantiser of Gaussian numbers."""


def lattice_of(x: Tensor, bits: int, signs: tuple[Tensor, Tensor], orders: tuple[int, int]) -> Lattice:
    """The points nearest to x [out, in], at a scale of 2."""
    codes, _ = quantize(x.reshape(-1, 8), bits)
    packed = [pack(c.view(len(x), -1), b) for c, b in zip(codes.T, code_bits(bits), strict=True)]
    packed_signs = [pack(s[None] > 0, 1) for s in signs]
    residual = packed[1] if bits > 2 else None
    shape = (x.shape[0], x.shape[1])
    return Lattice(shape, packed[0], residual, *packed_signs, torch.tensor([2.0]), None, bits, *orders)


@pytest.fixture
def signs(rng: Generator) -> tuple[Tensor, Tensor]:
    """Of 24 inputs and 12 outputs."""
    first, second = (2.0 * torch.randint(2, (n,), generator=rng) - 1 for n in (24, 12))
    return first, second


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_lattice_stores_what_was_quantized(bits: int, signs: tuple[Tensor, Tensor], rng: Generator) -> None:
    x = torch.randn(12, 24, generator=rng)
    _, values = quantize(x.reshape(-1, 8), bits)
    assert torch.equal(lattice_of(x, bits, signs, (24, 12)).points(), values.reshape(12, 24))


def test_decoding_undoes_scale_rotations_and_rescaling(signs: tuple[Tensor, Tensor], rng: Generator) -> None:
    weight = lattice_of(torch.randn(12, 24, generator=rng), 2, signs, (24, 4))
    rescale = torch.rand(24, generator=rng) + 0.5
    matrix_in, matrix_out = (
        torch.stack([Rotation.hadamard(s, order).turn(row) for row in torch.eye(len(s))])
        for s, order in zip(signs, (24, 4), strict=True)
    )
    wanted = matrix_out @ (2 * weight.points()) @ matrix_in.T / rescale
    torch.testing.assert_close(replace(weight, rescale=rescale).dequantize(), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_bits_are_those_of_the_codes(bits: int, signs: tuple[Tensor, Tensor], rng: Generator) -> None:
    weight = lattice_of(torch.randn(12, 24, generator=rng), bits, signs, (24, 12))
    assert weight.nominal_bits == bits
    assert weight.breakdown() == {"codes": bits * 12 * 24, "signs": 36, "padding": 4, "scales": 32}


def test_other_bits_are_refused(signs: tuple[Tensor, Tensor]) -> None:
    weight = lattice_of(torch.zeros(12, 24), 2, signs, (24, 12))
    with pytest.raises(ValueError, match="lattice takes 2, 3 or 4 bits, got 5"):
        replace(weight, bits=5)


def test_the_short_points_are_256_points_of_e8() -> None:
    points = RESIDUALS[3].decode(torch.arange(256))
    norms = points.square().sum(1)
    assert len(points.unique(dim=0)) == 256
    assert [(norms == norm).sum() for norm in (0, 2, 4)] == [1, 240, 15]
    assert not (points.sum(1) % 2).any() and not (2 * points @ points.T % 2).any()


def test_no_short_point_is_nearer(rng: Generator) -> None:
    x = torch.randn(500, 8, generator=rng)
    codes, found = RESIDUALS[3].quantize(x)
    distances = torch.cdist(x, RESIDUALS[3].decode(torch.arange(256)))
    torch.testing.assert_close((x - found).norm(dim=1), distances.amin(1), rtol=1e-4, atol=1e-4)
    assert torch.equal(RESIDUALS[3].decode(codes), found)


@pytest.mark.parametrize(("bits", "scale"), [(2, 1.03), (3, 0.98), (4, 0.94)])
def test_gaussian_numbers_cost_less_than_in_the_best_scalar_code(bits: int, scale: float, rng: Generator) -> None:
    x = torch.randn(10_000, 8, generator=rng)
    losses = [float((quantize(s * x, bits)[1] / s - x).square().mean()) for s in (scale - 0.1, scale, scale + 0.1)]
    assert losses[1] == min(losses) and losses[1] < 0.95 * LLOYD_MAX[bits]
