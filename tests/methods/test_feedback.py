import pytest
import torch
from torch import Generator, Tensor

from methods.feedback import Curvature, curvature_of, with_feedback
from methods.hessian import unit_gram
from methods.statistics import Statistics


@pytest.fixture
def h(rng: Generator) -> Tensor:
    """H [10, 10] of correlated inputs over its mean diagonal; the fifth input is dead."""
    x = torch.randn(60, 10, generator=rng) @ torch.randn(10, 10, generator=rng)
    x[:, 4] = 0
    gram = x.T @ x
    return unit_gram(Statistics(gram.diagonal().clone(), x.mean(0), 60, gram))


@pytest.fixture
def curvature(h: Tensor) -> Curvature:
    return curvature_of(h, 0.01, 4)


def test_the_factors_are_those_of_the_damped_h(h: Tensor, curvature: Curvature) -> None:
    blocks = torch.block_diag(*curvature.diagonal)
    found = (curvature.lower @ blocks @ curvature.lower.T)[:10, :10]
    torch.testing.assert_close(found, h + 0.01 * torch.eye(10), rtol=0, atol=1e-5)
    assert curvature.audit == {"damping": 0.01, "damping_raised": 0}


def test_inputs_that_pad_cost_nothing(h: Tensor, curvature: Curvature) -> None:
    assert curvature.diagonal.shape == (3, 4, 4)
    assert not curvature.diagonal[2, 2:].any() and not curvature.diagonal[2, :, 2:].any()
    assert torch.equal(curvature.h[:10, :10], h) and not curvature.h[10:].any() and not curvature.h[:, 10:].any()


def test_each_block_takes_the_best_codeword_given_those_after_it(
    h: Tensor, curvature: Curvature, rng: Generator
) -> None:
    """One block from the end, the best choice is the minimum over it of tr(E H E^T), inputs before it free."""
    weight = torch.nn.functional.pad(torch.randn(5, 10, generator=rng), (0, 2))
    codebook = torch.randn(16, 4, generator=rng)
    found = with_feedback(weight, curvature, codebook)
    assert found.codes.shape == (5, 3) and found.targets.shape == (5, 12)
    damped = h + 0.01 * torch.eye(10)
    schur = damped[8:, 8:] - damped[8:, :8] @ torch.linalg.solve(damped[:8, :8], damped[:8, 8:])
    error = weight[:, None, 8:10] - codebook[None, :, :2]  # [5, 16, 2]
    wanted = torch.einsum("rka,ab,rkb->rk", error, schur, error).argmin(1)
    assert torch.equal(found.codes[:, 2], wanted.int())


def test_the_loss_is_that_of_the_codes(h: Tensor, curvature: Curvature, rng: Generator) -> None:
    weight, codebook = torch.randn(5, 12, generator=rng), torch.randn(16, 4, generator=rng)
    found = with_feedback(weight, curvature, codebook)
    error = (weight - codebook[found.codes].view(5, 12))[:, :10]
    assert found.loss == pytest.approx(float((error @ h @ error.T).trace()), rel=1e-5)
