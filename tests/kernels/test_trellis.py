from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator

from kernels.backend import plain_torch
from kernels.format import bits_of
from kernels.hadamard import Rotation
from kernels.trellis import LENGTH, Bitshift, Code, Trellis, sums
from kernels.turns import Turns

CPU = torch.device("cpu")
CASES: list[tuple[int, int, Code]] = [(2, 8, "1mad"), (3, 10, "3inst"), (4, 9, "1mad")]


def test_1mad_adds_the_four_bytes_of_a_congruence() -> None:
    words = [(34038481 * state + 76625530) % 2**32 for state in range(2**16)]
    assert sums("1mad", 16).tolist() == [sum(word.to_bytes(4, "little")) for word in words]


def test_3inst_adds_two_halves_of_a_congruence_with_exponents_around_0_922() -> None:
    words = [(89226354 * state + 64248484) % 2**32 & 0x8FFF8FFF for state in range(2**16)]
    halves = torch.tensor([[word & 0xFFFF, word >> 16] for word in words]).to(torch.uint16)
    magic = torch.tensor(0.922).half().view(torch.uint16)
    assert torch.equal(sums("3inst", 16), (halves ^ magic).view(torch.float16).float().sum(1))


@pytest.mark.parametrize("code", ["1mad", "3inst"])
@pytest.mark.parametrize("state_bits", [8, 12, 16])
def test_values_are_standardised_and_almost_gaussian(code: Code, state_bits: int) -> None:
    values = Bitshift(2, state_bits, code).values(CPU).double()
    assert abs(float(values.mean())) < 1e-6 and abs(float(values.square().mean()) - 1) < 1e-6
    assert 2.6 < float(values.pow(4).mean()) < 3  # 3 for a Gaussian


def test_states_are_windows_of_one_cyclic_stream(rng: Generator) -> None:
    codes = torch.randint(8, (1, LENGTH), generator=rng)
    stream = "".join(f"{code:03b}" for code in codes[0].tolist())
    windows = [(2 * stream)[len(stream) + 3 * (step + 1) - 10 :][:10] for step in range(LENGTH - 1)]
    windows.append(stream[-10:])
    assert Bitshift(3, 10, "1mad").states(codes)[0].tolist() == [int(window, 2) for window in windows]


@pytest.mark.parametrize(("bits", "state_bits", "code"), CASES)
def test_a_walk_is_found_again_from_its_values(bits: int, state_bits: int, code: Code, rng: Generator) -> None:
    trellis = Bitshift(bits, state_bits, code)
    codes = torch.randint(2**bits, (3, LENGTH), generator=rng)
    with plain_torch():
        assert torch.equal(trellis.search(trellis.decode(codes)), trellis.states(codes))


@pytest.mark.parametrize(("bits", "state_bits", "code"), CASES)
def test_quantised_blocks_are_what_their_codes_decode_to(
    bits: int, state_bits: int, code: Code, rng: Generator
) -> None:
    trellis = Bitshift(bits, state_bits, code)
    with plain_torch():
        codes, values = trellis(torch.randn(32, 16, generator=rng), 0)
    assert codes.shape == (2, LENGTH) and torch.equal(trellis.decode(codes).view(32, 16), values)


def test_no_other_code_of_one_step_comes_nearer(rng: Generator) -> None:
    trellis, x = Bitshift(2, 8, "1mad"), torch.randn(1, LENGTH, generator=rng)
    with plain_torch():
        codes = trellis.search(x) & 3
    steps = torch.arange(8, LENGTH - 8)  # away from the ends, where the search is no search for the best
    others = codes.repeat(3, len(steps), 1)
    for other in range(3):
        others[other, torch.arange(len(steps)), steps] = (codes[0, steps] + other + 1) % 4
    errors = (x - trellis.decode(others.flatten(0, 1))).square().sum(1)
    assert float(errors.min()) > float((x - trellis.decode(codes)).square().sum())


@pytest.mark.parametrize(("bits", "size", "bound"), [(2, 0.97, 0.0795), (3, 0.92, 0.0215), (4, 0.88, 0.0057)])
def test_gaussian_numbers_cost_what_was_measured(bits: int, size: float, bound: float, rng: Generator) -> None:
    x = torch.randn(256, LENGTH, generator=rng)
    trellis = Bitshift(bits, 10, "1mad")
    values = trellis.values(CPU)[trellis.search(size * x)]
    assert float((values / size - x).square().mean()) < bound  # Lloyd-Max: 0.1175, 0.0345, 0.0095


@pytest.mark.slow
@pytest.mark.parametrize("code", ["1mad", "3inst"])
def test_sixteen_bits_a_state_reach_the_published_error(code: Code, rng: Generator) -> None:
    x, trellis = torch.randn(256, LENGTH, generator=rng), Bitshift(2, 16, code)
    assert float((trellis.values(CPU)[trellis.search(x)] - x).square().mean()) < 0.0705


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((5, 10, "1mad"), "a trellis takes 2, 3 or 4 bits, got 5"),
        ((2, 17, "1mad"), "has 8 to 16 bits, got 17"),
        ((2, 10, "hyb"), "is 1mad or 3inst, got 'hyb'"),
    ],
)
def test_a_trellis_out_of_range_is_refused(settings: tuple[Any, Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Bitshift(*settings)


@pytest.fixture
def weight(rng: Generator) -> Trellis:
    """[20, 40], in 2 by 3 tiles, at a scale of 2."""
    codes = torch.randint(4, (2, 3, LENGTH), generator=rng)
    side = {**Turns.drawn((32, 48), rng, CPU).fields(), "scale": torch.tensor([2.0]), "rescale": None}
    return Trellis.of((20, 40), codes, Bitshift(2, 9, "1mad"), side)


def test_tiles_follow_one_another_along_the_inputs_row_by_row(rng: Generator) -> None:
    trellis, codes = Bitshift(4, 8, "1mad"), torch.randint(16, (2, 3, LENGTH), generator=rng)
    side = {**Turns.drawn((32, 48), rng, CPU).fields(), "scale": torch.ones(1), "rescale": None}
    values = Trellis.of((32, 48), codes, trellis, side).values()
    assert torch.equal(values[16:, 32:].flatten(), trellis.decode(codes[1, 2:])[0])
    assert torch.equal(values[:16, 16:32].flatten(), trellis.decode(codes[0, 1:2])[0])


def test_decoding_undoes_scale_rotations_padding_and_rescaling(weight: Trellis, rng: Generator) -> None:
    rescale = torch.rand(40, generator=rng) + 0.5
    rotations = Rotation.stored(weight.sign_out, 32, 32), Rotation.stored(weight.sign_in, 48, 48)
    out, into = (rotation.turn(torch.eye(len(rotation.signs))) for rotation in rotations)
    wanted = (out @ (2 * weight.values()) @ into.T)[:20, :40] / rescale
    torch.testing.assert_close(replace(weight, rescale=rescale).dequantize(), wanted, rtol=0, atol=1e-5)


def test_the_scale_can_be_learned(weight: Trellis) -> None:
    scale = weight.scale.clone().requires_grad_()
    weight.with_tensors({"scale": scale}).dequantize().sum().backward()
    assert float(scale.grad) == pytest.approx(float(weight.dequantize().sum()) / 2, rel=1e-4)


def test_whole_tiles_are_stored_and_counted(weight: Trellis) -> None:
    assert weight.breakdown() == {"codes": 2 * 32 * 48, "signs": 80, "scales": 32}
    assert weight.nominal_bits == 2.0
    assert bits_of(Trellis.planned((20, 40), weight.trellis, True), 16) == 2 * 32 * 48 + 80 + 16 * 41
