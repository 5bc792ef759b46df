"""CUDA C++ cannot run without a GPU: on a CPU only what it is compiled with is looked at."""

import pytest
import torch
from torch import Generator

from kernels.backend import plain_torch
from kernels.gpu.trellis import CHOICE_BYTES, SOURCE, defines, search, usable
from kernels.trellis import LENGTH, Bitshift, Code

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_the_choices_of_a_thread_fit_their_word() -> None:
    assert all(2**bits * bits <= 8 * each for bits, each in CHOICE_BYTES.items())


def test_the_source_has_every_constant_that_it_is_compiled_with() -> None:
    names = [define.split("=")[0] for define in defines(Bitshift(2, 16, "1mad"))]
    assert all(name in SOURCE.read_text() for name in names) and len(set(names)) == 7


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("code", ["1mad", "3inst"])
@pytest.mark.parametrize(("bits", "state_bits"), [(2, 8), (2, 16), (3, 8), (3, 13), (3, 16), (4, 8), (4, 16)])
def test_walks_cost_what_those_of_the_reference_cost_on_a_gpu(
    bits: int, state_bits: int, code: Code, rng: Generator, device: torch.device
) -> None:
    trellis, x = Bitshift(bits, state_bits, code), torch.randn(20, LENGTH, generator=rng).to(device)
    assert usable(trellis, device)
    found = search(trellis, x)
    with plain_torch():
        wanted = trellis.search(x)
    first, second = ((x - trellis.values(device)[states]).square().sum() for states in (found, wanted))
    assert float(first) == pytest.approx(float(second), rel=1e-4)
    assert (found == wanted).all(1).float().mean() >= 0.9  # but for near ties
    assert torch.equal(trellis.states(found & 2**bits - 1), found)


@pytest.mark.gpu
@needs_gpu
def test_blocks_that_take_several_walks_find_each_alone(rng: Generator, device: torch.device) -> None:
    trellis, x = Bitshift(2, 12, "1mad"), torch.randn(3000, LENGTH, generator=rng).to(device)
    found = search(trellis, x)
    assert torch.equal(search(trellis, x[2990:]), found[2990:])
    assert search(trellis, x[:0]).shape == (0, LENGTH)
