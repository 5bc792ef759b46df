"""`tune` as a user meets it, and its trials in MLflow."""

from datetime import UTC, datetime

import pytest
import yaml
from mlflow import MlflowClient
from typer.testing import CliRunner

from reports.searches import confirmations, read_search
from suite import cli, runner
from suite.config import Recipe
from suite.errors import ConfigError
from suite.results import JOURNAL_NAME, Journal
from suite.tracking import Tracker
from suite.tuning import search
from suite.tuning.tracked import track_trial

ENDED = datetime.fromtimestamp(1_000_000_000, UTC)
RECORD = {
    "trial": 3,
    "state": "stopped",
    "best": False,
    "reason": "stopped after proxy",
    "method": "nowag-vq",
    "settings.dim": 4,
    "predicted_bits": 2.1,
    "rung.proxy": 0.05,
    "kl": None,
    "seconds": 2.5,
    "cells": "ab",
}


def invoke(*arguments):
    return CliRunner().invoke(cli.app, ["tune", *map(str, arguments)])


def test_tune_ends_with_the_verdict_on_unseen_text_and_the_dashboards_command_and_leaves_the_search(
    no_tracking, monkeypatch, recipe_values, calibration_text, tmp_path
):
    monkeypatch.setattr(search, "Tracker", runner.Tracker)
    confirm = {"source": str(calibration_text), "windows": 6, "length": 40}
    tuning = {"trials": 5, "rungs": {"blocks": 1, "windows": []}, "confirm": confirm, "unnamed": "default"}
    methods = {"nowag-vq": {"bits": 1, "dim": [2, 4], "iterations": [0, 1]}}
    values = recipe_values | {"methods": methods, "tune": tuning, "allow_overlap": True}
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(values))
    result = invoke(tmp_path / "search.yaml", "--trials", 3, "--out", tmp_path / "runs", "--offline")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "runs" / "tiny"
    assert f"optuna-dashboard {folder / 'optuna.log'}" in result.output and "3 " in result.output
    assert "NoWag-VQ 1 bits d" in result.output and "against" in result.output
    left, rows = read_search(folder / "search" / "search.json"), Journal(folder / JOURNAL_NAME).rows()
    assert len(left.trials) >= 3 and (folder / "search" / "trials.csv").exists()
    tried = {cell for trial in left.trials for cell in trial["cells"].split()}
    assert {row.protocol_id for row in rows if row.cell_id not in tried}.isdisjoint(left.seen)
    assert left.seen and {row.protocol_id for row in rows}.issuperset(left.seen)
    sentences = [each.sentence() for each in confirmations(left, rows)]
    assert sentences and all(line in result.output for line in sentences)
    again = CliRunner().invoke(
        cli.app, ["run", str(folder / "best.yaml"), "--out", str(tmp_path / "runs"), "--offline"]
    )
    assert again.exit_code == 0


def test_a_recipe_that_is_no_search_is_refused(recipe_values, tmp_path):
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(recipe_values))
    result = invoke(tmp_path / "plain.yaml")
    assert isinstance(result.exception, ConfigError) and "has no key tune" in str(result.exception)


@pytest.fixture
def send(tmp_path, recipe_values):
    """A function that tracks trials in one folder, as a search does -> MLflow's client and the recipe."""
    recipe = Recipe.model_validate(recipe_values)

    def made(*records, uri=f"sqlite:///{tmp_path / 'mlflow.db'}"):
        with Tracker(tmp_path / "out", uri, experiment="tiny") as tracker:
            for record in records:
                track_trial(tracker, recipe, "s-1", record, ENDED)
        return tracker

    return made


def test_each_trial_is_a_run_below_the_recipes_and_sent_once(send, tmp_path, recipe_values):
    assert [send(RECORD).sent for _ in range(2)] == [1, 0]
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    [parent] = [run for run in runs if "recipe_sha256" in run.data.tags]
    [child] = [run for run in runs if run is not parent]
    assert parent.data.tags["recipe_sha256"] == Recipe.model_validate(recipe_values).sha256
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id and parent.info.status == "FINISHED"
    assert child.data.metrics == {"rung.proxy": 0.05, "predicted_bits": 2.1, "seconds": 2.5}
    assert child.data.params["settings.dim"] == "4" and child.data.tags["state"] == "stopped"
    assert (child.info.start_time, child.info.end_time) == (1_000_000_000_000 - 2500, 1_000_000_000_000)


def test_trials_that_met_a_store_that_was_away_are_sent_when_the_search_goes_on(send):
    assert send(RECORD, uri="http://user:secret@127.0.0.1:9").sent == 0
    assert send(RECORD, RECORD | {"trial": 4}).sent == 2


@pytest.mark.parametrize("option", ["--trials", "--storage", "--set"])
def test_help_names_the_options(option):
    assert option in invoke("--help").output
