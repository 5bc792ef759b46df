import pytest
import torch
from torch import Generator

from kernels.format import Format
from kernels.hadamard import hadamard
from kernels.packing import pack
from kernels.rotated_codebook import RotatedCodebook


def make(rng: Generator) -> RotatedCodebook:
    """[3, 24]: groups of 12, turned in blocks of 4."""
    book, scale = torch.randn(8, 5, generator=rng), torch.rand(3, 2, generator=rng)
    codes, signs = torch.randint(8, (3, 5), generator=rng), torch.randint(2, (1, 24), generator=rng)
    return RotatedCodebook((3, 24), pack(codes, 3), book, scale, pack(signs, 1), 12, 4)


def test_codewords_are_scaled_by_their_group_and_turned_back(rng: Generator) -> None:
    book = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    scale, signs = torch.tensor([[10.0, 100.0]]), torch.tensor([[1, 1, 0, 1]])
    weight = RotatedCodebook((1, 4), pack(torch.tensor([[1, 0]]), 1), book, scale, pack(signs, 1), 2, 4)
    units = torch.tensor([[40.0, 50.0, 600.0, 100.0]])  # the last codeword is cut
    wanted = units @ (hadamard(4).T / 2) * torch.tensor([1.0, 1.0, -1.0, 1.0])
    torch.testing.assert_close(weight.dequantize(), wanted)


@pytest.mark.parametrize("name", ["scale", "codebook"])
def test_the_weight_is_linear_in_either_of_what_may_be_trained(name: str, rng: Generator) -> None:
    weight = make(rng)
    assert set(weight.continuous()) == {"scale", "codebook"}
    part, sought = getattr(weight, name).clone().requires_grad_(), torch.randn(3, 24, generator=rng)
    (weight.with_tensors({name: part}).dequantize() * sought).sum().backward()
    torch.testing.assert_close((part.grad * part).sum(), (weight.dequantize() * sought).sum())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["scale", "codebook"])
def test_gradients_of_a_few_rows_on_a_gpu_are_those_on_a_cpu(name: str, rng: Generator) -> None:
    grads = []
    for weight in (stored := make(rng), stored.to("cuda")):
        part = getattr(weight, name).clone().requires_grad_()
        weight.with_tensors({name: part}).dequantize().square().sum().backward()
        assert part.grad is not None
        grads.append(part.grad.cpu())
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-4)


def test_nominal_bits_are_those_of_the_codes(rng: Generator) -> None:
    stored: Format = make(rng)
    assert stored.nominal_bits == 3 / 5


def test_groups_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="takes whole groups of inputs, got 24 in groups of 10"):
        RotatedCodebook.planned((3, 24), 3, 5, 10)
