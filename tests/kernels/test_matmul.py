import pytest
import torch
from torch.nn import functional

from kernels import prepared
from kernels.format import Format
from kernels.matmul import by_kernels, matmul
from kernels.packing import pack
from kernels.prepared import CodebookWords, GroupedWords, LatticeWords, Words, prepare, split_of, words
from kernels.quantized import GroupedInt
from kernels.sparse import NMSparse


def test_a_product_is_that_with_the_decoded_weight(weight: Format, rng: torch.Generator) -> None:
    x = torch.randn(2, 3, 20, generator=rng)
    assert torch.equal(matmul(x, weight), functional.linear(x, weight.dequantize()))


def test_a_prepared_weight_gives_the_same_product_on_a_cpu(weight: Format, rng: torch.Generator) -> None:
    x = torch.randn(3, 20, generator=rng).half()
    assert torch.equal(matmul(x, prepare(weight, torch.float16)), matmul(x, weight))


def test_a_product_on_a_cpu_has_a_gradient(weight: Format) -> None:
    x = torch.ones(1, 20, requires_grad=True)
    assert not by_kernels(x)
    matmul(x, weight).sum().backward()
    assert x.grad is not None and torch.allclose(x.grad[0], weight.dequantize().sum(0), atol=1e-5)


def codes_in(found: Words, count: int) -> torch.Tensor:
    """Codes [rows, count], read as the layout is described."""
    at = torch.arange(count)
    word = at // (found.planes * found.lanes) * found.lanes + at % found.lanes
    plane = at // found.lanes % found.planes
    codes = found.low[:, word].long() >> plane * found.low_bits & 2**found.low_bits - 1
    if found.high is None:
        return codes
    high = found.high[:, word].long() >> plane * found.high_bits & 2**found.high_bits - 1
    return codes + (high << found.low_bits)


@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("lanes", [4, 32])
def test_words_hold_every_code_in_its_plane(bits: int, lanes: int, rng: torch.Generator) -> None:
    codes = torch.randint(2**bits, (3, 301), generator=rng).int()
    assert torch.equal(codes_in(words(codes, split_of(bits), lanes), 301), codes.long())


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 8, 10, 12, 16])
def test_whole_blocks_take_no_more_bits_than_the_codes(bits: int) -> None:
    found = words(torch.zeros(2, 1024, dtype=torch.int32), split_of(bits), 32)
    stored = found.low.nbytes + (0 if found.high is None else found.high.nbytes)
    assert 8 * stored == 2 * 1024 * bits


def test_a_point_and_its_residual_share_a_word(rng: torch.Generator) -> None:
    low, high = (torch.randint(2**bits, (3, 50), generator=rng).int() for bits in (16, 16))
    found = codes_in(words(low | high << 16, (16, 16), 16), 50)
    assert torch.equal(found, low.long() + (high.long() << 16))


def test_preparing_shares_the_side_parameters(weight: Format) -> None:
    ready = prepare(weight, torch.float16)
    assert ready.weight is weight
    assert isinstance(ready, GroupedWords | CodebookWords | LatticeWords | prepared.DenseWeight)


@pytest.mark.parametrize(("group", "streams"), [(None, True), (32, True), (96, True), (24, False), (100, True)])
def test_planes_of_the_layout_never_straddle_groups_that_stream(group: int | None, streams: bool) -> None:
    codes, groups = torch.zeros(2, 100, dtype=torch.int32), -(-100 // (group or 100))
    ready = prepare(GroupedInt((2, 100), pack(codes, 4), None, torch.ones(2, groups), 4, group), torch.float16)
    assert isinstance(ready, GroupedWords) and ready.streams == streams


def test_a_weight_with_real_zero_points_is_decoded() -> None:
    codes, side = pack(torch.zeros(2, 64, dtype=torch.int32), 4), torch.full((2, 1), 0.5)
    ready = prepare(GroupedInt((2, 64), codes, side, side, 4, 64), torch.float16)
    assert isinstance(ready, prepared.DenseWeight) and (ready.dense == -0.25).all()


def test_a_sparse_weight_is_dense_where_there_are_no_sparse_tensor_cores() -> None:
    mask = torch.tensor([True, False, False, True]).repeat(32, 16)
    ready = prepare(NMSparse.of_mask(torch.ones(32, 64), mask, 2, 4), torch.float16)
    assert isinstance(ready, prepared.DenseWeight) and ready.sparse is None
    assert torch.equal(ready.dense, mask.half())
