from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from methods.statistics import Statistics

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(params=["small", "awkward"])
def golden(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    """Figures of the published implementations; the awkward ones have ragged groups and dead inputs."""
    figures: dict[str, Tensor] = {}
    for kind in ("", "_compensated"):
        figures |= load_file(GOLDEN / f"{request.param}{kind}.safetensors")
    return figures


@pytest.fixture
def statistics(golden: dict[str, Tensor]) -> Statistics:
    """Those of the layer from which the figures came."""
    gram = golden["hessian"]
    return Statistics(gram.diagonal().clone(), torch.zeros(len(gram)), tokens=1, gram=gram)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def correlated(rng: torch.Generator) -> Callable[[int], Statistics]:
    """Statistics of `width` inputs that depend on one another, and differ in size."""

    def gather(width: int) -> Statistics:
        x = torch.randn(200, width, generator=rng) @ torch.randn(width, width, generator=rng)
        return statistics_of(x * (0.2 + torch.rand(width, generator=rng)))

    return gather


def statistics_of(x: Tensor) -> Statistics:
    """Everything a method may know of inputs x [tokens, in]."""
    gram = x.T @ x
    return Statistics(gram.diagonal().clone(), x.mean(0), len(x), gram, x.abs().mean(0))
