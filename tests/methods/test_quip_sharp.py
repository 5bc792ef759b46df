from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Generator, Tensor

from kernels.backend import plain_torch
from kernels.hadamard import Rotation
from kernels.turns import Turns
from methods.hessian import UnitGram, gram_error
from methods.incoherence import balance
from methods.quip_sharp import QuIPSharp
from methods.statistics import Statistics
from tests.methods.conftest import GOLDEN

CASES = [(rescale, sweeps) for rescale in (False, True) for sweeps in (0, 10)]


@pytest.fixture(scope="module")
def small() -> dict[str, Tensor]:
    """A layer, and what the authors' program made of it."""
    return {**load_file(GOLDEN / "small.safetensors"), **load_file(GOLDEN / "small_quip.safetensors")}


@pytest.fixture
def layer(small: dict[str, Tensor]) -> tuple[Tensor, Statistics]:
    gram = small["hessian"]
    return small["weight"], Statistics(gram.diagonal().clone(), torch.zeros(len(gram)), tokens=1, gram=gram)


def published_turns(small: dict[str, Tensor], key: str) -> Turns:
    """The authors' signs and Hadamard matrices: there are many of an order."""
    parts = [(small[f"hadamard_order_{n}"].sign() / n**0.5,) for n in (48, 192)]
    signs = [small[f"{key}_sign_{side}"].float() for side in ("out", "in")]
    return Turns(*map(Rotation, signs, parts))


@pytest.mark.parametrize(("rescale", "sweeps"), CASES)
def test_the_published_rotations_give_the_published_weights(
    rescale: bool, sweeps: int, small: dict[str, Tensor], layer: tuple[Tensor, Statistics]
) -> None:
    weight, statistics = layer
    key = f"quip_e8p_rescale{rescale:d}_tune{sweeps}"
    turns, method = published_turns(small, key), QuIPSharp(rescale=rescale, sweeps=sweeps)
    found = method.solve(weight, UnitGram.of(statistics, 0), turns, torch.float32)
    decoded = turns.back(found.points * found.scale) / (1 if found.rescale is None else found.rescale)
    assert (decoded - small[key]).norm() < 1e-5 * small[key].norm()
    torch.testing.assert_close(found.scale, small[key + "_scale_of_weight"], rtol=1e-3, atol=0)


def test_the_published_balance_is_found(small: dict[str, Tensor], layer: tuple[Tensor, Statistics]) -> None:
    found = balance(layer[0], UnitGram.of(layer[1], 0), 0.01)
    torch.testing.assert_close(found, small["quip_e8p_rescale1_tune0_scale"], rtol=1e-5, atol=0)


@pytest.mark.parametrize(("rescale", "sweeps"), CASES)
def test_other_rotations_lose_as_little_as_the_published_ones(
    rescale: bool, sweeps: int, small: dict[str, Tensor], layer: tuple[Tensor, Statistics]
) -> None:
    method = QuIPSharp(rescale=rescale, sweeps=sweeps)
    draws = 20 if sweeps == 0 else 6
    runs = [method.compress(*layer, Generator().manual_seed(seed)).audit["gram_error"] for seed in range(draws)]
    published = gram_error(layer[0], small[f"quip_e8p_rescale{rescale:d}_tune{sweeps}"], small["hessian"])
    assert published and sum(float(run or torch.nan) for run in runs) / draws < 1.03 * published


def test_each_bit_cuts_the_error(layer: tuple[Tensor, Statistics], rng: Generator) -> None:
    first, second, third = (
        float(QuIPSharp(bits=bits, sweeps=1).compress(*layer, rng).audit["gram_error"] or torch.nan)
        for bits in (2, 3, 4)
    )
    assert second < 0.4 * first and third < 0.4 * second


def test_sweeps_lower_the_error_of_ldlq(layer: tuple[Tensor, Statistics], rng: Generator) -> None:
    audit = QuIPSharp(sweeps=3).compress(*layer, rng).audit
    assert float(audit["swept_error"] or 1) < 0.9 * float(audit["ldlq_error"] or 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_kernels_lose_as_little_as_the_reference(bits: int, layer: tuple[Tensor, Statistics]) -> None:
    weight, statistics = layer
    assert statistics.gram is not None
    gram = statistics.gram.cuda()
    there = Statistics(gram.diagonal().clone(), torch.zeros(len(gram), device="cuda"), tokens=1, gram=gram)
    method = QuIPSharp(bits=bits)
    found = method.compress(weight.cuda(), there, Generator().manual_seed(0))
    with plain_torch():
        wanted = method.compress(weight.cuda(), there, Generator().manual_seed(0))
    assert found.audit["gram_error"] == pytest.approx(wanted.audit["gram_error"], rel=0.03)
    turned_on_cpu = gram_error(weight, found.format.dequantize().cpu(), statistics.gram)
    assert turned_on_cpu == pytest.approx(found.audit["gram_error"], rel=1e-3)


def test_the_audit_names_rotations_and_padding(rng: Generator) -> None:
    x = torch.randn(200, 92, generator=rng)
    statistics = Statistics(x.square().sum(0), x.mean(0), 200, x.T @ x)
    audit = QuIPSharp(sweeps=0).compress(torch.randn(26, 92, generator=rng), statistics, rng).audit
    assert (audit["hadamard_in"], audit["hadamard_out"], audit["padded_inputs"]) == (96, 2, 4)
    assert (audit["damping"], audit["damping_raised"]) == (0.01, 0)


@pytest.mark.parametrize("rescale", [False, True])
def test_side_parameters_take_the_dtype_they_are_stored_in(
    rescale: bool, layer: tuple[Tensor, Statistics], rng: Generator
) -> None:
    found = QuIPSharp(rescale=rescale, sweeps=0).compress(layer[0].half(), layer[1], rng).format.tensors()
    assert found["scale"].dtype == torch.float16
    assert rescale == ("rescale" in found) and (not rescale or found["rescale"].dtype == torch.float16)


def test_balancing_survives_dead_inputs_and_empty_weights(rng: Generator) -> None:
    nothing = Statistics(torch.zeros(16), torch.zeros(16), tokens=1, gram=torch.zeros(16, 16))
    method, weight = QuIPSharp(rescale=True, sweeps=1), torch.randn(8, 16, generator=rng)
    assert method.compress(weight, nothing, rng).format.dequantize().isfinite().all()
    assert not method.compress(torch.zeros(8, 16), nothing, rng).format.dequantize().any()


def test_the_seed_decides_the_signs(layer: tuple[Tensor, Statistics]) -> None:
    first, second = (
        QuIPSharp(sweeps=0).compress(*layer, Generator().manual_seed(seed)).format.tensors() for seed in (1, 2)
    )
    assert not torch.equal(first["sign_in"], second["sign_in"])
    assert not torch.equal(first["sign_out"], second["sign_out"])


@pytest.mark.parametrize(
    ("settings", "variant"),
    [
        ({}, "2 bits"),
        ({"bits": 4, "rescale": True}, "4 bits rescale"),
        ({"sweeps": 2, "damping": 0.05, "scale": 0.9}, "2 bits sweeps=2 damping=0.05 scale=0.9"),
    ],
)
def test_a_variant_prints_what_is_not_the_default(settings: dict[str, Any], variant: str) -> None:
    assert QuIPSharp(**settings).variant == variant


@pytest.mark.parametrize("settings", [{"bits": 5}, {"sweeps": -1}, {"scale": 0.0}, {"codebook": "D4"}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(settings))):
        QuIPSharp(**settings)
