"""A method that takes many linears at once gives each what it gets alone, to the bit."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from methods.method import BatchingMethod, Together
from methods.nowag_vq import NoWagVQ
from methods.statistics import Statistics
from tests.methods.conftest import statistics_of

CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
)
SETTINGS: list[dict[str, Any]] = [
    {"inits": 2},
    {"init": "kmeans++"},
    {"init": "refined", "inits": 2},
    {"feedback": "ldlq"},
    {"reseed": True},
]


def tasks(widths: Sequence[int], device: str) -> list[Together]:
    """Weights [24, width] with an rng each, on the CPU as in a run."""
    rng = torch.Generator().manual_seed(1)
    made: list[Together] = []
    for number, width in enumerate(widths):
        own = statistics_of(torch.randn(200, width, generator=rng) * torch.rand(width, generator=rng))
        assert own.gram is not None
        own = Statistics(own.x_sq.to(device), own.mean.to(device), own.tokens, own.gram.to(device))
        weight = torch.randn(24, width, generator=rng).half().to(device)
        made.append(Together([weight], [own], torch.Generator().manual_seed(number)))
    return made


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("stack_bytes", [0, 1 << 30])
@pytest.mark.parametrize("widths", [[30, 30, 30], [30, 44, 30]], ids=str)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_task_among_others_gives_what_it_gives_alone(
    settings: dict[str, Any], widths: list[int], stack_bytes: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("methods.nowag_vq.STACK_BYTES", stack_bytes)
    method = NoWagVQ(bits=1, dim=4, iterations=5, **settings)
    together, again = method.compress_many(tasks(widths, device)), tasks(widths, device)
    alone = [method.compress_together(task.weights, task.statistics, task.rng) for task in again]
    assert isinstance(method, BatchingMethod)
    for (found,), (wanted,) in zip(together, alone, strict=True):
        assert found.audit == wanted.audit
        for name, tensor in wanted.format.tensors().items():
            assert torch.equal(found.format.tensors()[name], tensor)
