from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Generator, Tensor

from kernels.kmeans import Parts, Vectors, weighted_kmeans
from kernels.seeding import _random, seed_nowag, seed_plus_plus, seed_refined

Starts = Callable[[Sequence[Parts], int, Sequence[Generator]], list[Tensor]]
STARTS: list[Starts] = [seed_nowag, seed_plus_plus, seed_refined]


def one(start: Starts, parts: Parts, size: int, rng: Generator) -> Tensor:
    """The start of one problem."""
    return start([parts], size, [rng])[0]


@pytest.fixture
def parts(rng: Generator) -> list[Vectors]:
    """Two matrices' vectors, x [60, 3] and [28, 3]."""
    return [
        Vectors(torch.randn(60, 3, generator=rng), torch.rand(5, 3, generator=rng)),
        Vectors(torch.randn(28, 3, generator=rng), torch.rand(7, 3, generator=rng)),
    ]


def heavy(rng: Generator) -> Vectors:
    """Vectors of very different length [6_000, 4], with weights that span orders of magnitude."""
    x = torch.randn(300, 20, 4, generator=rng) * torch.randn(300, 1, 1, generator=rng).exp()
    return Vectors(x.view(-1, 4), (1.5 * torch.randn(20, 4, generator=rng)).exp())


@pytest.mark.parametrize("start", STARTS)
def test_a_seed_gives_one_start(start: Starts, parts: list[Vectors]) -> None:
    first, second, other = (one(start, parts, 8, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert first.shape == (8, 3) and torch.equal(first, second) and not torch.equal(first, other)


@pytest.mark.parametrize("start", STARTS)
def test_a_problem_among_others_gets_the_starts_that_it_gets_alone(start: Starts, parts: list[Vectors]) -> None:
    problems = [parts, parts, parts[:1]]
    first, second = (torch.Generator().manual_seed(seed) for seed in (3, 4))
    together = start(problems, 8, [first, first, second])
    first, second = (torch.Generator().manual_seed(seed) for seed in (3, 4))
    alone = [one(start, *each) for each in zip(problems, [8] * 3, [first, first, second], strict=True)]
    assert all(map(torch.equal, together, alone)) and not torch.equal(*together[:2])


@pytest.mark.parametrize("count", [4, 60, 80, 1000])
def test_places_are_different_and_each_as_likely_as_another(count: int, rng: Generator) -> None:
    parts = [Vectors(torch.zeros(length, 1), torch.ones(1, 1)) for length in (90, 30)]
    hits, repeats = torch.zeros(120), 2000
    for _ in range(repeats):
        places = _random(parts, count, rng)
        assert len(set(places.tolist())) == len(places) == min(count, 120)
        hits[places[: min(count, 4)]] += 1  # the order is random too
    expected = repeats * 4 / 120
    assert float((hits - expected).abs().max()) < 5 * expected**0.5


def test_nowag_draws_distinct_vectors_of_the_matrices(parts: list[Vectors], rng: Generator) -> None:
    start = one(seed_nowag, parts, 8, rng)
    picked = (start[:, None] == torch.cat([part.x for part in parts])).all(2)
    assert picked.any(1).all() and picked.any(0).sum() == 8


@pytest.mark.parametrize("seed", range(8))
def test_the_second_codeword_lies_where_the_first_does_not(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    x = torch.stack([30.0 * (torch.arange(64) % 2), 100 * torch.randn(64, generator=rng)], 1)
    start = one(seed_nowag, [Vectors(x, torch.tensor([[1.0, 0.0]]))], 16, rng)
    assert sorted(start[:2, 0].tolist()) == [0.0, 30.0]


@pytest.mark.parametrize("seed", range(8))
def test_plus_plus_finds_every_distant_cluster(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    centres = 1e3 * torch.arange(16.0)
    x = centres.repeat(50)[:, None] + torch.randn(800, 2, generator=rng)
    start = one(seed_plus_plus, [Vectors(x, torch.ones(4, 2))], 16, rng)
    assert (start[:, 0] / 1e3).round().sort().values.tolist() == list(range(16))


def test_plus_plus_sees_a_rare_vector_that_weighs_much(rng: Generator) -> None:
    x, w = torch.randn(9_000, 2, generator=rng), torch.ones(9_000, 2)
    x[7_123], w[7_123] = 50, 1e4
    start = one(seed_plus_plus, [Vectors(x, w)], 16, rng)
    assert (start == 50).all(1).any()


@pytest.mark.parametrize("start", [seed_plus_plus, seed_refined])
def test_better_starts_end_lower_after_as_many_updates(start: Starts) -> None:
    def mean_loss(seeding: Starts) -> float:
        rngs = [torch.Generator().manual_seed(seed) for seed in range(3)]
        return sum(weighted_kmeans([x], one(seeding, [x], 64, rng), iterations=4).losses[-1] for rng in rngs)

    x = heavy(torch.Generator().manual_seed(0))
    assert mean_loss(start) < 0.99 * mean_loss(seed_nowag)


@pytest.mark.parametrize("start", STARTS)
def test_weightless_vectors_break_nothing(start: Starts, rng: Generator) -> None:
    x = [Vectors(torch.randn(40, 2, generator=rng), torch.zeros(4, 2))]
    found = weighted_kmeans(x, one(start, x, 8, rng), iterations=5)
    assert found.losses == [0.0, 0.0] and bool(found.codebook.isfinite().all())


@pytest.mark.parametrize("start", STARTS)
def test_as_many_codewords_as_vectors_or_as_few_different_ones(start: Starts, rng: Generator) -> None:
    few = [Vectors(torch.tensor([[1.0], [2.0]]).repeat(8, 1), torch.ones(1, 1))]
    codebook = one(start, few, 16, rng)
    assert codebook.shape == (16, 1) and set(codebook.flatten().tolist()) <= {1.0, 2.0}
