import math

import pytest
import torch

from kernels.gaussian import gaussian_grid

MAX = {2: 0.3634, 4: 0.1175, 8: 0.03454, 16: 0.009497}
"""Distortions in Max's table of 1960, whose last digits were worked out by hand."""


@pytest.mark.parametrize("size", MAX)
def test_points_on_a_line_are_those_of_lloyd_and_max(size: int) -> None:
    assert gaussian_grid(size, 1).distortion == pytest.approx(MAX[size], rel=6e-4)


@pytest.mark.parametrize("size", [2, 16, 256])
def test_a_point_on_a_line_is_the_mean_of_its_cell(size: int) -> None:
    x = torch.linspace(-9, 9, 1_800_001, dtype=torch.float64)
    density, points = torch.exp(-x.square() / 2), gaussian_grid(size, 1).points.double()[:, 0]
    cell = torch.bucketize(x, (points[1:] + points[:-1]) / 2)
    mass, first = (torch.zeros_like(points).index_add(0, cell, values) for values in (density, density * x))
    torch.testing.assert_close(first / mass, points, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [4, 64])
def test_points_on_a_line_mirror_each_other_and_rise(size: int) -> None:
    points = gaussian_grid(size, 1).points[:, 0]
    assert torch.equal(points, -points.flip(0)) and bool((points.diff() > 0).all())


@pytest.mark.parametrize(("size", "dim"), [(16, 2), (64, 3)])
def test_a_point_is_the_mean_of_its_cell_and_the_distortion_is_that_of_other_samples(size: int, dim: int) -> None:
    points, distortion = gaussian_grid(size, dim)
    x = torch.randn(200_000, dim, generator=torch.Generator().manual_seed(0))
    codes = torch.cdist(x, points).argmin(1)
    error = (x - points[codes]).square().mean(1)
    assert float(error.mean()) == pytest.approx(distortion, abs=4 * float(error.std()) / len(x) ** 0.5)
    means = torch.zeros_like(points).index_add(0, codes, x) / codes.bincount(minlength=size)[:, None]
    tolerance = 5 * (dim * distortion / (len(x) / size)) ** 0.5  # of the mean of some 1 / size of the vectors
    torch.testing.assert_close(means, points, rtol=0, atol=tolerance)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_more_dimensions_lose_less_at_the_same_bits(bits: int) -> None:
    line, plane = gaussian_grid(2**bits, 1).distortion, gaussian_grid(4**bits, 2).distortion
    assert plane < line * (1 + 1e-4 if bits == 1 else 0.93)  # four points in the plane are two on each axis


def test_many_points_in_the_plane_are_as_good_as_hexagons_of_the_best_density() -> None:
    hexagons = 5 / (36 * math.sqrt(3)) * 8 * math.pi / 256  # Zador's formula
    assert 0.96 * hexagons < gaussian_grid(256, 2).distortion < hexagons


def test_the_best_known_sixteen_points_in_the_plane_are_found() -> None:
    assert gaussian_grid(16, 2).distortion == pytest.approx(0.1076, rel=1e-3)


def test_the_best_of_some_starts_is_kept() -> None:
    assert gaussian_grid(16, 4).distortion < 0.343  # the first one ends at 0.346


def test_a_grid_made_again_is_the_same() -> None:
    assert torch.equal(gaussian_grid.__wrapped__(16, 2).points, gaussian_grid(16, 2).points)


@pytest.mark.parametrize("size", [0, 1, 7])
def test_an_odd_number_of_points_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"an even number of points, got {size}"):
        gaussian_grid(size, 1)
