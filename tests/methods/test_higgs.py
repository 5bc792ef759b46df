from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Generator, Tensor
from torch.nn import functional

from kernels.backend import plain_torch
from kernels.gaussian import gaussian_grid
from methods.higgs import HIGGS
from methods.method import Compressed
from methods.statistics import Statistics


def compress(method: HIGGS, weight: Tensor, seed: int = 0) -> Compressed:
    return method.compress(weight, Statistics.none(weight.shape[1], weight.device), Generator().manual_seed(seed))


def error(method: HIGGS, weight: Tensor) -> float:
    """‖Ŵ − W‖² / ‖W‖²."""
    decoded = compress(method, weight).format.dequantize()
    return float((decoded - weight).square().sum() / weight.square().sum())


def wild(rng: Generator) -> Tensor:
    """[96, 1024] with heavy tails, and inputs that dwarf the others."""
    weight = torch.randn(96, 1024, generator=rng) ** 3
    weight[:, ::64] *= 4
    return weight


@pytest.mark.parametrize("settings", [{}, {"bits": 3}, {"bits": 4, "dim": 1}, {"bits": 2, "dim": 3}], ids=str)
@pytest.mark.parametrize("kind", ["gaussian", "wild"])
def test_the_error_is_that_of_the_grid_whatever_the_weight(
    settings: dict[str, Any], kind: str, rng: Generator
) -> None:
    method, weight = HIGGS(**settings), torch.randn(96, 1024, generator=rng) if kind == "gaussian" else wild(rng)
    wanted = gaussian_grid(2**method.code_bits, method.dim).distortion
    assert error(method, weight) == pytest.approx(wanted, rel=0.04)
    assert compress(method, weight).audit["grid_distortion"] == wanted


def test_without_the_turn_a_wild_weight_loses_far_more(rng: Generator) -> None:
    weight, points = wild(rng), gaussian_grid(4, 1).points[:, 0]
    units = weight / weight.square().mean(1, keepdim=True).sqrt()
    plain = (units - points[(units[..., None] - points).abs().argmin(-1)]).square().mean()
    assert plain > 3 * error(HIGGS(bits=2, dim=1), weight)


def test_a_scale_is_the_root_mean_square_of_its_group(rng: Generator) -> None:
    weight = torch.randn(5, 96, generator=rng) * torch.arange(1, 97)
    scale = compress(HIGGS(group_size=32), weight.half()).format.tensors()["scale"]
    assert scale.dtype == torch.float16
    wanted = weight.view(5, 3, 32).square().mean(-1).sqrt()
    torch.testing.assert_close(scale.float(), wanted, rtol=2**-9, atol=0)


@pytest.mark.parametrize("dim", [2, 3])
def test_no_other_code_is_nearer(dim: int, rng: Generator) -> None:
    weight = torch.randn(6, 20, generator=rng)
    stored = compress(HIGGS(bits=1, dim=dim), weight).format
    units = stored.turn.turn(weight) / stored.scale
    found = stored.turn.turn(stored.dequantize()) / stored.scale
    vectors = functional.pad(units, (0, -20 % dim)).view(6, -1, 1, dim)
    inside = functional.pad(torch.ones(20), (0, -20 % dim)).view(-1, 1, dim)  # padding costs nothing
    least = ((vectors - stored.codebook) * inside).square().sum(-1).min(-1).values.sum()
    torch.testing.assert_close((units - found).square().sum(), least, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("width", "group_size", "found"),
    [
        (4096, 1024, (1024, 1024)),
        (576, 1024, (576, 576)),
        (11008, 1024, (688, 688)),
        (1536, 1024, (768, 768)),
        (13696, 1024, (128, 128)),
        (92, 1024, (4, 92)),
        (7, 8, (1, 7)),
    ],
)
def test_inputs_are_turned_in_the_largest_blocks_that_fit(
    width: int, group_size: int, found: tuple[int, int]
) -> None:
    assert HIGGS(group_size=group_size).groups(width) == found


def test_the_audit_names_blocks_scales_and_padding(rng: Generator) -> None:
    audit = compress(HIGGS(dim=3), torch.randn(8, 92, generator=rng)).audit
    assert (audit["hadamard_in"], audit["scale_group"], audit["padded_inputs"]) == (4, 92, 1)


@pytest.mark.parametrize("share", ["linear", "block"])
def test_each_compression_has_a_grid_of_its_own_that_all_of_it_share(share: str, rng: Generator) -> None:
    method = HIGGS(share=share)
    given = [torch.randn(n, 32, generator=rng) for n in (4, 8)], [Statistics.none(32)] * 2
    first, second = (method.compress_together(*given, rng) for _ in range(2))
    assert first[0].format.codebook is first[1].format.codebook
    assert first[0].format.codebook is not second[0].format.codebook
    first[0].format.codebook.zero_()
    assert gaussian_grid(16, 2).points.any() and second[0].format.codebook.any()


def test_the_seed_decides_the_signs_of_each_linear(rng: Generator) -> None:
    weight = torch.randn(4, 64, generator=rng)
    first, second = (compress(HIGGS(), weight, seed).format for seed in (1, 2))
    assert not torch.equal(first.signs, second.signs)
    both = HIGGS().compress_together([weight] * 2, [Statistics.none(64)] * 2, rng)
    assert not torch.equal(both[0].format.signs, both[1].format.signs)


def test_at_published_settings_a_wide_weight_takes_two_bits_and_a_hundredth() -> None:
    shape = (4096, 4096)
    bits = HIGGS().stored_bits([shape]) / 4096**2
    assert bits == 2 + 16 / 1024 + (4096 + 16 * 32) / 4096**2


@pytest.mark.parametrize(
    ("settings", "variant"),
    [
        ({}, "2 bits d2"),
        ({"bits": 3, "dim": 1, "group_size": 64, "share": "linear"}, "3 bits d1 g64 share=linear"),
    ],
)
def test_a_variant_prints_what_is_not_the_default(settings: dict[str, Any], variant: str) -> None:
    assert HIGGS(**settings).variant == variant


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 1.3}, "a whole number from 1 to 12: 1.3 . 2 = 2.6"),
        ({"bits": 7}, "a whole number from 1 to 12: 7 . 2 = 14"),
        ({"bits": 9, "dim": 1}, "bits"),
        ({"dim": 9}, "dim"),
        ({"group_size": 4}, "group_size"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        HIGGS(**settings)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_kernels_choose_the_codes_of_the_reference(rng: Generator) -> None:
    weight = torch.randn(256, 1024, generator=rng).cuda()
    found = compress(HIGGS(bits=4), weight).format
    with plain_torch():
        wanted = compress(HIGGS(bits=4), weight).format
    assert (found.codes != wanted.codes).float().mean() < 1e-3  # but for those halfway between two points
    torch.testing.assert_close(found.dequantize().cpu(), found.to("cpu").dequantize(), rtol=0, atol=1e-4)
