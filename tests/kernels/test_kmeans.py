import pytest
import torch
from torch import Tensor
from torch.nn import functional

from kernels.kmeans import assign, seed_codebook, update, weighted_kmeans


@pytest.fixture
def problem(rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """x [60, 3], w [5, 3] and 8 codewords."""
    x = torch.randn(60, 3, generator=rng)
    return x, torch.rand(5, 3, generator=rng), torch.randn(8, 3, generator=rng)


def distances(x: Tensor, w: Tensor, codebook: Tensor) -> Tensor:
    weights = w.repeat(len(x) // len(w), 1)
    return (weights[:, None] * (x[:, None] - codebook).square()).sum(2).double()


def published(golden: dict[str, Tensor]) -> tuple[str, Tensor, Tensor]:
    """The case that both golden files share, d = 6: its prefix, x and w."""
    prefix = next(key for key in golden if "_d6_" in key and key.endswith("_init")).removesuffix("init")
    x, h = golden[prefix + "normalized"], golden["hessian"].diagonal()
    x, h = (functional.pad(t, (0, -x.shape[1] % 6)) for t in (x, h))
    return prefix, x.view(-1, 6), h.view(-1, 6)


def test_steps_from_the_published_start_give_the_published_codebook(golden: dict[str, Tensor]) -> None:
    prefix, x, w = published(golden)
    codebook, losses = golden[prefix + "init"], []
    for _ in golden[prefix + "losses"]:
        codes, cost = assign(x, w, codebook)
        losses.append(float(cost))
        codebook = update(x, w, codes, codebook)
    assert torch.equal(codes, golden[prefix + "codes"])
    torch.testing.assert_close(codebook, golden[prefix + "codebook"], rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.tensor(losses), golden[prefix + "losses"], rtol=1e-5, atol=0)


def test_codes_are_the_nearest_codewords(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    assert torch.equal(assign(*problem)[0], distances(*problem).argmin(1).int())


def test_the_cost_is_the_loss_less_its_constant(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    x, w, codebook = problem
    constant = distances(x, w, torch.zeros(1, 3)).sum()
    wanted = distances(x, w, codebook).amin(1).sum() - constant
    torch.testing.assert_close(assign(x, w, codebook)[1], wanted, rtol=1e-5, atol=0)


@pytest.mark.parametrize("tile", [1, 7, 60, 100])
def test_tiles_change_memory_only(tile: int, problem: tuple[Tensor, Tensor, Tensor]) -> None:
    assert torch.equal(assign(*problem, tile=tile)[0], assign(*problem)[0])


def test_of_equally_near_codewords_the_first_wins() -> None:
    codes, _ = assign(torch.zeros(4, 2), torch.zeros(1, 2), torch.randn(3, 2))
    assert codes.tolist() == [0, 0, 0, 0]


def test_an_update_takes_weighted_means_and_leaves_empty_clusters_alone() -> None:
    x, w = torch.tensor([[1.0, 5.0], [4.0, 6.0]]), torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    codebook = torch.tensor([[0.0, 9.0], [7.0, 7.0]])
    assert update(x, w, torch.zeros(2, dtype=torch.int32), codebook).tolist() == [[3.0, 9.0], [7.0, 7.0]]


def test_the_loss_never_rises(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    losses = weighted_kmeans(*problem, iterations=50).losses
    assert all(after <= before * (1 + 1e-6) for before, after in zip(losses, losses[1:], strict=False))
    assert losses[-1] < losses[0]


def test_the_last_loss_is_that_of_the_returned_codes(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    found = weighted_kmeans(*problem, iterations=3)
    own = distances(*problem[:2], found.codebook).gather(1, found.codes.long()[:, None]).sum()
    assert found.losses[-1] == pytest.approx(float(own), rel=1e-5)


@pytest.mark.parametrize("iterations", [0, 1, 100])
def test_the_codes_are_nearest_in_the_rounded_codebook(
    iterations: int, problem: tuple[Tensor, Tensor, Tensor]
) -> None:
    x, w, codebook = problem[0] + 300, problem[1], problem[2] + 300  # where float16 goes in steps of 1/4
    found = weighted_kmeans(x, w, codebook, iterations, dtype=torch.float16)
    assert found.codebook.dtype is torch.float16
    assert torch.equal(found.codes, assign(x, w, found.codebook.float())[0])


def test_it_stops_when_no_assignment_changes(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    found = weighted_kmeans(*problem, iterations=1000)
    again = weighted_kmeans(*problem[:2], found.codebook, iterations=1)
    assert found.converged and found.iterations < 1000
    assert torch.equal(again.codes, found.codes)


def test_stopping_early_is_not_called_convergence(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    found = weighted_kmeans(*problem, iterations=1)
    assert (found.iterations, found.converged) == (1, False)


def test_empty_clusters_are_counted_and_keep_their_codeword(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    x, w, codebook = problem
    found = weighted_kmeans(x, w, torch.cat([codebook[:3], torch.full((1, 3), 1e3)]), iterations=5)
    assert found.empty_clusters == 1
    assert found.codebook[3].tolist() == [1e3, 1e3, 1e3]


def test_vectors_that_cannot_share_the_weights_are_refused(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    with pytest.raises(ValueError, match="59 vectors cannot share 5 weights evenly"):
        weighted_kmeans(problem[0][1:], *problem[1:], iterations=1)


def test_a_seed_gives_one_start(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    first, second = (seed_codebook(*problem[:2], 8, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)


def test_the_start_draws_distinct_vectors_of_the_matrix(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    start = seed_codebook(*problem[:2], 8, torch.Generator().manual_seed(3))
    picked = (start[:, None] == problem[0]).all(2)
    assert picked.any(1).all() and picked.any(0).sum() == 8


@pytest.mark.parametrize("seed", range(8))
def test_the_second_codeword_lies_where_the_first_does_not(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    x = torch.stack([30.0 * (torch.arange(64) % 2), 100 * torch.randn(64, generator=rng)], 1)
    start = seed_codebook(x, torch.tensor([[1.0, 0.0]]), 16, rng)
    assert sorted(start[:2, 0].tolist()) == [0.0, 30.0]


def test_weightless_vectors_break_nothing(rng: torch.Generator) -> None:
    x, w = torch.randn(40, 2, generator=rng), torch.zeros(4, 2)
    found = weighted_kmeans(x, w, seed_codebook(x, w, 8, rng), iterations=5)
    assert found.losses == [0.0, 0.0] and bool(found.codebook.isfinite().all())
