"""`tune` as a user meets it, and its trials in MLflow."""

import logging

import pytest
import yaml
from mlflow import MlflowClient
from typer.testing import CliRunner

from suite import cli, runner
from suite.errors import ConfigError
from suite.tuning import search, tracked
from suite.tuning.tracked import track_trials

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
    "cells": "ab",
}


def invoke(*arguments):
    return CliRunner().invoke(cli.app, ["tune", *map(str, arguments)])


def test_tune_ends_with_the_verdict_on_unseen_text_the_page_and_the_dashboards_command(
    no_tracking, monkeypatch, recipe_values, calibration_text, tmp_path
):
    monkeypatch.setattr(search, "Tracker", runner.Tracker)
    monkeypatch.setattr(tracked, "track_trials", lambda *_: 0)
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
    page = (folder / "search" / "search.html").read_text()
    assert "On text that the search did not see" in page and page.count("<svg") == 2
    assert len((folder / "search" / "trials.csv").read_text().splitlines()) > 3
    again = CliRunner().invoke(
        cli.app, ["run", str(folder / "best.yaml"), "--out", str(tmp_path / "runs"), "--offline"]
    )
    assert again.exit_code == 0


def test_a_recipe_that_is_no_search_is_refused(recipe_values, tmp_path):
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(recipe_values))
    result = invoke(tmp_path / "plain.yaml")
    assert isinstance(result.exception, ConfigError) and "has no key tune" in str(result.exception)


def test_each_trial_is_a_run_below_the_searchs_and_sent_once(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    never = RECORD | {"trial": 4, "state": "unusable"}
    assert [track_trials([RECORD, never], "s-1", "tiny", uri) for _ in range(2)] == [1, 0]
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    [parent] = [run for run in runs if not run.data.tags["trial"]]
    [child] = [run for run in runs if run is not parent]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id and parent.info.status == "FINISHED"
    assert child.data.metrics == {"rung.proxy": 0.05, "predicted_bits": 2.1}
    assert child.data.params["settings.dim"] == "4" and child.data.tags["state"] == "stopped"


def test_a_store_that_is_away_costs_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        assert track_trials([RECORD], "s-1", "tiny", "http://user:secret@127.0.0.1:9") == 0
    assert "trials are not there yet" in caplog.text and "secret" not in caplog.text


@pytest.mark.parametrize("option", ["--trials", "--storage", "--set"])
def test_help_names_the_options(option):
    assert option in invoke("--help").output
