import pytest
import torch
from torch import Tensor

from kernels.ldlq import TILE, block_ldl, ldlq, sweep


def round_to_half(x: Tensor, block: int) -> tuple[Tensor, Tensor]:
    codes = torch.round(2 * x)
    return codes.int(), codes / 2


@pytest.fixture(params=[8, TILE, TILE + 40], ids="n={}".format)
def problem(request: pytest.FixtureRequest, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """W [24, n] and a correlated H [n, n]: less than a tile, one, and one and a part of another."""
    n = request.param
    x = torch.randn(4 * n, n, generator=rng) @ torch.randn(n, n, generator=rng)
    return torch.randn(24, n, generator=rng), x.T @ x / x.square().mean() / len(x) + 0.01 * torch.eye(n)


def loss(weight: Tensor, found: Tensor, h: Tensor) -> float:
    error = (weight - found).double()
    return float((error @ h.double() * error).sum())


def test_the_factors_give_h_back(problem: tuple[Tensor, Tensor]) -> None:
    _, h = problem
    lower, diagonal = block_ldl(h, 8)
    torch.testing.assert_close(lower @ torch.block_diag(*diagonal) @ lower.T, h, rtol=1e-4, atol=1e-4)


def test_the_lower_factor_is_unit_block_triangular(problem: tuple[Tensor, Tensor]) -> None:
    n = len(problem[1])
    blocks = block_ldl(problem[1], 8)[0].view(n // 8, 8, n // 8, 8).transpose(1, 2)
    for row in range(n // 8):
        torch.testing.assert_close(blocks[row, row], torch.eye(8), rtol=0, atol=1e-5)
        assert not blocks[row, row + 1 :].any()


def test_an_indefinite_h_is_refused() -> None:
    with pytest.raises(torch.linalg.LinAlgError):
        block_ldl(-torch.eye(8), 8)


def test_ldlq_follows_its_definition(problem: tuple[Tensor, Tensor]) -> None:
    weight, h = problem
    lower, found = block_ldl(h, 8)[0], torch.zeros_like(weight)
    for k in range(len(h) - 8, -1, -8):
        target = weight[:, k : k + 8] + (weight - found)[:, k + 8 :] @ lower[k + 8 :, k : k + 8]
        found[:, k : k + 8] = round_to_half(target, k // 8)[1]
    assert (ldlq(weight, lower, round_to_half, 8)[1] != found).float().mean() < 1e-3  # but for ties


def test_a_sweep_follows_its_definition(problem: tuple[Tensor, Tensor]) -> None:
    weight, h = problem
    start = round_to_half(weight, 0)[1]
    found = start.clone()
    for k in range(len(h) - 8, -1, -8):
        here = slice(k, k + 8)
        step = torch.linalg.solve(h[here, here], (weight - found) @ h[:, here], left=False)
        found[:, here] = round_to_half(found[:, here] + step, k // 8)[1]
    assert (sweep(weight, start, h, round_to_half, 8)[1] != found).float().mean() < 1e-2  # but for ties


def test_feedback_lowers_the_loss_and_sweeps_lower_it_further(problem: tuple[Tensor, Tensor]) -> None:
    weight, h = problem
    found = [round_to_half(weight, 0)[1], ldlq(weight, block_ldl(h, 8)[0], round_to_half, 8)[1]]
    for _ in range(2):
        found.append(sweep(weight, found[-1], h, round_to_half, 8)[1])
    losses = [loss(weight, each, h) for each in found]
    assert losses == sorted(losses, reverse=True)
    assert losses[1] < losses[0] or len(h) == 8  # one block has no other to make up for it


def test_codes_stand_for_the_values_in_their_order(problem: tuple[Tensor, Tensor]) -> None:
    weight, h = problem
    codes, found = ldlq(weight, block_ldl(h, 8)[0], round_to_half, 8)
    assert codes.shape == (24, len(h) // 8, 8) and torch.equal(codes.flatten(1) / 2, found)
    codes, found = sweep(weight, found, h, round_to_half, 8)
    assert torch.equal(codes.flatten(1) / 2, found)


def test_each_block_is_quantized_once_from_the_last_to_the_first(problem: tuple[Tensor, Tensor]) -> None:
    weight, h = problem
    seen: list[int] = []

    def watch(x: Tensor, block: int) -> tuple[Tensor, Tensor]:
        seen.append(block)
        return round_to_half(x, block)

    ldlq(weight, torch.eye(len(h)), watch, 8)
    sweep(weight, weight, h, watch, 8)
    assert seen == 2 * list(range(len(h) // 8))[::-1]


def test_the_arguments_are_left_as_they_were(problem: tuple[Tensor, Tensor]) -> None:
    weight, h = problem
    start = round_to_half(weight, 0)[1]
    before = [t.clone() for t in (weight, h, start)]
    ldlq(weight, block_ldl(h, 8)[0], round_to_half, 8)
    sweep(weight, start, h, round_to_half, 8)
    assert all(map(torch.equal, (weight, h, start), before))
