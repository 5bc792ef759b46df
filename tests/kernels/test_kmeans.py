from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from kernels.backend import plain_torch
from kernels.kmeans import Vectors, assign, nearest_in_metric, take, update, weighted_kmeans, weighted_kmeans_batch


@pytest.fixture(autouse=True, params=["compiled", "plain"])
def path(request: pytest.FixtureRequest) -> Iterator[None]:
    """Everything holds for Numba's loops, where there are any, and for their reference."""
    with plain_torch() if request.param == "plain" else nullcontext():
        yield


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
        codebook = update([Vectors(x, w)], [codes], codebook)
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
    codes = torch.zeros(2, dtype=torch.int32)
    assert update([Vectors(x, w)], [codes], codebook).tolist() == [[3.0, 9.0], [7.0, 7.0]]


def test_an_update_adds_so_exactly_that_order_does_not_show() -> None:
    x = torch.cat([torch.tensor([[1e6]]), torch.full((999, 1), 0.01)])
    codes, codebook = torch.zeros(1000, dtype=torch.int32), torch.zeros(1, 1)
    first, second = (update([Vectors(each, torch.ones(1, 1))], [codes], codebook) for each in (x, x.flip(0)))
    assert torch.equal(first, second) and first.item() == pytest.approx(1000.00999, rel=1e-7)


def test_the_loss_never_rises(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    losses = weighted_kmeans([Vectors(*problem[:2])], problem[2], iterations=50).losses
    assert all(after <= before * (1 + 1e-6) for before, after in zip(losses, losses[1:], strict=False))
    assert losses[-1] < losses[0]


def test_the_last_loss_is_that_of_the_returned_codes(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    found = weighted_kmeans([Vectors(*problem[:2])], problem[2], iterations=3)
    own = distances(*problem[:2], found.codebook).gather(1, found.codes[0].long()[:, None]).sum()
    assert found.losses[-1] == pytest.approx(float(own), rel=1e-5)


@pytest.mark.parametrize("iterations", [0, 1, 100])
def test_the_codes_are_nearest_in_the_rounded_codebook(
    iterations: int, problem: tuple[Tensor, Tensor, Tensor]
) -> None:
    x, w, codebook = problem[0] + 300, problem[1], problem[2] + 300  # where float16 goes in steps of 1/4
    found = weighted_kmeans([Vectors(x, w)], codebook, iterations, dtype=torch.float16)
    assert found.codebook.dtype is torch.float16
    assert torch.equal(found.codes[0], assign(x, w, found.codebook.float())[0])


def test_it_stops_when_no_assignment_changes(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    found = weighted_kmeans([Vectors(*problem[:2])], problem[2], iterations=1000)
    again = weighted_kmeans([Vectors(*problem[:2])], found.codebook, iterations=1)
    assert found.converged and found.iterations < 1000
    assert torch.equal(again.codes[0], found.codes[0])


def test_stopping_early_is_not_called_convergence(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    found = weighted_kmeans([Vectors(*problem[:2])], problem[2], iterations=1)
    assert (found.iterations, found.converged) == (1, False)


def test_empty_clusters_are_counted_and_keep_their_codeword(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    x, w, codebook = problem
    found = weighted_kmeans([Vectors(x, w)], torch.cat([codebook[:3], torch.full((1, 3), 1e3)]), iterations=5)
    assert found.empty_clusters == 1
    assert found.codebook[3].tolist() == [1e3, 1e3, 1e3]


def test_vectors_that_cannot_share_the_weights_are_refused(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    with pytest.raises(ValueError, match="59 vectors cannot share 5 weights evenly"):
        weighted_kmeans([Vectors(problem[0][1:], problem[1])], problem[2], iterations=1)


@pytest.fixture
def halves(problem: tuple[Tensor, Tensor, Tensor]) -> list[Vectors]:
    """The vectors of the problem as two parts, the second with weights of its own and another G."""
    x, w, _ = problem
    return [Vectors(x[:35], w), Vectors(x[35:59], 3 * w[:4])]


def test_parts_are_clustered_as_one(halves: list[Vectors], problem: tuple[Tensor, Tensor, Tensor]) -> None:
    whole = Vectors(torch.cat([part.x for part in halves]), torch.cat([part.weights() for part in halves]))
    apart, joined = (weighted_kmeans(parts, problem[2], iterations=7) for parts in (halves, [whole]))
    torch.testing.assert_close(apart.codebook, joined.codebook)
    assert torch.equal(torch.cat(apart.codes), joined.codes[0])
    assert apart.losses == pytest.approx(joined.losses, rel=1e-5)


def test_a_batch_of_any_shapes_gives_each_problem_what_it_gets_alone(
    halves: list[Vectors], problem: tuple[Tensor, Tensor, Tensor]
) -> None:
    together = weighted_kmeans_batch([halves, halves[:1]], [problem[2], problem[2][:4]], 7, reseed=True)
    for parts, size, found in zip((halves, halves[:1]), (8, 4), together, strict=True):
        alone = weighted_kmeans(parts, problem[2][:size], 7, reseed=True)
        assert torch.equal(found.codebook, alone.codebook) and found.losses == alone.losses
    assert weighted_kmeans_batch([], [], 7) == []


def test_vectors_of_several_parts_are_taken_in_the_order_asked(halves: list[Vectors]) -> None:
    taken = take(halves, torch.tensor([58, 0, 34, 35]))
    assert torch.equal(taken.x, torch.stack([halves[1].x[23], halves[0].x[0], halves[0].x[34], halves[1].x[0]]))
    assert torch.equal(taken.w, torch.stack([halves[1].w[3], halves[0].w[0], halves[0].w[4], halves[1].w[0]]))


def test_the_errors_of_vectors_sum_to_the_loss(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    found = weighted_kmeans([Vectors(*problem[:2])], problem[2], iterations=2)
    errors = Vectors(*problem[:2]).errors(found.codebook, found.codes[0])
    assert float(errors.sum()) == pytest.approx(found.losses[-1], rel=1e-5)


def far_off(codebook: Tensor, count: int) -> Tensor:
    """The first three codewords, and `count` that no vector will ever take."""
    return torch.cat([codebook[:3], 1e3 + torch.arange(count)[:, None].expand(-1, 3)])


def test_reseeding_leaves_no_cluster_empty_and_says_how_many(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    parts, start = [Vectors(*problem[:2])], far_off(problem[2], 5)
    without, found = (weighted_kmeans(parts, start, 30, reseed=reseed) for reseed in (False, True))
    assert (without.empty_clusters, without.reseeded) == (5, 0)
    assert found.empty_clusters == 0 and found.reseeded >= 5
    assert found.losses[-1] < without.losses[-1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_reseeding_raises_no_loss_at_any_step(problem: tuple[Tensor, Tensor, Tensor], dtype: torch.dtype) -> None:
    parts, start = [Vectors(*problem[:2])], far_off(problem[2], 40)
    without = weighted_kmeans(parts, start, 0, dtype).losses[0]
    losses = weighted_kmeans(parts, start, 30, dtype, reseed=True).losses
    assert losses[0] < without
    assert all(after <= before + 1e-5 * losses[0] for before, after in zip(losses, losses[1:], strict=False))


def test_vectors_without_an_error_are_no_place_for_a_codeword() -> None:
    x = torch.tensor([[1.0], [2.0]]).repeat(8, 1)
    found = weighted_kmeans([Vectors(x, torch.ones(1, 1))], torch.tensor([[1.0], [2.0], [9.0]]), 3, reseed=True)
    assert (found.reseeded, found.empty_clusters, found.losses[-1]) == (0, 1, 0.0)


@pytest.mark.parametrize("tile", [None, 1, 7])
def test_codes_in_a_metric_are_the_nearest_codewords(
    problem: tuple[Tensor, Tensor, Tensor], tile: int | None
) -> None:
    x, _, codebook = problem
    root = torch.tensor([[1.0, 0.0, 0.0], [2.0, 1.0, 0.0], [-1.0, 0.5, 0.3]])
    wanted = ((x[:, None] - codebook) @ root).square().sum(2).argmin(1)
    found = nearest_in_metric(x, root @ root.T, codebook, tile)
    assert torch.equal(found, wanted.int())
    assert not torch.equal(found, nearest_in_metric(x, torch.eye(3), codebook))
