from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Generator, Tensor

from kernels.backend import plain_torch
from kernels.trellis import Trellis
from methods.qtip import QTIP
from methods.quip_sharp import QuIPSharp
from methods.statistics import Statistics
from tests.methods.conftest import GOLDEN, statistics_of


@pytest.fixture
def layer() -> tuple[Tensor, Statistics]:
    """A weight [48, 192] and its statistics."""
    small = load_file(GOLDEN / "small.safetensors")
    gram = small["hessian"]
    return small["weight"], Statistics(gram.diagonal().clone(), torch.zeros(len(gram)), tokens=1, gram=gram)


def lost(settings: dict[str, Any], layer: tuple[Tensor, Statistics], draws: int = 3) -> float:
    """The mean share of output energy that is lost, over draws of the signs."""
    runs = [QTIP(**settings).compress(*layer, Generator().manual_seed(seed)).audit for seed in range(draws)]
    return sum(float(audit["gram_error"] or torch.nan) for audit in runs) / draws


def test_a_trellis_loses_less_than_the_lattice_without_sweeps(layer: tuple[Tensor, Statistics]) -> None:
    lattice = [QuIPSharp(sweeps=0).compress(*layer, Generator().manual_seed(s)).audit for s in range(3)]
    loss = sum(float(audit["gram_error"] or 0) for audit in lattice) / 3
    assert lost({"state_bits": 10}, layer) < 0.95 * loss


def test_each_bit_of_a_weight_cuts_the_error(layer: tuple[Tensor, Statistics]) -> None:
    first, second, third = (lost({"bits": bits, "state_bits": 8}, layer, draws=1) for bits in (2, 3, 4))
    assert second < 0.4 * first and third < 0.4 * second


def test_more_states_lose_less(layer: tuple[Tensor, Statistics]) -> None:
    assert lost({"state_bits": 11}, layer) < 0.97 * lost({"state_bits": 8}, layer)


def test_feedback_lowers_what_is_lost(layer: tuple[Tensor, Statistics]) -> None:
    weight, statistics = layer
    rounded = Statistics(torch.ones(192), torch.zeros(192), tokens=1, gram=torch.eye(192))
    blind = QTIP(state_bits=8).compress(weight, rounded, Generator().manual_seed(0)).format.dequantize()
    error = weight - blind
    without = float(((error @ statistics.gram) * error).sum() / ((weight @ statistics.gram) * weight).sum())
    assert lost({"state_bits": 8}, layer, draws=1) < 0.8 * without


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_kernel_loses_as_little_as_the_reference(bits: int, layer: tuple[Tensor, Statistics]) -> None:
    weight, statistics = layer
    gram, nothing = statistics.gram.cuda(), torch.zeros(192, device="cuda")
    there = Statistics(gram.diagonal().clone(), nothing, tokens=1, gram=gram)
    method = QTIP(bits=bits, state_bits=10)
    found = method.compress(weight.cuda(), there, Generator().manual_seed(0))
    with plain_torch():
        wanted = method.compress(weight.cuda(), there, Generator().manual_seed(0))
    assert found.audit["gram_error"] == pytest.approx(wanted.audit["gram_error"], rel=0.03)
    decoded_on_cpu = found.format.to("cpu").dequantize()
    torch.testing.assert_close(decoded_on_cpu, found.format.dequantize().cpu(), rtol=0, atol=1e-4)


def test_the_audit_names_rotations_and_padding(rng: Generator) -> None:
    x = torch.randn(200, 92, generator=rng)
    audit = QTIP(state_bits=8).compress(torch.randn(26, 92, generator=rng), statistics_of(x), rng).audit
    assert (audit["hadamard_in"], audit["hadamard_out"]) == (96, 32)
    assert (audit["padded_inputs"], audit["padded_rows"]) == (4, 6)
    assert (audit["damping"], audit["damping_raised"]) == (0.01, 0)


def test_the_scale_gives_targets_the_size_that_is_set(layer: tuple[Tensor, Statistics], rng: Generator) -> None:
    found = QTIP(state_bits=8, scale=0.5).compress(*layer, rng).format
    assert isinstance(found, Trellis)
    assert float(found.scale) == pytest.approx(2 * float(layer[0].square().mean().sqrt()), rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "variant"),
    [
        ({}, "2 bits L=16"),
        ({"bits": 4, "rescale": True, "code": "3inst"}, "4 bits L=16 3inst rescale"),
        ({"state_bits": 12, "damping": 0.05, "scale": 0.9}, "2 bits L=12 damping=0.05 scale=0.9"),
    ],
)
def test_a_variant_prints_its_states_and_what_is_not_the_default(settings: dict[str, Any], variant: str) -> None:
    assert QTIP(**settings).variant == variant


@pytest.mark.parametrize("settings", [{"bits": 5}, {"state_bits": 7}, {"scale": 0.0}, {"code": "hyb"}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(settings))):
        QTIP(**settings)
