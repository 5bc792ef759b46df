import pytest
import torch

from kernels.backend import plain_torch
from kernels.gpu.hadamard import TOKENS, fits, turn
from kernels.hadamard import Rotation, factors, transform


@pytest.mark.parametrize(("size", "block"), [(576, 576), (96, 48), (240, 240), (1440, 1440)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_few_tokens_turn_and_turn_back_in_one_launch(
    size: int, block: int, dtype: torch.dtype, device: torch.device
) -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 2, size, generator=rng).to(device, dtype)
    signs = (2.0 * torch.randint(2, (size,), generator=rng) - 1).to(device)
    parts = tuple(part.to(device) for part in factors(block))
    inverse = tuple(part.T for part in parts)
    turned = turn(x, signs, parts, before=True)
    error = 1e-6 * size**0.5  # of sums of so many terms, each below 4 / sqrt(size)
    torch.testing.assert_close(turned, transform(x * signs, parts), rtol=0, atol=error)
    back = turn(x, signs, inverse, before=False)
    torch.testing.assert_close(back, transform(x.float(), inverse) * signs, rtol=0, atol=error)


def test_rows_that_do_not_lie_together_are_turned_too(device: torch.device) -> None:
    x, signs = (
        torch.randn(48, 3, generator=torch.Generator().manual_seed(0)).to(device).T,
        torch.ones(48, device=device),
    )
    parts = tuple(part.to(device) for part in factors(48))
    torch.testing.assert_close(turn(x, signs, parts, before=True), transform(x, parts), rtol=0, atol=1e-5)


def test_many_tokens_single_factors_and_gradients_are_left_to_products() -> None:
    parts, x = factors(48), torch.zeros(TOKENS, 48)
    assert fits(x, parts) and fits(x[0], parts)
    assert not fits(torch.zeros(TOKENS + 1, 48), parts) and not fits(torch.zeros(0, 48), parts)
    assert not fits(torch.zeros(1, 12), factors(12)[:1]) and not fits(
        torch.zeros(1, 48, requires_grad=True), parts
    )


def test_a_rotation_is_the_same_with_and_without_kernels(device: torch.device) -> None:
    rng = torch.Generator().manual_seed(0)
    signs = (2.0 * torch.randint(2, (576,), generator=rng) - 1).to(device)
    rotation, x = Rotation.hadamard(signs, 576), torch.randn(3, 576, generator=rng).to(device)
    with plain_torch():
        wanted = rotation.turn(x), rotation.back(x)
    torch.testing.assert_close((rotation.turn(x), rotation.back(x)), wanted, rtol=0, atol=3e-5)
