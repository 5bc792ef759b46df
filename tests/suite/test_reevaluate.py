"""Finished cells measured by other protocols: the row that a run would have made, and nothing done twice."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from suite import reevaluate as work
from suite.config import Recipe
from suite.errors import CalibrationError, CheckpointError, ConfigError, ResultError
from suite.files import alone
from suite.protocols import Protocol
from suite.reevaluate import Wish, reevaluate
from suite.results import JOURNAL_NAME, Journal, Row
from suite.runner import Options, run

pytestmark = pytest.mark.usefixtures("no_tracking")


@pytest.fixture(scope="module")
def once(tmp_path_factory, tiny_model, calibration_text, evaluation_text, no_tracking):
    """A finished run of two cells under one protocol -> its folder."""
    recipe = {
        "name": "tiny",
        "models": str(tiny_model),
        "calibration": {"source": str(calibration_text), "sequences": 4, "length": 32},
        "evaluation": {"source": str(evaluation_text), "windows": 3, "length": 32},
        "methods": {"rtn": {"bits": 4, "group_size": 16}, "nowag-p": {"sparsity": 0.5}},
    }
    return run(Recipe.model_validate(recipe), Options(tmp_path_factory.mktemp("runs"), offline=True)).folder


@pytest.fixture
def folder(once, tmp_path) -> Path:
    """A copy of the run, for one test."""
    return Path(shutil.copytree(once, tmp_path / "runs" / "tiny"))


@pytest.fixture
def wish(evaluation_text) -> Wish:
    """Windows of another length."""
    return Wish((Protocol(source=str(evaluation_text), windows=4, length=24),), offline=True, device="cpu")


def cells(folder: Path) -> list[Path]:
    return [folder / "cells" / row.cell_id for row in rows(folder)[:2]]


def rows(folder: Path) -> list[Row]:
    return Journal(folder / JOURNAL_NAME).rows()


def rewrite(folder: Path, **changes: object) -> None:
    for row in rows(folder):
        Journal(folder / JOURNAL_NAME).append(row.model_copy(update=changes))


def test_a_cells_new_row_is_the_one_that_a_run_would_have_made(folder, wish, recipe_values, tmp_path):
    [outcome] = reevaluate(cells(folder), wish)
    recipe_values["evaluation"] = wish.protocols[0].model_dump()
    recipe_values["methods"].pop("dense")
    whole = run(Recipe.model_validate(recipe_values), Options(tmp_path / "whole", offline=True, device="cpu"))
    different = {"cost", "created", "recipe_sha256"}
    for row, expected in zip(outcome.rows, whole.rows, strict=True):
        assert row.model_dump(exclude=different) == expected.model_dump(exclude=different)
        assert row.cost.compress_seconds > 0 and row.quality.scored_tokens == 4 * 23


def test_rows_join_the_journal_and_earlier_ones_stay(folder, wish):
    before = rows(folder)
    [outcome] = reevaluate(cells(folder)[:1], wish)
    assert rows(folder) == [*before, *outcome.rows] and len(outcome.rows) == 1


def test_what_has_a_row_is_not_measured_again(folder, wish, monkeypatch):
    reevaluate(cells(folder)[:1], wish)
    journal = (folder / JOURNAL_NAME).read_bytes()
    monkeypatch.setattr(work, "load_cell", None)
    monkeypatch.setattr(work, "score", None)
    reevaluate(cells(folder)[:1], wish)
    assert (folder / JOURNAL_NAME).read_bytes() == journal


def test_the_outcome_has_all_rows_of_the_run_under_these_protocols(folder, wish):
    first, second = cells(folder)
    reevaluate([first], wish)
    [outcome] = reevaluate([second], wish)
    assert [row.cell_id for row in outcome.rows] == [first.name, second.name]


def test_each_run_has_an_outcome_of_its_own(folder, wish, tmp_path):
    other = Path(shutil.copytree(folder, tmp_path / "runs" / "other"))
    outcomes = reevaluate([cells(folder)[0], cells(other)[0]], wish)
    assert [outcome.folder for outcome in outcomes] == [folder, other]
    assert [len(rows(each)) for each in (folder, other)] == [3, 3]


def test_a_cell_is_loaded_once_for_all_evaluations(folder, wish, monkeypatch):
    seen, load = [], work.load_cell
    monkeypatch.setattr(work, "load_cell", lambda cell, **_: seen.append(cell) or load(cell))
    longer = wish.protocols[0].model_copy(update={"length": 40, "windows": 2})
    wish = replace(wish, protocols=(*wish.protocols, longer))
    [outcome] = reevaluate(cells(folder)[:1] * 2, wish)
    assert len(seen) == 1 and [row.quality.scored_tokens for row in outcome.rows] == [4 * 23, 2 * 39]


def test_why_another_row_of_the_cell_has_no_numbers_is_not_taken_over(folder, wish):
    rewrite(folder, status="void", reason="it was so", quality=None, noise={"x": {"nll": 1.0}})
    [outcome] = reevaluate(cells(folder)[:1], wish)
    assert outcome.rows[0].status == "ok" and outcome.rows[0].reason is None
    assert "x" not in outcome.rows[0].noise


def test_a_row_that_failed_is_tried_again(folder, wish):
    [outcome] = reevaluate(cells(folder)[:1], wish)
    failed = outcome.rows[0].model_copy(update={"status": "failed", "reason": "then", "quality": None})
    Journal(folder / JOURNAL_NAME).append(failed)
    [again] = reevaluate(cells(folder)[:1], wish)
    assert [row.quality for row in again.rows] == [outcome.rows[0].quality]


def test_evaluation_text_that_a_cell_was_calibrated_on_is_refused_unless_it_is_said(
    folder, wish, calibration_text
):
    wish = replace(wish, protocols=(Protocol(source=str(calibration_text), windows=40, length=32),))
    without_data, calibrated = cells(folder)
    with pytest.raises(CalibrationError, match="also evaluation text"):
        reevaluate([calibrated], wish)
    assert len(rows(folder)) == 2
    reevaluate([without_data], wish)
    assert len(reevaluate([calibrated], replace(wish, allow_overlap=True))[0].rows) == 2


def test_a_model_that_changed_is_refused(folder, wish):
    rewrite(folder, model_fingerprint="0123456789")
    with pytest.raises(ConfigError, match="fingerprint 01234567"):
        reevaluate(cells(folder), wish)


def test_a_cell_must_lie_in_its_run(folder, wish, tmp_path):
    elsewhere = shutil.copytree(cells(folder)[0], tmp_path / "elsewhere")
    with pytest.raises(ResultError, match="in the folder of its run"):
        reevaluate([Path(elsewhere)], wish)
    with pytest.raises(CheckpointError, match="not a finished cell"):
        reevaluate([folder], wish)


def test_windows_beyond_the_models_context_are_refused(folder, wish, evaluation_text):
    too_long = Protocol(source=str(evaluation_text), windows=1, length=2049)
    with pytest.raises(ConfigError, match="has 2048 positions"):
        reevaluate(cells(folder), replace(wish, protocols=(too_long,)))


def test_a_run_at_work_is_left_alone(folder, wish):
    with alone(folder), pytest.raises(ResultError, match="another run is writing"):
        reevaluate(cells(folder), wish)


def test_nothing_to_evaluate_by_is_refused(folder):
    with pytest.raises(ConfigError, match="give --protocol"):
        reevaluate(cells(folder), Wish())
