import pytest
import torch
from torch import Generator, Tensor

from kernels.obs import Competing, Kept, OnGrid, nearest_code, solve_columns, upper_factor
from kernels.pruning import Pattern, keep_n_of_m

ROWS, WIDTH = 6, 20


@pytest.fixture
def weight(rng: Generator) -> Tensor:
    return torch.randn(ROWS, WIDTH, generator=rng)


@pytest.fixture
def h(rng: Generator) -> Tensor:
    """Of inputs that depend on one another, so that there is something to compensate."""
    x = torch.randn(60, WIDTH, generator=rng) @ torch.randn(WIDTH, WIDTH, generator=rng)
    return x.T @ x / 60 + 0.01 * torch.eye(WIDTH)


@pytest.fixture
def grids(rng: Generator) -> OnGrid:
    """A grid of eight points for every weight."""
    return OnGrid(
        torch.rand(WIDTH, ROWS, generator=rng) + 0.3, torch.randint(8, (WIDTH, ROWS), generator=rng).float(), 7
    )


@pytest.fixture
def keep(rng: Generator) -> Tensor:
    return torch.rand(WIDTH, ROWS, generator=rng) < 0.5


def part(target: OnGrid | Kept, columns: slice) -> OnGrid | Kept:
    if isinstance(target, Kept):
        return Kept(target.keep[columns], target.dtype)
    return OnGrid(target.scale[columns], target.zero[columns], target.top)


def reference(weight: Tensor, h: Tensor, target: OnGrid | Kept, count: int = WIDTH) -> Tensor:
    """W after `count` columns, later ones moved to their optimum by the normal equations: no factor, no block."""
    w, h = weight.double().clone(), h.double()
    for j in range(count):
        settled = target.settle(j, w[:, j].float()).double()
        later = slice(j + 1, None)
        pull = torch.linalg.solve(h[later, later], h[later, j])
        w[:, later] += torch.outer(w[:, j] - settled, pull)
        w[:, j] = settled
    return w.float()


def test_the_factor_is_upper_and_gives_the_inverse(h: Tensor) -> None:
    upper = upper_factor(h)
    assert torch.equal(upper, upper.triu())
    torch.testing.assert_close(upper.T @ upper, torch.linalg.inv(h), rtol=1e-3, atol=1e-3)


def test_a_matrix_that_is_not_positive_definite_has_no_factor() -> None:
    with pytest.raises(torch.linalg.LinAlgError):
        upper_factor(torch.diag(torch.tensor([1.0, -1.0])))


@pytest.mark.parametrize("block", [1, 3, 7, 20, 128])
@pytest.mark.parametrize("kind", ["grid", "float32", "float16"])
def test_any_block_gives_the_best_update_of_later_columns(
    weight: Tensor, h: Tensor, grids: OnGrid, keep: Tensor, block: int, kind: str
) -> None:
    target = grids if kind == "grid" else Kept(keep, getattr(torch, kind))
    found = solve_columns(weight, upper_factor(h), lambda _, columns: part(target, columns), block)
    eps = torch.finfo(torch.float16).eps if kind == "float16" else 0
    torch.testing.assert_close(found, reference(weight, h, target), rtol=1e-4 + eps, atol=1e-4)


@pytest.mark.parametrize("block", [4, 8, 64])
def test_a_block_is_chosen_from_weights_that_know_all_errors_before_it(
    weight: Tensor, h: Tensor, grids: OnGrid, block: int
) -> None:
    seen: list[Tensor] = []

    def choose(w: Tensor, columns: slice) -> OnGrid | Kept:
        seen.append(w.clone())
        return part(grids, columns)

    solve_columns(weight, upper_factor(h), choose, block)
    for first, found in zip(range(0, WIDTH, block), seen, strict=True):
        torch.testing.assert_close(found, reference(weight, h, grids, count=first).T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("block", [4, 8, 64])
def test_a_run_competes_once_it_knows_all_errors_before_it(weight: Tensor, h: Tensor, block: int) -> None:
    pattern, scale = Pattern(2, 4), torch.linspace(1, 2, WIDTH)[:, None]
    chosen = torch.zeros(WIDTH, ROWS, dtype=torch.bool)
    found = solve_columns(
        weight,
        upper_factor(h),
        lambda _, columns: Competing(pattern, scale[columns], chosen[columns], torch.float32),
        block,
    )
    assert torch.equal(found != 0, chosen.T)
    for first in range(0, WIDTH, 4):
        seen = reference(weight, h, Kept(chosen, torch.float32), count=first)[:, first : first + 4]
        assert torch.equal(
            chosen.T[:, first : first + 4], keep_n_of_m(seen.abs() / scale.T[:, first : first + 4], pattern)
        )


def test_uncorrelated_inputs_leave_nothing_to_compensate(weight: Tensor, keep: Tensor, rng: Generator) -> None:
    upper = upper_factor(torch.diag(torch.rand(WIDTH, generator=rng) + 0.5))
    found = solve_columns(weight, upper, lambda _, columns: Kept(keep[columns], torch.float32), 8)
    assert torch.equal(found, weight * keep.T)


def test_a_column_that_is_kept_whole_passes_no_error_on(weight: Tensor, h: Tensor) -> None:
    whole = Kept(torch.ones(WIDTH, ROWS, dtype=torch.bool), torch.float32)
    assert torch.equal(solve_columns(weight, upper_factor(h), lambda _, columns: part(whole, columns), 8), weight)


def test_the_arguments_are_left_as_they_were(weight: Tensor, h: Tensor, grids: OnGrid) -> None:
    upper = upper_factor(h)
    before = weight.clone(), upper.clone()
    solve_columns(weight, upper, lambda _, columns: part(grids, columns), 8)
    assert torch.equal(weight, before[0]) and torch.equal(upper, before[1])


def test_a_code_is_that_of_the_nearest_point_and_stays_in_range() -> None:
    codes = nearest_code(torch.tensor([-9.0, 0.3, 0.7, 9.0]), torch.tensor(0.5), torch.tensor(3.0), 7)
    assert codes.tolist() == [0, 4, 4, 7]
