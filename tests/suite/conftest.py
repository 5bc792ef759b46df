"""Recipes and searches on the tiny model, and functions that run them."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from suite import cli
from suite.architecture import decoder_blocks, linears
from suite.config import Recipe
from suite.models import Subject, load_model
from suite.runner import Options, Outcome, run
from suite.work import Bench

SEARCHED = {"bits": 1, "dim": [2, 4], "iterations": {"low": 1, "high": 6}, "init": ["nowag", "kmeans++"]}


@pytest.fixture(scope="module")
def lively(tiny_model: Path) -> Subject:
    """The tiny model with linears eight times as large, so that its outputs are not all alike."""
    subject = load_model(str(tiny_model), offline=True)
    for block in decoder_blocks(subject.model):
        for layer in linears(block).values():
            layer.weight.data *= 8
    return subject


@pytest.fixture
def recipe_values(tiny_model: Path, calibration_text: Path, evaluation_text: Path) -> dict[str, Any]:
    """A recipe for the tiny model: one method that needs data, one that does not, and the dense baseline."""
    return {
        "name": "tiny",
        "models": str(tiny_model),
        "calibration": {"source": str(calibration_text), "sequences": 4, "length": 32},
        "evaluation": {"source": str(evaluation_text), "windows": 3, "length": 32},
        "methods": {"dense": {}, "rtn": {"bits": 4, "group_size": 16}, "nowag-p": {"sparsity": 0.5}},
    }


@pytest.fixture
def tiny_bench(recipe_values: dict[str, Any], tmp_path: Path) -> Bench:
    """The tiny model on the bench."""
    made = Bench(Recipe.model_validate(recipe_values), tmp_path / "tiny", torch.device("cpu"), offline=True)
    made.folder.mkdir()
    return made


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """A function that writes a recipe's values to a YAML file of its own."""

    def write(values: dict[str, Any]) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        return path

    return write


@pytest.fixture
def run_with(recipe_values: dict[str, Any], tmp_path: Path) -> Callable[..., Outcome]:
    """Run the tiny recipe with changes, into one folder."""

    def run_it(**changes: Any) -> Outcome:
        return run(Recipe.model_validate(recipe_values | changes), Options(tmp_path / "out", offline=True))

    return run_it


@pytest.fixture
def untracked_search(no_tracking: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow has its own tests; elsewhere a search need not lay out a database."""
    from suite import runner
    from suite.tuning import search

    monkeypatch.setattr(search, "Tracker", runner.Tracker)


@pytest.fixture
def asked(
    recipe_values: dict[str, Any], calibration_text: Path, write_recipe: Callable[..., Path]
) -> Callable[..., Any]:
    """A function that makes the tiny search, or one of other methods, with keys of `tune`."""
    from suite.tuning.recipe import load_tune_recipe

    def make(methods: dict[str, Any] | None = None, **tuning: Any) -> Any:
        confirm = {"source": str(calibration_text), "windows": 2, "length": 40}
        usual = {"trials": 4, "rungs": {"blocks": 2, "windows": 1}, "confirm": confirm, "unnamed": "default"}
        keys = {"methods": methods or {"nowag-vq": SEARCHED}, "tune": usual | tuning, "allow_overlap": True}
        return load_tune_recipe(write_recipe(recipe_values | keys))

    return make


@pytest.fixture
def tuned(asked: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """A function that runs such a search, in one folder."""
    from suite.tuning.search import Options, search

    return lambda methods=None, **tuning: search(asked(methods, **tuning), Options(tmp_path / "out", offline=True))


@pytest.fixture
def searched_settings() -> dict[str, Any]:
    """What the tiny search searches of NoWag-VQ."""
    return dict(SEARCHED)


@pytest.fixture
def invoke(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the entry point in this process -> (exit status, standard output, standard error)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nowag-bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def refused(
    invoke: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Run a command that has to be refused, in an empty folder of its own -> the one line that says why."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> str:
        before = set(tmp_path.rglob("*"))
        status, _, err = invoke(*arguments)
        assert (status, err.count("\n"), err[:13]) == (2, 1, "nowag-bench: "), err
        assert set(tmp_path.rglob("*")) == before
        return err

    return run
