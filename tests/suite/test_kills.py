"""A run that is killed again and again ends as one that never was: rows, files, journal and MLflow."""

import json
import random
import shutil
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 - imported here, it need not be in each attempt
import pytest
import transformers.models.llama.modeling_llama  # noqa: F401

from suite.config import Recipe
from suite.files import file_sha256
from suite.results import JOURNAL_NAME, Journal, Row
from suite.runner import Options, run

NAME, STORE = "killed", "mlflow.db"
VARYING = {"cost", "created"}


def run_recipe(folder: Path) -> None:
    """What is killed: the recipe in a folder, run into the same folder."""
    outcome = run(Recipe.model_validate_json((folder / "recipe.json").read_text()), Options(folder, True, "cpu"))
    assert [row.status for row in outcome.rows] == ["ok"] * len(outcome.rows) and not outcome.untracked


@dataclass(frozen=True)
class Whole:
    """A run that nobody disturbed, and how long it takes to where MLflow's tables are there, or are not."""

    folder: Path
    seconds: dict[bool, float]

    def fresh(self, folder: Path, laid_out: bool) -> Path:
        """A folder to run the recipe in."""
        folder.mkdir()
        shutil.copy(self.folder / "recipe.json", folder)
        if laid_out:
            shutil.copy(self.folder / "empty.db", folder / STORE)
        return folder


@pytest.fixture(scope="module")
def whole(mortal, tmp_path_factory, calibration_text, evaluation_text) -> Whole:
    """Two cells of one dense walk and a sequential one, by two protocols."""
    folder = tmp_path_factory.mktemp("whole")
    text = {"source": str(evaluation_text), "windows": 3, "length": 48}
    values = {
        "name": NAME,
        "models": "tiny",
        "calibration": {"source": str(calibration_text), "sequences": 4, "length": 48},
        "evaluation": [text, text | {"windows": 2, "length": 32}],
        "methods": {"nowag-p": {"sparsity": [0.5, "2:4"]}, "wanda": {"sparsity": "2:4"}},
    }
    (folder / "recipe.json").write_text(json.dumps(values))
    found = Whole(folder, {})
    mortal.attempt(lay_out, folder)
    for laid_out, into in ((True, found.fresh(folder / "second", True)), (False, folder)):
        start = time.monotonic()
        assert mortal.attempt(run_recipe, into)
        found.seconds[laid_out] = time.monotonic() - start
    return found


def lay_out(folder: Path) -> None:
    """MLflow's tables in a file of their own."""
    mlflow.MlflowClient(f"sqlite:///{folder / 'empty.db'}").search_experiments(max_results=1)


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    """What rows say, but for what differs from run to run."""
    return {row.row_id: row.model_dump(exclude=VARYING) for row in journal_of(folder)}


def journal_of(folder: Path) -> list[Row]:
    return Journal(folder / NAME / JOURNAL_NAME).rows()


def shards_of(folder: Path) -> list[Path]:
    return sorted((folder / NAME / "cells").rglob("block_*.safetensors"))


def contents(folder: Path) -> dict[str, str]:
    """Of every shard and every ledger entry."""
    files = (*shards_of(folder), *(folder / NAME).glob("ledger/*"))
    return {str(path.relative_to(folder)): file_sha256(path) for path in files}


def kept(folder: Path) -> tuple[dict[Path, int], str]:
    """What no later attempt may touch: shards, manifests, the dense model's windows, lines of the journal."""
    finished = [*shards_of(folder), *folder.glob(f"{NAME}/cells/*/manifest.json")]
    finished += folder.rglob("window_*.safetensors")
    journal = folder / NAME / JOURNAL_NAME
    text = journal.read_text() if journal.exists() else ""
    return {path: path.stat().st_mtime_ns for path in finished}, text[: text.rfind("\n") + 1]


def tracked(folder: Path) -> dict[str, set[str]]:
    """What MLflow shows: for each run, by its row, the names of its files."""
    with sqlite3.connect(folder / STORE) as database:
        query = (
            "select value, artifact_uri from runs join tags using (run_uuid) "
            "where key = 'row_id' and lifecycle_stage = 'active'"
        )
        found = database.execute(query).fetchall()
    assert len(found) == len(dict(found)), "a row has two runs"
    return {row_id: {path.name for path in Path(uri).iterdir()} for row_id, uri in found}


def parents(folder: Path) -> list[str]:
    """The states of the runs that stand for a recipe."""
    with sqlite3.connect(folder / STORE) as database:
        query = "select status from runs join tags using (run_uuid) where key = 'recipe_sha256'"
        return [status for (status,) in database.execute(query)]


def check(folder: Path, whole: Whole) -> None:
    """The folder is as if nobody had disturbed the run."""
    assert rows_of(folder) == rows_of(whole.folder)
    assert contents(folder) == contents(whole.folder)
    lines = [json.loads(line)["row_id"] for line in (folder / NAME / JOURNAL_NAME).read_text().splitlines()]
    assert len(lines) == len(set(lines))
    assert tracked(folder) == tracked(whole.folder) and parents(folder) == ["FINISHED"]


@pytest.mark.parametrize(("seed", "kills"), [(0, 12), pytest.param(1, 100, marks=pytest.mark.slow)])
def test_a_run_killed_again_and_again_ends_as_one_that_never_was(mortal, whole, tmp_path, seed, kills) -> None:
    draw, number = random.Random(seed), 0
    while kills:
        number += 1
        laid_out = number % 2 == 1
        folder, done = whole.fresh(tmp_path / str(number), laid_out), False
        while not done:
            times, lines = kept(folder)
            after = draw.uniform(0, whole.seconds[laid_out] / 2) if kills else None
            done = mortal.attempt(run_recipe, folder, seconds=after)
            kills -= not done
            now, later = kept(folder)
            assert times.items() <= now.items() and later.startswith(lines), f"seed {seed}, round {number}"
        check(folder, whole)
