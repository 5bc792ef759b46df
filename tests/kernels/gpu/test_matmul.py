from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kernels import matmul as module
from kernels.format import Format
from kernels.lattice import RESIDUALS, Lattice
from kernels.matmul import matmul, streamed
from kernels.packing import pack
from kernels.prepared import prepare
from kernels.quantized import Codebook, GroupedInt
from kernels.sparse import Dense, Masked, NMSparse

HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
Maker = Callable[[torch.Generator], Format]


@pytest.fixture(autouse=True)
def kernels_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU the wrapper takes the kernels too, in the interpreter."""
    monkeypatch.setattr(module, "fused", lambda x: True)


def grouped(
    rows: int, width: int, bits: int, group: int | None, zeros: bool = True, normed: bool = False
) -> Maker:
    def make(rng: torch.Generator) -> Format:
        groups = -(-width // (group or width))
        codes = pack(torch.randint(2**bits, (rows, width), generator=rng), bits)
        zero = pack(torch.randint(2**bits, (rows, groups), generator=rng), bits) if zeros else None
        norms = [torch.rand(n, generator=rng).half() + 0.5 if normed else None for n in (rows, width)]
        scale = torch.rand(rows, groups, generator=rng).half()
        return GroupedInt((rows, width), codes, zero, scale, bits, group, *norms)

    return make


def codebook(rows: int, width: int, bits: int, dim: int, normed: bool = True) -> Maker:
    def make(rng: torch.Generator) -> Format:
        codes = pack(torch.randint(2**bits, (rows, -(-width // dim)), generator=rng), bits)
        norms = [torch.rand(n, generator=rng).half() + 0.5 if normed else None for n in (rows, width)]
        return Codebook((rows, width), codes, torch.randn(2**bits, dim, generator=rng).half(), *norms)

    return make


def lattice(rows: int, width: int, bits: int, rescaled: bool = True) -> Maker:
    def make(rng: torch.Generator) -> Format:
        groups = -(-width // 8)
        codes = pack(torch.randint(2**16, (rows, groups), generator=rng), 16)
        residual = None
        if bits in RESIDUALS:
            wide = RESIDUALS[bits].bits
            residual = pack(torch.randint(2**wide, (rows, groups), generator=rng), wide)
        signs = [pack(torch.randint(2, (1, n), generator=rng), 1) for n in (8 * groups, rows)]
        scale = torch.rand(1, generator=rng).half() + 0.1
        rescale = torch.rand(width, generator=rng).half() + 0.5 if rescaled else None
        orders = 8, 4 if rows % 4 == 0 else 1
        return Lattice((rows, width), codes, residual, *signs, scale, rescale, bits, *orders)

    return make


STREAMED = {
    "2 bits, groups of 64": grouped(20, 600, 2, 64),
    "2 bits, groups of 32, no zeros, a short last group": grouped(5, 590, 2, 32, zeros=False),
    "3 bits, norms": grouped(17, 140, 3, None, normed=True),
    "4 bits, groups of 128": grouped(9, 260, 4, 128, normed=True),
    "5 bits": grouped(6, 300, 5, 96),
    "1 bit": grouped(6, 33, 1, None),
    "8 bits": grouped(5, 77, 8, None),
    "12 bits for 6 inputs": codebook(37, 500, 12, 6),
    "4 bits for 2 inputs, no norms": codebook(5, 33, 4, 2, normed=False),
    "7 bits for 1 input": codebook(6, 50, 7, 1),
    "10 bits for 5 inputs": codebook(6, 47, 10, 5),
    "3 bits for 64 inputs": codebook(5, 200, 3, 64),
    "16 bits for 8 inputs": codebook(6, 70, 16, 8),
    "lattice, 2 bits": lattice(36, 300, 2),
    "lattice, 3 bits": lattice(5, 60, 3),
    "lattice, 4 bits, not rescaled": lattice(8, 64, 4, rescaled=False),
}
DECODED = {
    "groups of 24": grouped(5, 100, 3, 24, normed=True),
    "real zero points": lambda rng: GroupedInt(
        (5, 100),
        pack(torch.randint(8, (5, 100), generator=rng), 3),
        7 * torch.rand(5, 2, generator=rng),
        torch.rand(5, 2, generator=rng),
        3,
        64,
    ),
    "masked": lambda rng: Masked.of(torch.randn(6, 40, generator=rng), torch.rand(6, 40, generator=rng) > 0.5),
    "2:4": lambda rng: NMSparse.of_mask(
        torch.randn(32, 64, generator=rng), torch.tensor([True, False, False, True]).repeat(32, 16), 2, 4
    ),
    "dense": lambda rng: Dense((5, 20), torch.randn(5, 20, generator=rng).half()),
}


def exact(weight: Format, x: Tensor) -> Tensor:
    return x.double() @ weight.dequantize().double().T


def allowed(weight: Format, x: Tensor, decoded: bool = False) -> Tensor:
    """Half an eps for each rounding in half precision: x or x times norms, W or a codeword, and y itself.

    Float32 sums are beneath that. A lattice's roundings are turned by orthonormal matrices, so only norms of them
    can be told: with z = scale P t, rounding t by d moves all of y by |P d|, and a decoded P is rounded as z is.
    """
    eps = torch.finfo(x.dtype).eps
    if not isinstance(weight, Lattice):
        return 2 * eps * (x.double().abs() @ weight.dequantize().double().abs().T)
    points = weight.points().double() * weight.scale.double()
    scaled = x.double() if weight.rescale is None else x.double() / weight.rescale.double()
    spectral, whole = torch.linalg.matrix_norm(points, 2), points.norm()
    factor = 2 * spectral + whole if decoded else spectral
    return eps / 2 * (1.01 * scaled.norm(dim=1, keepdim=True) * factor + exact(weight, x).abs())


def tokens_of(count: int, weight: Format, dtype: torch.dtype, rng: torch.Generator) -> Tensor:
    return torch.randn(count, weight.shape[1], generator=rng).to(dtype)


@HALVES
@pytest.mark.parametrize("count", [1, 3, 16])
@pytest.mark.parametrize("make", STREAMED.values(), ids=STREAMED)
def test_a_product_from_the_codes_is_that_with_the_decoded_weight(
    make: Maker, count: int, dtype: torch.dtype, rng: torch.Generator, device: torch.device
) -> None:
    if device.type == "cpu" and dtype is torch.bfloat16 and count > 1:
        pytest.skip("Triton's interpreter has no arithmetic in bfloat16")
    weight = make(rng)
    x = tokens_of(count, weight, dtype, rng)
    y = streamed(x.to(device), prepare(weight.to(device), dtype))
    assert y is not None and y.dtype is dtype
    assert ((y.cpu().double() - exact(weight, x)).abs() <= allowed(weight, x)).all()


@HALVES
@pytest.mark.parametrize("make", [*STREAMED.values(), *DECODED.values()], ids=[*STREAMED, *DECODED])
def test_seventeen_tokens_share_one_decoded_weight(
    make: Maker, dtype: torch.dtype, rng: torch.Generator, device: torch.device
) -> None:
    weight = make(rng)
    x = tokens_of(17, weight, dtype, rng)
    y = matmul(x.to(device), prepare(weight.to(device), dtype))
    assert y.dtype is dtype
    assert ((y.cpu().double() - exact(weight, x)).abs() <= allowed(weight, x, decoded=True)).all()


@pytest.mark.parametrize("make", DECODED.values(), ids=DECODED)
def test_a_layout_that_cannot_stream_is_decoded_for_one_token_too(
    make: Maker, rng: torch.Generator, device: torch.device
) -> None:
    weight = make(rng)
    x, ready = tokens_of(1, weight, torch.float16, rng), prepare(weight.to(device), torch.float16)
    assert streamed(x.to(device), ready) is None
    assert ((matmul(x.to(device), ready).cpu() - exact(weight, x)).abs() <= allowed(weight, x)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("make", [*STREAMED.values(), DECODED["groups of 24"]], ids=[*STREAMED, "groups of 24"])
def test_a_decoded_weight_is_that_of_the_format_bit_for_bit(
    make: Maker, dtype: torch.dtype, rng: torch.Generator, device: torch.device
) -> None:
    from kernels.gpu import dequantize

    if device.type == "cpu" and dtype is torch.bfloat16:
        pytest.skip("Triton's interpreter cuts bfloat16 off where it should round")
    weight = make(rng)
    ready = prepare(weight.to(device), dtype)
    if isinstance(weight, Lattice):
        found, wanted = dequantize.points(ready, dtype), weight.points() * weight.scale.float()
    else:
        decode = dequantize.grouped if isinstance(weight, GroupedInt) else dequantize.codebook
        found, wanted = decode(ready, dtype), weight.dequantize()
    assert torch.equal(found.cpu(), wanted.to(dtype))


@pytest.mark.parametrize("make", [STREAMED["2 bits, groups of 64"], STREAMED["lattice, 3 bits"]])
def test_a_float32_product_has_the_weight_of_the_format(
    make: Maker, rng: torch.Generator, device: torch.device
) -> None:
    weight = make(rng)
    x = tokens_of(3, weight, torch.float32, rng)
    wanted = torch.nn.functional.linear(x.to(device), weight.to(device).dequantize())
    assert torch.equal(matmul(x.to(device), weight.to(device)), wanted)


def test_a_product_keeps_the_leading_shape(rng: torch.Generator, device: torch.device) -> None:
    weight = grouped(5, 64, 4, 32)(rng)
    x = torch.randn(2, 64, 3, generator=rng).half().mT  # not contiguous
    y = matmul(x.to(device), weight.to(device))
    assert y.shape == (2, 3, 5)
    assert ((y.cpu() - exact(weight, x)).abs() <= allowed(weight, x)).all()


@pytest.mark.parametrize("count", [1, 4])
def test_a_product_is_the_same_every_time(count: int, rng: torch.Generator, device: torch.device) -> None:
    weight = codebook(40, 1000, 8, 4)(rng)
    x, ready = tokens_of(count, weight, torch.float16, rng), prepare(weight.to(device), torch.float16)
    assert torch.equal(matmul(x.to(device), ready), matmul(x.to(device), ready))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("count", [1, 8, 64])
@pytest.mark.parametrize("make", [*STREAMED.values(), DECODED["2:4"]], ids=[*STREAMED, "2:4"])
def test_a_layer_is_captured_in_a_graph(make: Maker, count: int, rng: torch.Generator) -> None:
    from kernels.linear import CompressedLinear

    weight = make(rng)
    layer = CompressedLinear(weight, torch.randn(weight.shape[0], generator=rng)).cuda()
    x = tokens_of(count, weight, torch.float16, rng).cuda()
    wanted = layer(x)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        layer(x)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = layer(x)
    graph.replay()
    assert torch.equal(y, wanted)
