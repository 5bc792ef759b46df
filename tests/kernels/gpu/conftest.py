"""Triton kernels run on a GPU where there is one, and else in Triton's interpreter on the CPU."""

import pytest
import torch

pytest.importorskip("triton")


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
