import pytest
import torch

from kernels import backend


def test_a_cpu_tensor_never_takes_a_kernel() -> None:
    assert not backend.fused(torch.zeros(1))


def test_the_probe_compiles() -> None:
    pytest.importorskip("triton")
    from kernels.gpu.probe import probe

    probe(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_tensor_takes_kernels_but_not_inside_plain_torch() -> None:
    x = torch.zeros(1, device="cuda")
    assert backend.fused(x)
    with backend.plain_torch():
        assert not backend.fused(x)
    assert backend.fused(x)
