"""A search that is killed again and again ends as one that never was: trials, rows, files, MLflow."""

import json
import random
import shutil
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
from harness import NAME, STORE, lay_out, rows_of

from suite.recipe_file import load_recipe
from suite.results import JOURNAL_NAME
from suite.tuning.best import BEST_NAME, write_best
from suite.tuning.recipe import load_tune_recipe
from suite.tuning.search import Options, search
from suite.tuning.storage import journal_path, open_storage
from suite.tuning.trials import BITS, CELLS, RUNGS, measured_trials

TRIALS = 6


def tune(folder: Path) -> None:
    """What is killed: the search in a folder, into the same folder."""
    asked = load_tune_recipe(folder / "search.yaml")
    write_best(asked, search(asked, Options(folder, offline=True, device="cpu")))


@dataclass(frozen=True)
class Whole:
    """A search that nobody disturbed, and the seconds that it took."""

    folder: Path
    seconds: float


@pytest.fixture(scope="module")
def prepared(mortal, tmp_path_factory, tiny_model, calibration_text, evaluation_text):
    """A function that puts a search of six trials into a folder."""
    empty = tmp_path_factory.mktemp("laid out")
    mortal.attempt(lay_out, empty)

    def made(folder: Path, **tuning: Any) -> Path:
        folder.mkdir()
        shutil.copy(empty / STORE, folder)
        confirm = {"source": str(calibration_text), "windows": 2, "length": 40}
        usual = {"trials": TRIALS, "rungs": {"blocks": 2, "windows": 1}, "unnamed": "default", "confirm": confirm}
        searched = {"bits": 1, "dim": [2, 4], "iterations": {"low": 1, "high": 20}, "init": ["nowag", "kmeans++"]}
        values = {
            "name": NAME,
            "models": str(tiny_model),
            "calibration": {"source": str(calibration_text), "sequences": 4, "length": 32},
            "evaluation": {"source": str(evaluation_text), "windows": 3, "length": 32},
            "allow_overlap": True,
            "methods": {"nowag-vq": searched | {"statistics": "sequential"}},
            "tune": usual | tuning,
        }
        (folder / "search.yaml").write_text(json.dumps(values))
        return folder

    return made


@pytest.fixture(scope="module")
def whole(mortal, prepared, tmp_path_factory) -> Whole:
    """The search without a pruner: one that stops trials counts what a kill left on its rungs, too."""
    folder = prepared(tmp_path_factory.mktemp("whole") / "folder", pruner="none")
    start = time.monotonic()
    assert mortal.attempt(tune, folder)
    return Whole(folder, time.monotonic() - start)


def study_of(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name=None, storage=open_storage(folder / NAME, None))


def trials_of(folder: Path) -> list[dict[str, Any]]:
    """What trials that count are and were found to be, in their order."""
    return [
        {"params": each.params, "state": each.state, "values": each.values}
        | {key: each.user_attrs.get(key) for key in (CELLS, BITS, RUNGS)}
        for each in measured_trials(study_of(folder))
    ]


def weights_of(folder: Path) -> set[str]:
    """The cells that have weights."""
    return {path.parent.name for path in (folder / NAME / "cells").rglob("*.safetensors")}


def tracked(folder: Path) -> list[tuple[str, str, str]]:
    """MLflow's runs below the recipe's: tag, what it is of, how it ended."""
    with sqlite3.connect(folder / STORE) as database:
        query = (
            "select own.key, own.value, status from runs join tags own using (run_uuid) join tags above "
            "using (run_uuid) join tags recipe on above.value = recipe.run_uuid where lifecycle_stage = 'active' "
            "and own.key in ('row_id', 'trial_id') and above.key = 'mlflow.parentRunId' "
            "and recipe.key = 'recipe_sha256'"
        )
        return sorted(database.execute(query).fetchall())


def check(folder: Path) -> None:
    """Each trial once, as its rows have it, nothing left running, weights of the best alone, and a recipe."""
    study, rows = study_of(folder), rows_of(folder)
    trials = measured_trials(study)
    assert len(trials) == TRIALS and not any(each.state.name == "RUNNING" for each in study.trials)
    lines = (folder / NAME / JOURNAL_NAME).read_text().splitlines()
    assert len(lines) == len(rows)
    for trial in trials:
        [cell] = trial.user_attrs[CELLS]
        found = {row["quality"]["kl_mean"] for row in rows.values() if row["cell_id"] == cell}
        assert set(trial.user_attrs[RUNGS].values()) - {trial.user_attrs[RUNGS]["proxy"]} == found
    ids = [("row_id", key) for key in rows] + [
        ("trial_id", f"{study.study_name}/{each.number}") for each in trials
    ]
    assert tracked(folder) == sorted((*one, "FINISHED") for one in ids)
    assert weights_of(folder) == set(study.best_trial.user_attrs[CELLS])
    assert load_recipe(folder / NAME / BEST_NAME).methods["nowag-vq"]
    assert not list((folder / NAME).glob(f"{journal_path(folder).name}.lock*"))


def kill(mortal, folder: Path, draw: random.Random, kills: int, seconds: float) -> int:
    """Search until it is done, killed up to so many times -> how many times it was."""
    killed = 0
    while not mortal.attempt(tune, folder, seconds=draw.uniform(0.2, seconds / 2) if killed < kills else None):
        killed += 1
    return killed


def rounds(kills: int) -> list[Any]:
    return [(0, kills), pytest.param(1, 60, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("seed", "kills"), rounds(6))
def test_a_search_killed_again_and_again_ends_as_one_that_never_was(
    mortal, prepared, whole, tmp_path, seed, kills
) -> None:
    draw, number = random.Random(seed), 0
    while kills > 0:
        number += 1
        folder = prepared(tmp_path / str(number), pruner="none")
        kills -= kill(mortal, folder, draw, kills, whole.seconds)
        check(folder)
        assert trials_of(folder) == trials_of(whole.folder), f"seed {seed}, round {number}"
        for one, other in zip(rows_of(folder).values(), rows_of(whole.folder).values(), strict=True):
            assert one == other
        best = [(each / NAME / BEST_NAME).read_text() for each in (folder, whole.folder)]
        assert best[0] == best[1]
