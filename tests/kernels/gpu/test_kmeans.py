"""Costs are compared with those of float64. A factor of a cost is the sum of two numbers of 8 bits.

Each of them misses half a unit in its last place at most, and a whole one in the interpreter, which truncates. So
a cost errs by three times 2^-16 or 2^-14 of its terms: for each factor, and for the product that is left out.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

import kernels.kmeans
import kernels.seeding
from kernels.gpu.kmeans import BLOCKS, assign
from kernels.gpu.seeding import MOST, spread
from kernels.gpu.segments import NARROW, PROGRAMS, SLICE, add_slices, segment_sums
from kernels.kmeans import KMeansResult, Vectors, weighted_kmeans, weighted_kmeans_batch

COST_ERROR = 3 * (2.0**-16 if torch.cuda.is_available() else 2.0**-14) + 2.0**-18
"""Of the terms of a cost, with what float32 adds in summing them."""

SHAPES = [(60, 5, 3, 8), (300, 3, 1, 2), (129, 43, 6, 100), (70, 7, 8, 128), (66, 33, 12, 65), (36, 3, 64, 20)]
"""n, G, d and K: ragged against every block."""


@pytest.fixture
def rng() -> Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def by_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every dispatch takes the kernels, which a CPU interprets; so few vectors settle soon."""
    monkeypatch.setattr("kernels.gpu.kmeans.LOOK", 3)
    monkeypatch.setattr(kernels.kmeans, "fused", lambda _: True)
    monkeypatch.setattr(kernels.seeding, "fused", lambda _: True)


def problem(rng: Generator, n: int, groups: int, d: int, size: int, device: torch.device) -> tuple[Tensor, ...]:
    """x [n, d], weights [G, d] over three orders of magnitude, and codewords [K, d]."""
    x, w = torch.randn(n, d, generator=rng), (2 * torch.randn(groups, d, generator=rng)).exp()
    return x.to(device), w.to(device), torch.randn(size, d, generator=rng).to(device)


def costs_and_terms(x: Tensor, w: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Σ w c (c - 2 x), and the sum of its terms' magnitudes, float64 [n, K]."""
    weights = w.double().repeat(len(x) // len(w), 1)
    cross, square = 2 * (weights * x) @ codebook.double().T, weights @ codebook.double().T.square()
    return square - cross, square + 2 * (weights * x).abs() @ codebook.double().T.abs()


@pytest.mark.parametrize("shape", SHAPES)
def test_codes_are_nearest_up_to_the_rounding_of_costs(
    shape: tuple[int, int, int, int], rng: Generator, device: torch.device
) -> None:
    x, w, codebook = problem(rng, *shape, device)
    codes, cost = assign(x[None], w[None], codebook[None])
    costs, terms = costs_and_terms(x, w, codebook)
    own = costs.gather(1, codes[0].long()[:, None])[:, 0]
    assert codes.dtype is torch.int32
    assert bool((own - costs.amin(1) <= 2 * COST_ERROR * terms.amax(1)).all())
    assert float((codes[0] == costs.argmin(1)).float().mean()) > 0.98
    torch.testing.assert_close(cost[0], own.sum(), rtol=0, atol=2.0**-20 * float(terms.amax(1).sum()))


def test_a_codeword_nearer_by_little_more_than_rounding_is_taken(rng: Generator, device: torch.device) -> None:
    codebook = torch.tensor([1.05, 1.37, 1.71, 1.99], device=device)
    low, high = codebook[:-1], codebook[1:]
    margin = (
        3 * 2 * COST_ERROR * high.square() / (high - low)
    )  # of x from the middle: costs differ by 2 w (c - b) it
    middles = torch.cat([(low + high) / 2 - margin, (low + high) / 2 + margin])
    x = middles.repeat(50)[:, None] * torch.ones(1, device=device)
    w = torch.rand(len(x), 1, generator=rng).to(device) + 0.5
    codes, _ = assign(x[None], w[None], codebook[None, :, None])
    assert codes[0].tolist() == [0, 1, 2, 1, 2, 3] * 50


@pytest.mark.parametrize("d", [1, 12, 24])  # bundles of four, of four, of one
def test_of_equal_codewords_the_first_wins_within_a_bundle_and_between_tiles(d: int, device: torch.device) -> None:
    x = torch.arange(1.0, 32.0, device=device)[:, None].expand(31, d)  # an odd number: equals lie all over bundles
    codebook = torch.cat([torch.full((3, d), -9.0, device=device), *[x] * 12])
    assert len(codebook) > BLOCKS[16].codewords
    codes, _ = assign(x[None], torch.ones(1, 1, d, device=device), codebook[None])
    assert codes[0].tolist() == list(range(3, 34))


def test_every_codeword_is_found_wherever_it_is_in_its_bundle(device: torch.device) -> None:
    line = torch.arange(-8.0, 9.0, device=device)
    codebook = torch.cartesian_prod(line, line)  # neighbours are one apart, in one bundle or two
    codes, _ = assign(codebook[None], torch.ones(1, 1, 2, device=device), codebook[None])
    assert codes[0].tolist() == list(range(17 * 17))


@pytest.mark.parametrize(("size", "narrow"), [(2, NARROW), (9, NARROW), (130, 130), (130, 131)])
def test_sums_are_those_of_float64_in_any_order(
    size: int, narrow: int, rng: Generator, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kernels.gpu.segments.NARROW", narrow)
    n, groups, d = 3 * 2 * SLICE, 12, 5
    x, w, _ = problem(rng, n, groups, d, 1, device)
    codes = (
        torch.randint(size, (n,), generator=rng, dtype=torch.int32).to(device) // 3 * 3
    )  # two in three stay empty
    weights = w.double().repeat(n // groups, 1)
    for found, each in zip(
        segment_sums([(x[None], w[None])], [codes[None]], size), (weights, weights * x), strict=True
    ):
        wanted, scale = (torch.zeros(size, d, dtype=torch.float64, device=device) for _ in range(2))
        wanted.index_add_(0, codes, each)
        scale.index_add_(0, codes, each.abs())
        assert found.shape == (1, size, d) and bool(((found[0] - wanted).abs() <= 1e-12 * scale).all())


def test_slices_add_up_column_by_column(rng: Generator, device: torch.device) -> None:
    assert PROGRAMS > SLICE  # so that the sums above came from slices
    slices = torch.randn(2, 37, 300, generator=rng, dtype=torch.float64).to(device)
    torch.testing.assert_close(add_slices(slices), slices.sum(1), rtol=0, atol=37 * 2.0**-50)


def clusters(seed: int, device: torch.device) -> tuple[list[Vectors], Tensor]:
    """Two parts that share a codebook, of 4 codewords from their own vectors."""
    rng = torch.Generator().manual_seed(seed)
    first, second = (problem(rng, *shape, 1, device)[:2] for shape in ((40, 5, 3), (28, 7, 3)))
    return [Vectors(*first), Vectors(*second)], first[0][:4].clone()


def same(found: KMeansResult, wanted: KMeansResult) -> bool:
    tensors = zip([found.codebook, *found.codes], [wanted.codebook, *wanted.codes], strict=True)
    return all(torch.equal(a, b) for a, b in tensors) and all(
        getattr(found, name) == getattr(wanted, name)
        for name in ("losses", "iterations", "converged", "empty_clusters")
    )


@pytest.mark.usefixtures("by_kernels")
def test_a_batch_gives_each_problem_what_it_gets_alone(device: torch.device) -> None:
    problems, inits = zip(*(clusters(seed, device) for seed in (0, 5)), strict=True)
    together = weighted_kmeans_batch(problems, inits, 40, torch.float16)
    alone = [weighted_kmeans(parts, init, 40, torch.float16) for parts, init in zip(problems, inits, strict=True)]
    assert all(map(same, together, alone))
    assert len({found.iterations for found in alone}) > 1 and all(found.converged for found in alone)


@pytest.mark.usefixtures("by_kernels")
@pytest.mark.parametrize("iterations", [0, 2, 40])
def test_steps_past_convergence_leave_no_trace(iterations: int, device: torch.device) -> None:
    parts, init = clusters(1, device)
    looking = kernels.kmeans._lloyd(parts, init, iterations, torch.float32, False)
    assert same(weighted_kmeans(parts, init, iterations), looking)


@pytest.mark.usefixtures("by_kernels")
def test_problems_of_different_shapes_run_one_after_another(device: torch.device) -> None:
    (parts, init), (others, start) = clusters(0, device), clusters(1, device)
    found = weighted_kmeans_batch([parts, others[:1]], [init, start[:3]], 3)
    assert same(found[0], weighted_kmeans(parts, init, 3)) and same(
        found[1], weighted_kmeans(others[:1], start[:3], 3)
    )


def test_losses_are_those_of_the_plain_iteration(device: torch.device, request: pytest.FixtureRequest) -> None:
    parts, init = clusters(2, device)
    plain = weighted_kmeans([Vectors(x.cpu(), w.cpu()) for x, w in parts], init.cpu(), 40)
    request.getfixturevalue("by_kernels")
    found = weighted_kmeans(parts, init, 40)
    assert found.losses == pytest.approx(plain.losses, rel=1e-4)  # a code may change between costs 2^-15 apart
    assert (found.iterations, found.converged) == (plain.iterations, plain.converged)
    torch.testing.assert_close(found.codebook.cpu(), plain.codebook, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("by_kernels")
def test_reseeding_by_kernels_fills_empty_clusters(device: torch.device) -> None:
    parts, init = clusters(0, device)
    start = torch.cat([init[:2], 1e3 + torch.arange(3, device=device)[:, None].expand(-1, 3)])
    without, found = (weighted_kmeans(parts, start, 4, reseed=reseed) for reseed in (False, True))
    assert without.empty_clusters == 3 and found.empty_clusters == 0
    assert found.losses[-1] < without.losses[-1]


def on(pool: Vectors, device: torch.device) -> Vectors:
    return Vectors(*(each.to(device) for each in pool))


@pytest.mark.parametrize(("count", "d", "size", "subset"), [(160, 6, 40, 40), (2300, 6, 20, 700), (70, 64, 9, 70)])
@pytest.mark.parametrize("most", [1.0, torch.inf])
def test_a_spread_takes_the_vectors_of_the_plain_loop(
    count: int, d: int, size: int, subset: int, most: float, rng: Generator, device: torch.device
) -> None:
    pool = Vectors(torch.randn(count, d, generator=rng), torch.rand(count, d, generator=rng))
    starts = torch.randint(count - subset + 1, (size,), generator=rng)
    draws = torch.rand(size, generator=rng)
    wanted = kernels.seeding._spread_plainly(pool, starts, draws, subset, most)
    picks = spread([on(pool, device)], starts[None], draws[None], subset, most)
    assert torch.equal(pool.x[picks[0].cpu()], wanted)


@pytest.mark.parametrize("subset", [40, 1100])
def test_pools_of_any_lengths_spread_together_as_each_does_alone(
    subset: int, rng: Generator, device: torch.device
) -> None:
    lengths, size = (1100, 70, 40), 16
    pools = [Vectors(torch.randn(n, 6, generator=rng), torch.rand(n, 6, generator=rng)) for n in lengths]
    pools[2].w.zero_()  # so that the last of its own is taken, and not of the longest
    starts = torch.stack([torch.randint(max(1, n - subset + 1), (size,), generator=rng) for n in lengths])
    draws = torch.rand(3, size, generator=rng)
    picks = spread([on(pool, device) for pool in pools], starts, draws, subset, torch.inf).cpu()
    for number, pool in enumerate(pools):
        wanted = kernels.seeding._spread_plainly(pool, starts[number], draws[number], subset, torch.inf)
        assert torch.equal(pool.x[picks[number]], wanted)
        alone = spread([on(pool, device)], starts[number, None], draws[number, None], subset, torch.inf)
        assert torch.equal(picks[number], alone[0].cpu())


def test_a_spread_takes_nothing_twice_while_anything_is_left(device: torch.device) -> None:
    x = torch.arange(32.0, device=device).repeat_interleave(2)[:, None]
    ends = torch.tensor([0.0, 1.0]).repeat(18).to(device)  # 1 stands for a ladder that rounding left short
    starts = torch.zeros(1, 36, dtype=torch.int64, device=device)
    picks = spread([(x, torch.ones_like(x))], starts, ends[None], 64, torch.inf)[0]
    assert x[picks[:32], 0].sort().values.tolist() == list(range(32))
    assert picks[32:].tolist() == [63] * 4


def test_too_large_a_pool_is_refused(device: torch.device) -> None:
    x = torch.zeros(MOST + 1, 1, device=device)
    with pytest.raises(ValueError, match=f"a pool of {MOST + 1} vectors is more than {MOST}"):
        spread([(x, x)], torch.zeros(1, 1, device=device), torch.zeros(1, 1, device=device), 1, 1.0)


@pytest.mark.parametrize("start", [kernels.seeding.seed_nowag, kernels.seeding.seed_plus_plus])
def test_seeds_of_kernels_and_of_plain_torch_are_one(
    start: Callable[..., list[Tensor]], device: torch.device, request: pytest.FixtureRequest
) -> None:
    problems = [clusters(seed, device)[0] for seed in (3, 5)]  # whose candidates have no two costs within 2^-13
    on_cpu = [[Vectors(x.cpu(), w.cpu()) for x, w in parts] for parts in problems]
    plain = start(on_cpu, 8, [torch.Generator().manual_seed(seed) for seed in (5, 6)])
    request.getfixturevalue("by_kernels")
    found = start(problems, 8, [torch.Generator().manual_seed(seed) for seed in (5, 6)])
    torch.testing.assert_close(
        torch.stack(found).cpu(), torch.stack(plain), rtol=1e-6, atol=1e-6
    )  # means come from sums in another order
