"""Companded weights come out the same where kernels unpack their codes."""

import torch

from kernels.companded import Companded


def test_a_weight_is_packed_and_decoded_as_on_the_cpu(device: torch.device) -> None:
    weight = torch.randn(40, 33, generator=torch.Generator().manual_seed(0))
    rows, depths = torch.arange(40) % 5, torch.arange(165).view(5, 33) % 9
    given = weight, rows, depths, torch.zeros(5, 33).half(), torch.ones(5, 33).half()
    there, here = (Companded.encoded(*(each.to(at) for each in given)) for at in (device, "cpu"))
    assert all(torch.equal(there.tensors()[name].cpu(), each) for name, each in here.tensors().items())
    torch.testing.assert_close(there.dequantize().cpu(), here.dequantize(), rtol=1e-6, atol=1e-6)
