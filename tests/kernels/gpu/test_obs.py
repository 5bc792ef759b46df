from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from kernels import obs
from kernels.gpu import obs as gpu
from kernels.gpu.obs import settle
from kernels.obs import Competing, Kept, OnGrid, Target, solve_columns, upper_factor
from kernels.pruning import Pattern

Layer = Callable[[int, int], tuple[Tensor, Tensor]]
Solve = Callable[[Target, Tensor, Tensor, int], tuple[Tensor, Tensor, Tensor | None]]

EPS = torch.finfo(torch.float32).eps


def factor(width: int, rng: Generator) -> Tensor:
    """U of inputs that depend on one another, so that errors are passed on."""
    x = torch.randn(3 * width, width, generator=rng) @ (
        torch.eye(width) + torch.rand(width, width, generator=rng) / 9
    )
    h = x.T @ x / len(x)
    return upper_factor(h + 0.01 * h.diagonal().mean() * torch.eye(width))


def solved(target: Target, weight: Tensor, upper: Tensor, block: int) -> Tensor:
    def choose(_: Tensor, columns: slice) -> Target:
        if isinstance(target, Kept):
            return Kept(target.keep[columns], target.dtype)
        if isinstance(target, OnGrid):
            return OnGrid(target.scale[columns], target.zero[columns], target.top)
        return Competing(target.pattern, target.scale[columns], target.chosen[columns], target.dtype)

    return solve_columns(weight, upper, choose, block)


@pytest.fixture
def by_both(monkeypatch: pytest.MonkeyPatch) -> Solve:
    """Ŵ by the kernel, in pieces, and by plain PyTorch, and what the kernel chose, where columns compete."""

    def solve(target: Target, weight: Tensor, upper: Tensor, block: int) -> tuple[Tensor, Tensor, Tensor | None]:
        monkeypatch.setattr(gpu, "WIDEST", 128 if weight.shape[1] == 128 else 23)
        monkeypatch.setattr(obs, "fused", lambda _: True)
        found = solved(target, weight, upper, block)
        chosen = target.chosen.clone() if isinstance(target, Competing) else None
        monkeypatch.setattr(obs, "fused", lambda _: False)
        return found, solved(target, weight, upper, block), chosen

    return solve


@pytest.fixture
def layer(rng: Generator, device: torch.device) -> Layer:
    """W [rows, width] and U [width, width] on the device."""
    return lambda rows, width: (
        torch.randn(rows, width, generator=rng).to(device),
        factor(width, rng).to(device),
    )


@pytest.mark.parametrize(
    ("rows", "width", "block", "bits", "group"),
    [(5, 9, 1, 2, 16), (9, 30, 7, 3, 7), (9, 38, 38, 4, 16), (6, 128, 128, 4, 128)],
)
def test_every_code_on_a_grid_is_that_of_the_reference(
    rows: int,
    width: int,
    block: int,
    bits: int,
    group: int,
    rng: Generator,
    layer: Layer,
    by_both: Solve,
) -> None:
    weight, upper = layer(rows, width)
    scale = (torch.rand(-(-width // group), rows, generator=rng) + 0.5).repeat_interleave(group, 0)[:width]
    zero = torch.randint(2**bits, (rows, width), generator=rng).float().T  # rows are not contiguous
    target = OnGrid(scale.to(weight.device) * 4 / 2**bits, zero.to(weight.device), 2**bits - 1)
    found, expected, _ = by_both(target, weight, upper, block)
    assert torch.equal(found, expected)


def close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Equal to the sums' last bits, but for steps of the dtype where those decide how a weight is rounded."""
    step, size = 0 if dtype == torch.float32 else torch.finfo(dtype).eps, float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=2 * step, atol=size * (found.shape[1] * EPS + step))
    assert step == 0 or (found != expected).float().mean() < 0.05


def skip_what_is_cut_off(dtype: torch.dtype, device: torch.device) -> None:
    if dtype == torch.bfloat16 and device.type == "cpu":
        pytest.skip("Triton's interpreter cuts a float32 off where a GPU rounds it to bfloat16")


@pytest.mark.parametrize(("rows", "width", "block"), [(5, 9, 1), (17, 30, 7), (9, 40, 40), (6, 128, 128)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_kept_weights_are_those_of_the_reference_to_the_last_bits(
    rows: int,
    width: int,
    block: int,
    dtype: torch.dtype,
    rng: Generator,
    layer: Layer,
    by_both: Solve,
) -> None:
    weight, upper = layer(rows, width)
    skip_what_is_cut_off(dtype, weight.device)
    target = Kept((torch.rand(width, rows, generator=rng) < 0.5).to(weight.device), dtype)
    found, expected, _ = by_both(target, weight, upper, block)
    assert torch.equal(found != 0, expected != 0)
    close(found, expected, dtype)


@pytest.mark.parametrize(
    ("keep", "of", "width", "block"),
    [(2, 4, 24, 8), (2, 4, 40, 40), (4, 8, 40, 40), (3, 5, 40, 20), (5, 20, 40, 40), (2, 4, 128, 128)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_runs_that_compete_keep_what_the_reference_keeps(
    keep: int,
    of: int,
    width: int,
    block: int,
    dtype: torch.dtype,
    rng: Generator,
    layer: Layer,
    by_both: Solve,
) -> None:
    weight, upper = layer(6, width)
    skip_what_is_cut_off(dtype, weight.device)
    scale = upper.diagonal()[:, None] * (torch.rand(1, 6, generator=rng) + 0.5).to(weight.device)
    places = torch.zeros(width, 6, dtype=torch.bool, device=weight.device)
    target = Competing(Pattern(keep, of), scale, places, dtype)
    found, expected, chosen = by_both(target, weight, upper, block)
    assert chosen is not None and torch.equal(chosen, target.chosen)
    close(found, expected, dtype)


def test_of_weights_that_compete_and_are_equal_the_first_stay(device: torch.device) -> None:
    w, upper = torch.tensor([[2.0, 2, -2, 2, 0, 0, 0, 0]]).T.contiguous().to(device), torch.eye(8, device=device)
    chosen = torch.zeros(8, 1, dtype=torch.bool, device=device)
    target = Competing(Pattern(2, 4), torch.ones(8, 1, device=device), chosen, torch.float32)
    settle(w, upper, target, torch.empty_like(w))
    assert chosen.flatten().tolist() == [True, True, False, False] * 2


@pytest.mark.parametrize("sign", [1, -1])
def test_a_value_half_way_between_codes_goes_to_the_even_one(sign: int, device: torch.device) -> None:
    far = torch.tensor([2.0**22 + 0.5, 2.0**23 + 1, 1e20])
    halves = sign * torch.cat([torch.arange(-9, 10) / 2, 254 + torch.arange(5) / 2, far])[None]  # [1, rows]
    found, one = halves.clone().to(device), torch.ones(1, halves.shape[1], device=device)
    settle(found, one[:, :1], OnGrid(one, 7 * one, 255), torch.empty_like(found))
    assert torch.equal(found.cpu(), (halves.round() + 7).clamp(0, 255) - 7)


def test_errors_are_what_a_settled_column_lost_over_its_pivot(rng: Generator, device: torch.device) -> None:
    weight, upper = torch.randn(6, 5, generator=rng).to(device), factor(6, rng).to(device)
    w, errors, nothing = weight.clone(), torch.empty_like(weight), torch.zeros_like(weight, dtype=torch.bool)
    settle(w, upper, Kept(nothing, torch.float32), errors)
    torch.testing.assert_close(
        upper.T @ errors, weight, rtol=1e-5, atol=1e-5
    )  # all is lost, and all accounted for
    assert not w.any()


def test_a_block_that_is_not_contiguous_is_refused(device: torch.device) -> None:
    w, whole = torch.zeros(4, 3, device=device).T, torch.ones(3, 4, dtype=torch.bool, device=device)
    with pytest.raises(ValueError, match="contiguous"):
        settle(w, torch.eye(3, device=device), Kept(whole, torch.float32), torch.empty(3, 4, device=device))
