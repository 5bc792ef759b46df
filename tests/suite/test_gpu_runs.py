"""The same recipe on a CPU and on a GPU: the same rows, up to rounding."""

import pytest
import torch

from suite.checkpoint import load_cell
from suite.config import Recipe
from suite.runner import Options, run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.usefixtures("no_tracking"),
]

METHODS = {
    "dense": {},
    "magnitude": {"sparsity": "2:4"},
    "wanda": {"sparsity": [0.5, "4:8"]},
    "nowag-p": {"sparsity": [0.5, "2:4"]},
    "sparsegpt": {"sparsity": [0.5, "2:4"], "statistics": "dense"},
    "rtn": {"bits": 3, "group_size": 16},
    "gptq": {"bits": [3, 4], "group_size": 16, "statistics": "dense"},
    "hqq": {"bits": 3, "group_size": 16},
    "higgs": {"bits": 2, "dim": 2},
    "awq": {"bits": 3, "group_size": 16},
    "cvxq": {"target": {"bits_per_weight": 4.0}},
    "quip-sharp": {"bits": 2, "sweeps": 2},
    "qtip": {"bits": 2, "state_bits": 8},
    "nowag-vq": [
        {"bits": 1, "dim": 4, "iterations": 10},
        {"bits": 1, "dim": 4, "iterations": 10, "feedback": "ldlq"},
    ],
}
UPDATING = {"sparsegpt", "gptq", "quip-sharp", "qtip"}  # one code that rounds the other way moves those after it
TOLD_APART = {"hqq", "awq", "cvxq"}  # one grid or depth, chosen by a sum that rounds otherwise, moves its group


@pytest.fixture
def outcomes(recipe_values, tmp_path):
    recipe = Recipe.model_validate(recipe_values | {"methods": METHODS})
    return [run(recipe, Options(tmp_path / device, offline=True, device=device)) for device in ("cpu", "cuda")]


def test_a_gpu_measures_what_a_cpu_measures(outcomes):
    for on_cpu, on_gpu in zip(*(outcome.rows for outcome in outcomes), strict=True):
        spared = 5e-3 if on_cpu.method == "cvxq" else 0  # of its target: gradients decide how much
        assert on_gpu.status == "ok"
        assert on_gpu.size.stored_bytes == pytest.approx(on_cpu.size.stored_bytes, rel=spared, abs=0)
        assert on_gpu.quality.perplexity == pytest.approx(on_cpu.quality.perplexity, rel=1e-3)


def test_a_gpu_keeps_and_rounds_as_a_cpu_does(outcomes):
    for on_cpu, on_gpu in zip(*(outcome.rows for outcome in outcomes), strict=True):
        if on_cpu.statistics_mode == "sequential":
            continue  # a weight that falls the other way in one block moves all statistics after it
        share = (
            1e-2 if on_cpu.method in UPDATING | TOLD_APART or on_cpu.settings.get("feedback") == "ldlq" else 1e-4
        )
        cells = [
            load_cell(o.folder / "cells" / r.cell_id) for o, r in zip(outcomes, (on_cpu, on_gpu), strict=True)
        ]
        one, two = (torch.cat([p.flatten() for p in cell.model.model.layers.parameters()]) for cell in cells)
        assert (one - two).abs().gt(1e-4 * one.abs().max()).float().mean() <= share
