"""Rounding to the lattice, LDLQ and sweeps: against the references, and against what defines them.

Where two points are all but equally near, kernel and reference may differ, and feedback makes that another path.
So each choice is judged by the target that the kernel's own earlier choices gave it.
"""

import pytest
import torch
from torch import Generator, Tensor

import kernels.gpu.lattice
import kernels.ldlq
from kernels import e8p, lattice
from kernels.backend import plain_torch
from kernels.gpu.lattice import ldlq, quantize, sweep
from kernels.lattice import RESIDUALS, LatticeQuantizer, code_bits
from kernels.ldlq import block_ldl, diagonal_blocks
from kernels.ldlq import ldlq as reference
from kernels.ldlq import sweep as reference_sweep

CASES = [(20, 24, 2), (5, 136, 2), (7, 24, 3), (7, 24, 4)]


@pytest.fixture
def rng() -> Generator:
    return Generator().manual_seed(0)


@pytest.fixture
def quick(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter takes as long for all patterns as for some."""
    if device.type == "cpu":
        monkeypatch.setattr(kernels.gpu.lattice, "PATTERNS", 256)


def decoded(codes: Tensor, bits: int) -> Tensor:
    """Codes [..., 1 or 2] to values [..., 8]."""
    points = e8p.decode(codes[..., 0])
    return points if bits == 2 else points + RESIDUALS[bits].decode(codes[..., 1]) / RESIDUALS[bits].growth


def problem(rows: int, n: int, rng: Generator, device: torch.device) -> tuple[Tensor, Tensor]:
    """W [rows, n] and a correlated H [n, n] of mean diagonal one."""
    x = torch.randn(4 * n, n, generator=rng) @ (torch.eye(n) + torch.randn(n, n, generator=rng) / n**0.5)
    h = x.T @ x + 0.01 * len(x) * torch.eye(n)
    return torch.randn(rows, n, generator=rng).to(device), (h / h.diagonal().mean()).to(device)


def loss(weight: Tensor, found: Tensor, h: Tensor) -> float:
    error = (weight - found).double()
    return float((error @ h.double() * error).sum())


def assert_nearest(targets: Tensor, found: Tensor, bits: int) -> None:
    """found [n, 8] are as near to targets [n, 8] as what the reference finds, but for the rounding of targets."""
    with plain_torch():
        _, nearest = lattice.quantize(targets.float(), bits)
    missed, least = ((targets - values).square().sum(1) for values in (found, nearest))
    if bits == 2:
        assert (missed <= least * (1 + 1e-5) + 1e-5).all()
    else:  # a tie at the first stage decides where the second starts
        assert ((missed - least).abs() <= 1e-5).float().mean() >= 0.98


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("size", [0.3, 1.0, 4.0])
def test_rounding_finds_the_point_that_the_reference_finds(
    bits: int, size: float, rng: Generator, device: torch.device
) -> None:
    x = size * torch.randn(70, 8, generator=rng).to(device)
    codes, found = quantize(x, bits)
    with plain_torch():
        wanted, values = lattice.quantize(x, bits)
    assert codes.dtype == torch.int32 and codes.shape == (70, len(code_bits(bits)))
    torch.testing.assert_close(decoded(codes, bits), found, rtol=3e-7, atol=3e-7)
    assert (codes != wanted).any(1).float().mean() <= 0.02  # but for ties
    missed, least = ((x.double() - each).square().sum(1) for each in (found, values))
    assert ((missed - least).abs() <= 1e-5 * (1 + least)).float().mean() >= 0.98


def test_every_codeword_is_its_own_nearest(device: torch.device) -> None:
    every = torch.arange(3, 2**16, 401, dtype=torch.int32).to(device)
    codes, found = quantize(e8p.decode(every), 2)
    assert torch.equal(codes[:, 0], every) and torch.equal(found, e8p.decode(every))


@pytest.mark.parametrize("value", [0.0, 0.25, 0.5, 1.0, -40.0])
def test_ties_are_points_like_any_other(value: float, device: torch.device) -> None:
    x = torch.full((3, 8), value, device=device)
    codes, found = quantize(x, 2)
    assert len(codes.unique()) == 1 and torch.equal(e8p.decode(codes[:, 0]), found)
    with plain_torch():
        nearest = e8p.quantize(x)[1]
    torch.testing.assert_close((x - found).square().sum(1), (x - nearest).square().sum(1))


def test_nothing_to_round_is_nothing(device: torch.device) -> None:
    codes, found = quantize(torch.empty(0, 8, device=device), 3)
    assert codes.shape == (0, 2) and found.shape == (0, 8)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("rows", "n", "bits"), [*CASES, (3, 264, 2)])
def test_each_block_of_ldlq_is_nearest_to_its_target(
    rows: int, n: int, bits: int, rng: Generator, device: torch.device
) -> None:
    weight, h = problem(rows, n, rng, device)
    lower = block_ldl(h, 8)[0]
    codes, found = ldlq(weight, lower, bits)
    assert codes.shape == (rows, n // 8, len(code_bits(bits))) and found.shape == weight.shape
    torch.testing.assert_close(decoded(codes, bits).flatten(1), found, rtol=3e-7, atol=3e-7)
    below = lower.double() - torch.block_diag(*diagonal_blocks(lower.double(), 8))
    feedback = (weight - found).double() @ below
    assert_nearest((weight + feedback).view(-1, 8), found.reshape(-1, 8), bits)
    with plain_torch():
        wanted = reference(weight, lower, LatticeQuantizer(bits), 8)[1]
    assert loss(weight, found, h) == pytest.approx(loss(weight, wanted, h), rel=0.01)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("rows", "n", "bits"), CASES)
def test_each_block_of_a_sweep_is_nearest_to_its_target(
    rows: int, n: int, bits: int, rng: Generator, device: torch.device
) -> None:
    weight, h = problem(rows, n, rng, device)
    with plain_torch():
        start = reference(weight, block_ldl(h, 8)[0], LatticeQuantizer(bits), 8)[1]
        wanted = reference_sweep(weight, start, h, LatticeQuantizer(bits), 8)[1]
    kept = start.clone()
    codes, found = sweep(weight, start, h, bits, 1)
    assert torch.equal(start, kept)
    torch.testing.assert_close(decoded(codes, bits).flatten(1), found, rtol=3e-7, atol=3e-7)
    exact, was, now = h.double(), start.double(), found.double()
    for k in range(n - 8, -1, -8):
        here, after = slice(k, k + 8), slice(k + 8, n)
        error = weight - torch.cat([was[:, : k + 8], now[:, after]], 1)
        target = was[:, here] + torch.linalg.solve(exact[here, here], error @ exact[:, here], left=False)
        assert_nearest(target, found[:, here], bits)
    assert loss(weight, found, h) == pytest.approx(loss(weight, wanted, h), rel=0.01)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("bits", [2, 3])
def test_sweeps_lower_the_loss_and_continue_where_the_last_one_ended(
    bits: int, rng: Generator, device: torch.device
) -> None:
    weight, h = problem(16, 24, rng, device)
    found = [ldlq(weight, block_ldl(h, 8)[0], bits)[1]]
    for _ in range(2):
        codes, values = sweep(weight, found[-1], h, bits, 1)
        found.append(values)
    again, twice = sweep(weight, found[0], h, bits, 2)
    assert torch.equal(found[2], twice) and torch.equal(codes, again)
    losses = [loss(weight, each, h) for each in found]
    assert losses[2] < losses[1] < losses[0]


@pytest.mark.usefixtures("quick")
def test_only_the_lattice_takes_the_kernels(
    rng: Generator, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight, h = problem(16, 24, rng, device)
    lower, quantizer = block_ldl(h, 8)[0], LatticeQuantizer(2)
    monkeypatch.setattr(kernels.ldlq, "fused", lambda _: True)
    codes, found = reference(weight, lower, quantizer, 8)
    assert all(map(torch.equal, (codes, found), ldlq(weight, lower, 2)))
    swept = reference_sweep(weight, found, h, quantizer, 8, 2)
    assert all(map(torch.equal, swept, sweep(weight, found, h, 2, 2)))
    monkeypatch.setattr(kernels.gpu.lattice, "_launch", None)
    codes, found = reference(weight, lower, lambda targets, _: (targets.int(), targets), 8)
    assert torch.equal(codes.flatten(1), found.int())
