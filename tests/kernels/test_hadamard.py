import pytest
import torch

from kernels.hadamard import Rotation, factors, hadamard, order, transform

WIDTHS = [48, 192, 576, 1536, 3584, 5376, 5632, 9728, 10944, 11008, 14336, 17408, 18944, 25600, 29568]


@pytest.mark.parametrize("size", [1, 2, 4, 12, 20, 28, 36, 44, 52, 60, 76, 84, 100, 148, 244, 344])
def test_a_hadamard_matrix_is_made_of_orthogonal_signs(size: int) -> None:
    matrix = hadamard(size)
    assert torch.equal(matrix.abs(), torch.ones(size, size))
    assert torch.equal(matrix @ matrix.T, size * torch.eye(size))


@pytest.mark.parametrize("size", WIDTHS)
def test_the_widths_of_language_models_have_a_full_transform(size: int) -> None:
    assert order(size) == size


@pytest.mark.parametrize("size", WIDTHS)
def test_the_factors_of_a_transform_are_small_and_orthonormal(size: int) -> None:
    parts = factors(size)
    assert torch.tensor([len(part) for part in parts]).prod() == size and max(map(len, parts)) <= 344
    for part in parts:
        torch.testing.assert_close(part @ part.T, torch.eye(len(part)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("size", "block"), [(13696, 128), (1000, 1000), (7, 1), (6, 2), (92, 4), (10920, 10920)])
def test_other_widths_take_the_largest_order_that_divides_them(size: int, block: int) -> None:
    assert order(size) == block


def test_an_order_that_no_construction_reaches_is_refused() -> None:
    with pytest.raises(ValueError, match="no construction for a Hadamard matrix of order 428"):
        hadamard(428)


def test_the_transform_is_a_product_with_the_kronecker_product(rng: torch.Generator) -> None:
    parts = [torch.randn(n, n, generator=rng) for n in (2, 3, 4)]
    x = torch.randn(5, 48, generator=rng)
    whole = torch.kron(torch.kron(parts[0], parts[1]), parts[2])
    wanted = x @ torch.block_diag(whole, whole)
    torch.testing.assert_close(transform(x, tuple(parts)), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [24, 48, 576, 1536])
def test_a_transform_spreads_one_input_over_all(size: int) -> None:
    spread = transform(torch.eye(size)[3], factors(size))
    torch.testing.assert_close(spread.abs(), torch.full((size,), size**-0.5))


@pytest.mark.parametrize(("size", "block"), [(96, 96), (36, 12), (11008, 11008)])
def test_a_rotation_keeps_lengths_and_has_an_inverse(size: int, block: int, rng: torch.Generator) -> None:
    signs = 2.0 * torch.randint(2, (size,), generator=rng) - 1
    rotation, x = Rotation.hadamard(signs, block), torch.randn(3, size, generator=rng)
    turned = rotation.turn(x)
    assert not torch.allclose(turned, x, atol=0.1)
    torch.testing.assert_close(turned.norm(dim=1), x.norm(dim=1))
    torch.testing.assert_close(rotation.back(turned), x, rtol=0, atol=1e-5)
