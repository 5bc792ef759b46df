"""A model that does not fit the memory of a process is compressed and measured all the same."""

import os
import re
import resource
import sys
from pathlib import Path

import pytest
import torch
import yaml

from suite import synthetic
from suite.config import Recipe
from suite.models import load_model
from suite.streaming import HELD_GIB
from suite.synthetic import Draw, Shape, synthesize
from suite.work import Bench, Measure, Reference, Walk

SHAPE = Shape(hidden=512, intermediate=1536, blocks=40, heads=8, kv_heads=8, vocabulary=4096)
WEIGHTS_MIB, MEMORY_MIB = 536, 400  # in float32; and what the process may take beside what it has
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(synthetic.SHAPES, "middling", SHAPE)
        return synthesize(Draw("middling"), tmp_path_factory.mktemp("synthetic") / "model")


@pytest.fixture
def recipe(model, tmp_path, calibration_text, evaluation_text):
    values = {
        "name": "limited",
        "models": str(model),
        "calibration": {"source": str(calibration_text), "sequences": 2, "length": 32},
        "evaluation": {"source": str(evaluation_text), "windows": 2, "length": 32},
        "methods": {"nowag-p": {}},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def streamed(recipe: Path, folder: Path) -> None:
    work_with(recipe, folder, "0")


def held(recipe: Path, folder: Path) -> None:
    work_with(recipe, folder, "8")


def work_with(path: Path, folder: Path, held_gib: str) -> None:
    """A reference, a walk and a measurement, in a process that may take little more memory than it has."""
    os.environ[HELD_GIB] = held_gib
    recipe = Recipe.model_validate(yaml.safe_load(path.read_text()))
    tiny = load_model("tiny", offline=True)  # what is imported and started late is there
    tiny.model(tiny.tokenizer(["some words"] * 2, return_tensors="pt").input_ids)
    data = int(re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (data + (MEMORY_MIB << 20),) * 2)
    bench = Bench(recipe, folder, CPU, offline=True)
    [name], stand = recipe.models, bench.stand(recipe.models[0])
    [cell], [evaluation] = stand.jobs, stand.evaluations
    for work in (Reference(name, evaluation), Walk(name, (cell,)), Measure(name, cell, (evaluation,))):
        found = list(work.run(bench))
    row, _ = found[0]
    print(row.status, row.size.total_parameters * 4 >> 20)  # noqa: T201 - into the log of the attempt


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts mapped memory as data")
def test_a_streamed_model_takes_less_memory_than_its_weights(mortal, recipe, tmp_path):
    ended = mortal.ended(streamed, recipe, tmp_path / "streamed")
    assert ended.said.splitlines()[-1] == f"ok {WEIGHTS_MIB}" and ended.code == 0
    ended = mortal.ended(held, recipe, tmp_path / "held")
    assert ended.code and "allocate memory" in ended.said
