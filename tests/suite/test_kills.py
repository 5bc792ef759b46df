"""A run that is killed again and again ends as one that never was: rows, files, journal and MLflow."""

import json
import random
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import NAME, RECIPE, STORE, check, fresh, kept, lay_out, run_undisturbed


@dataclass(frozen=True)
class Whole:
    """A run that nobody disturbed, and how long it takes to where MLflow's tables are there, or are not."""

    folder: Path
    seconds: dict[bool, float]

    def fresh(self, folder: Path, laid_out: bool) -> Path:
        """A folder to run the recipe in."""
        return fresh(folder, self.folder / RECIPE, self.folder / "empty" / STORE if laid_out else None)


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
    (folder / RECIPE).write_text(json.dumps(values))
    found = Whole(folder, {})
    (folder / "empty").mkdir()
    mortal.attempt(lay_out, folder / "empty")
    for laid_out, into in ((True, found.fresh(folder / "second", True)), (False, folder)):
        start = time.monotonic()
        assert mortal.attempt(run_undisturbed, into)
        found.seconds[laid_out] = time.monotonic() - start
    return found


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
            done = mortal.attempt(run_undisturbed, folder, seconds=after)
            kills -= not done
            now, later = kept(folder)
            assert times.items() <= now.items() and later.startswith(lines), f"seed {seed}, round {number}"
        check(folder, whole.folder)
