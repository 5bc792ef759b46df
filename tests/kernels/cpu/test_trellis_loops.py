from collections.abc import Iterator

import pytest
import torch
from torch import Generator

from kernels.backend import plain_torch
from kernels.trellis import LENGTH, Bitshift, Code

pytest.importorskip("numba")

from kernels.cpu.trellis import search  # noqa: E402


@pytest.fixture
def rng() -> Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize(("bits", "state_bits", "code"), [(2, 9, "1mad"), (3, 8, "3inst"), (4, 9, "1mad")])
def test_walks_cost_what_those_of_the_reference_cost(
    bits: int, state_bits: int, code: Code, rng: Generator
) -> None:
    trellis, x = Bitshift(bits, state_bits, code), torch.randn(30, LENGTH, generator=rng)
    found = search(trellis, x)
    with plain_torch():
        wanted = trellis.search(x)
    first, second = ((x - trellis.values(x.device)[states]).square().sum() for states in (found, wanted))
    assert float(first) == pytest.approx(float(second), rel=1e-4)
    assert (found == wanted).all(1).float().mean() > 0.9  # but for near ties
    assert torch.equal(trellis.states(found & 2**bits - 1), found)


def test_neither_threads_nor_other_walks_change_a_walk(threads: int, rng: Generator) -> None:
    trellis, x = Bitshift(2, 8, "1mad"), torch.randn(200, LENGTH, generator=rng)
    found = search(trellis, x)
    torch.set_num_threads(1)
    assert torch.equal(search(trellis, x[77:90]), found[77:90]) and found.shape == x.shape


def test_nothing_to_search_for_is_nothing() -> None:
    assert search(Bitshift(2, 8, "1mad"), torch.empty(0, LENGTH)).shape == (0, LENGTH)
