from itertools import combinations

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from kernels import e8p
from tests.kernels.conftest import GOLDEN


@pytest.fixture(scope="module")
def grid() -> Tensor:
    """All codewords [2^16, 8]."""
    return e8p.decode(torch.arange(2**16))


def nearest(x: Tensor, grid: Tensor) -> Tensor:
    """Squared distances [n] of x [n, 8] to the nearest codewords, by trying all of them, in float64."""
    grid = grid.double()
    scores = [grid.square().sum(1) - 2 * part @ grid.T for part in x.double().split(128)]
    return torch.cat([score.amin(1) for score in scores]) + x.double().square().sum(1)


def test_the_codewords_differ(grid: Tensor) -> None:
    assert len(grid.unique(dim=0)) == 2**16


def test_codewords_are_even_half_odd_points_moved_by_a_quarter(grid: Tensor) -> None:
    points = grid - torch.tensor([0.25, -0.25]).repeat_interleave(2**15)[:, None]
    assert torch.equal(points % 1, torch.full_like(points, 0.5))
    assert not (points.sum(1) % 2).any()
    assert points.square().sum(1).max() == 12


def test_the_patterns_up_to_norm_ten_are_all_there(grid: Tensor) -> None:
    points = (grid[: 2**15] - 0.25).abs().unique(dim=0)
    assert (points.square().sum(1) <= 10).sum() == 227 and len(points) == 256


def test_the_heavy_patterns_are_29_with_three_halves() -> None:
    heavy = e8p.heavy_patterns()
    places = {tuple(row.nonzero()[:, 0].tolist()) for row in heavy == 0.5}
    assert len(places) == 29 and places < set(combinations(range(8), 3))
    assert torch.equal(heavy.square().sum(1), torch.full((29,), 12.0))


def test_quantizing_gives_the_published_codewords() -> None:
    golden = load_file(GOLDEN / "e8p.safetensors")
    codes, found = e8p.quantize(golden["x"])
    assert torch.equal(found, golden["quantized"])
    assert torch.equal(e8p.decode(codes), found)


@pytest.mark.parametrize("size", [0.01, 0.5, 1.0, 1.5, 3.0, 50.0])
def test_no_codeword_is_nearer(size: float, grid: Tensor, rng: torch.Generator) -> None:
    x = size * torch.randn(512, 8, generator=rng)
    codes, found = e8p.quantize(x)
    assert torch.equal(e8p.decode(codes), found)
    distance = (x.double() - found).square().sum(1)
    torch.testing.assert_close(distance, nearest(x, grid), rtol=1e-6, atol=2e-6)


def test_codewords_keep_their_codes(grid: Tensor) -> None:
    codes, found = e8p.quantize(grid)
    assert torch.equal(codes, torch.arange(2**16, dtype=torch.int32)) and torch.equal(found, grid)


@pytest.mark.parametrize("value", [0.0, 0.25, 0.5, 0.75, 1.0, 40.0, -40.0])
def test_ties_are_codewords_like_any_other(value: float, grid: Tensor) -> None:
    x = torch.full((3, 8), value)
    codes, found = e8p.quantize(x)
    assert len(codes.unique()) == 1 and torch.equal(e8p.decode(codes), found)
    torch.testing.assert_close((x - found).square().sum(1).double(), nearest(x, grid))


def test_how_columns_lie_in_memory_does_not_matter(rng: torch.Generator) -> None:
    columns = torch.randn(8, 300, generator=rng)
    for first, second in zip(e8p.quantize(columns.T), e8p.quantize(columns.T.contiguous()), strict=True):
        assert torch.equal(first, second)


def test_one_vector_is_enough() -> None:
    codes, found = e8p.quantize(torch.zeros(1, 8))
    assert codes.shape == (1,) and found.shape == (1, 8)
    assert torch.equal(found.abs(), torch.tensor([[0.25] * 8])) or found.square().sum() <= 1


def test_gaussian_numbers_cost_what_the_paper_says(rng: torch.Generator) -> None:
    x = torch.randn(20_000, 8, generator=rng)
    losses = [float((e8p.quantize(s * x)[1] / s - x).square().mean()) for s in (0.93, 1.03, 1.13)]
    assert losses[1] == min(losses) and losses[1] == pytest.approx(0.0912, rel=0.01)
