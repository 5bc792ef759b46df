"""A small run that nobody disturbs, and folders in which the same run is to be disturbed."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import NAME, RECIPE, STORE, Mortal, check, fresh, lay_out, run_undisturbed


@dataclass(frozen=True)
class Whole:
    """A run that nobody disturbed, and how long it took."""

    folder: Path
    seconds: float

    def fresh(self, folder: Path) -> Path:
        """A folder in which the same run is to be disturbed."""
        return fresh(folder, self.folder / RECIPE, self.folder.parent / STORE)


@pytest.fixture(scope="session")
def whole(
    mortal: Mortal,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,
    calibration_text: Path,
    evaluation_text: Path,
) -> Whole:
    """A cell of a dense walk and a sequential one, by two protocols."""
    text = {"source": str(evaluation_text), "windows": 4, "length": 32}
    values = {
        "name": NAME,
        "models": str(tiny_model),
        "calibration": {"source": str(calibration_text), "sequences": 4, "length": 32},
        "evaluation": [text, text | {"windows": 3, "length": 24}],
        "methods": {"nowag-p": {"sparsity": 0.5}, "wanda": {"sparsity": "2:4"}},
    }
    given = tmp_path_factory.mktemp("given")
    (given / RECIPE).write_text(json.dumps(values))
    mortal.attempt(lay_out, given)
    folder = fresh(given / "whole", given / RECIPE, given / STORE)
    begun = time.monotonic()
    assert mortal.attempt(run_undisturbed, folder)
    return Whole(folder, time.monotonic() - begun)


@pytest.fixture
def folder(whole: Whole, tmp_path: Path) -> Path:
    """A folder in which the run is to be disturbed."""
    return whole.fresh(tmp_path / "folder")


@pytest.fixture
def ends_well(mortal: Mortal, whole: Whole) -> Callable[[Path], None]:
    """A function that runs the recipe in a folder to its end, which must be that of the undisturbed run."""

    def end(folder: Path) -> None:
        assert mortal.attempt(run_undisturbed, folder)
        check(folder, whole.folder)

    return end
