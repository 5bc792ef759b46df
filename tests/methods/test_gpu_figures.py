"""The published figures again, on a GPU: the same masks and grids, but for what rounds the other way."""

from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Generator, Tensor

from kernels import e8p
from methods import METHODS
from methods.statistics import Statistics
from tests.methods.conftest import GOLDEN
from tests.methods.test_published_figures import CASES

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize(("name", "settings", "key"), CASES, ids=str)
def test_at_most_one_entry_in_ten_thousand_differs(
    name: str, settings: dict[str, Any], key: str, golden: dict[str, Tensor], rng: Generator
) -> None:
    if key not in golden:
        pytest.skip("no such figure for this layer")
    gram = golden["hessian"].cuda()
    statistics = Statistics(gram.diagonal().clone(), torch.zeros(len(gram), device="cuda"), 1, gram)
    found = METHODS[name](**settings).compress(golden["weight"].cuda(), statistics, rng).format.dequantize()
    assert float(((found.cpu() - golden[key]).abs() > 1e-4).float().mean()) <= 1e-4


def test_e8p_rounds_as_published() -> None:
    figures = load_file(GOLDEN / "e8p.safetensors")
    _, values = e8p.quantize(figures["x"].cuda())
    assert torch.equal(values.cpu(), figures["quantized"])


def test_e8p_decodes_what_it_found() -> None:
    x = torch.randn(5000, 8, generator=torch.Generator().manual_seed(0)).cuda()
    codes, values = e8p.quantize(x)
    assert torch.equal(e8p.decode(codes), values)
