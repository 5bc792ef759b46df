"""The same recipe in another process leaves the same shards, to the bit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from methods import METHODS
from suite import runner
from suite.config import Recipe
from suite.files import file_sha256
from suite.tracking import Tracker

OWN = {
    "magnitude": {"sparsity": 0.5, "outliers": 0.02},
    "wanda": [{"sparsity": "2:4"}, {"sparsity": "2:4", "statistics": "sequential"}],
    "sparsegpt": [{"sparsity": 0.5}, {"sparsity": 0.5, "statistics": "true-sequential"}],
    "nowag-p": {"sparsity": 0.5},
    "rtn": {"bits": 3, "group_size": 16, "outliers": [None, 0.02]},
    "hqq": {"bits": 3, "group_size": 16},
    "awq": {"bits": 3, "group_size": 16},
    "gptq": [{"bits": 3, "group_size": 16}, {"bits": 3, "group_size": 16, "statistics": "sequential"}],
    "higgs": {"bits": 2, "dim": 2},
    "quip-sharp": {"bits": 2, "sweeps": 1},
    "qtip": {"bits": 2, "state_bits": 8},
    "cvxq": {"target": {"bits_per_weight": 5.0}},
    "nowag-vq": {
        "bits": 1,
        "dim": 4,
        "iterations": 3,
        "init": ["nowag", "kmeans++"],
        "finetune": [False, {"epochs": 1}, {"epochs": 1, "end_to_end": {}}],
    },
    "allocate": {"methods": [{"higgs": {"bits": [2, 3], "dim": 2}}], "bits_per_weight": 4.6},
}
RECIPE, THREADS, DEVICE = "recipe.json", "threads", "device"
ALONE = """
import sys; from pathlib import Path
sys.path.append(sys.argv[1]); import test_bit_identical
test_bit_identical.run_here(Path(sys.argv[2]))
"""


class Untracked(Tracker):
    """Writes rows down and tells nobody: MLflow has its own tests."""

    def __enter__(self) -> "Untracked":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def record(self, row: object) -> None:
        pass


def run_here(folder: Path) -> None:
    """The recipe in the folder, on as many threads and on the device that are written down there."""
    torch.set_num_threads(int((folder / THREADS).read_text()))
    recipe = Recipe.model_validate(json.loads((folder / RECIPE).read_text()))
    runner.Tracker = Untracked
    runner.run(recipe, runner.Options(folder, offline=True, device=(folder / DEVICE).read_text()))


def shards(folder: Path) -> dict[str, str]:
    """The sha256 of every file with tensors, by cell and name."""
    files = sorted(folder.glob("same/cells/*/*.safetensors"))
    return {f"{path.parent.name}/{path.name}": file_sha256(path) for path in files}


@pytest.fixture(scope="module")
def made(mortal, tmp_path_factory, tiny_model, calibration_text, evaluation_text):
    """A function that runs all methods in a process of its own -> the hashes of what it left."""
    values = {
        "name": "same",
        "models": str(tiny_model),
        "calibration": {"source": str(calibration_text), "sequences": 8, "length": 32},
        "evaluation": {"source": str(evaluation_text), "windows": 1, "length": 32},
        "methods": {"dense": {}, **OWN},
    }

    def make(threads: int, device: str = "cpu") -> dict[str, str]:
        folder = tmp_path_factory.mktemp("same")
        for name, text in ((RECIPE, json.dumps(values)), (THREADS, str(threads)), (DEVICE, device)):
            (folder / name).write_text(text)
        if device == "cpu":
            assert mortal.attempt(run_here, folder)
        else:  # a process that was forked gets no GPU
            subprocess.run([sys.executable, "-c", ALONE, Path(__file__).parent, folder], check=True)
        return shards(folder)

    return make


@pytest.fixture(scope="module")
def first(made) -> dict[str, str]:
    """What one thread made."""
    return made(1)


def test_every_method_is_among_them():
    assert METHODS.keys() <= OWN.keys() | {"dense"}


@pytest.mark.slow
def test_the_same_recipe_in_another_process_gives_the_same_shards_to_the_bit(first, made):
    assert len(first) > 3 * len(OWN)
    assert made(1) == first


@pytest.mark.slow
def test_two_threads_twice_give_the_same_shards_to_the_bit(made):
    assert made(2) == made(2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_one_gpu_another_process_gives_the_same_shards_to_the_bit(made):
    first, second = made(2, "cuda"), made(2, "cuda")
    assert len(first) > 3 * len(OWN) and first.keys() == second.keys()
    assert [name for name, digest in first.items() if second[name] != digest] == []
