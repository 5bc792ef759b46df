import pytest
import torch
from pydantic import ValidationError
from torch import Generator, Tensor

from kernels.kmeans import assign
from methods.normalizer import normalize
from methods.nowag_vq import NoWagVQ
from methods.statistics import Statistics

Layer = tuple[Tensor, Statistics]


@pytest.fixture
def layer(rng: Generator) -> Layer:
    """A weight [48, 50] and inputs of very different size."""
    x_sq = torch.rand(50, generator=rng) ** 4
    return torch.randn(48, 50, generator=rng), Statistics(x_sq, torch.zeros(50), 10)


@pytest.mark.parametrize(("bits", "dim"), [(2.0, 6), (0.5, 6), (1.5, 4), (16.0, 1), (7 / 3, 3), (1 / 3, 6)])
def test_a_code_of_whole_bits_is_accepted(bits: float, dim: int) -> None:
    assert NoWagVQ(bits=bits, dim=dim).code_bits == round(bits * dim)


@pytest.mark.parametrize(("bits", "dim"), [(2.3, 6), (3.0, 6), (0.1, 6), (16.0, 2)])
def test_a_code_of_broken_or_too_many_bits_is_refused(bits: float, dim: int) -> None:
    with pytest.raises(ValidationError, match=f"whole number from 1 to 16: {bits:g} . {dim} = {bits * dim:g}"):
        NoWagVQ(bits=bits, dim=dim)


def test_more_codewords_than_vectors_are_refused_with_both_numbers() -> None:
    assert "4096 codewords for 680 vectors" in (NoWagVQ().unsupported((40, 100)) or "")


def test_each_group_takes_the_nearest_stored_codeword(layer: Layer, rng: Generator) -> None:
    weight, statistics = layer[0].half(), layer[1]
    found = NoWagVQ(bits=1, dim=5).compress(weight, statistics, rng).format
    book = found.tensors()["codebook"].float()
    normalized, r_out, r_in = normalize(weight.float(), torch.float16)
    w = statistics.importance().view(-1, 5)
    codes, _ = assign(normalized.view(-1, 5), w, book)
    decoded = book[codes].view(48, 50) * r_out.float()[:, None] * r_in.float()
    assert torch.equal(decoded, found.dequantize())


def test_the_audit_tells_how_kmeans_ended(layer: Layer, rng: Generator) -> None:
    audit = NoWagVQ(bits=1, dim=6, iterations=3).compress(*layer, rng).audit
    assert (audit["iterations"], audit["converged"], audit["padded_inputs"]) == (3, False, 4)
    assert audit["empty_clusters"] == 0 and float(audit["loss"] or 0) > 0


def test_inputs_that_weigh_more_are_kept_more_exactly(layer: Layer, rng: Generator) -> None:
    weight, statistics = layer
    error = normalize(weight)[0] - normalize(NoWagVQ(bits=1, dim=5).compress(*layer, rng).format.dequantize())[0]
    order = statistics.x_sq.argsort()
    assert error[:, order[25:]].norm() < error[:, order[:25]].norm()


def test_norms_are_rounded_before_anything_is_divided_by_them(rng: Generator) -> None:
    weight = 3 * torch.randn(8, 12, generator=rng)
    normalized, r_out, r_in = normalize(weight, torch.float16)
    torch.testing.assert_close(normalized * r_out.float()[:, None] * r_in.float(), weight)


def test_norms_beyond_float16_are_refused(rng: Generator) -> None:
    with pytest.raises(ValueError, match="column norms reach"):
        normalize(torch.full((8, 4), 4e4), torch.float16)
