"""A run and a search where secrets are all around: nothing that they leave behind or say holds one."""

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from mlflow import MlflowClient

from methods.rtn import RTN
from suite import commands
from suite.commands.shared import say
from suite.masking import MaskedFormatter
from suite.results import JOURNAL_NAME, Journal
from suite.scoring import Desk
from suite.tracking import NOTES_NAME, Tracker

Invoke = Callable[..., tuple[int, str, str]]
VARIABLES = {
    "HF_TOKEN": "hf_planted-value-of-the-hub",
    "MLFLOW_TRACKING_PASSWORD": 'planted "word"/of the server',
    "MLFLOW_TRACKING_TOKEN": "planted-token-of-the-server",
    "AWS_SECRET_ACCESS_KEY": "planted+key/of+the+store",
}
WORD, PARAMETER = "planted-word-of-a-user", "planted-parameter"
ADDRESS = f"http://somebody:{WORD}@127.0.0.1:9/x?token={PARAMETER}"
SPELLED = [[value, quote(value, safe=""), json.dumps(value)[1:-1]] for value in VARIABLES.values()]
SECRETS = {WORD, PARAMETER, *itertools.chain(*SPELLED)}
TOLD = " ".join([ADDRESS, *VARIABLES.values()])


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets in the environment, and a method that fails with all of them in its message."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    works = RTN.compress

    def compress(self: RTN, *given: Any) -> Any:
        if self.bits == 3:
            raise RuntimeError(f"refused: {TOLD}")
        return works(self, *given)

    monkeypatch.setattr(RTN, "compress", compress)


def found_in(text: str) -> set[str]:
    return {secret for secret in SECRETS if secret in text}


def found_below(folder: Path) -> dict[str, set[str]]:
    """The files that hold a secret, in their bytes or in their names."""
    texts = {
        str(file): f"{file} {file.read_bytes().decode('latin-1')}" for file in folder.rglob("*") if file.is_file()
    }
    assert texts
    return {file: found for file, text in texts.items() if (found := found_in(text))}


def test_a_run_leaves_and_says_no_secret(
    planted: None, invoke: Invoke, recipe_values: dict[str, Any], write_recipe: Any, tmp_path: Path
) -> None:
    recipe = write_recipe(recipe_values | {"methods": {"rtn": {"bits": [4, 3], "group_size": 16}}})
    status, out, err = invoke("run", recipe, "--out", tmp_path / "runs", "--offline")
    failed, measured = Journal(tmp_path / "runs/tiny" / JOURNAL_NAME).rows()
    assert (status, failed.status, measured.status) == (1, "failed", "ok")
    assert "***" in str(failed.reason) and list((tmp_path / "runs/tiny/failures").iterdir())
    client = MlflowClient(f"sqlite:///{tmp_path / 'runs/mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment and len(client.search_runs([experiment.experiment_id])) == 3
    assert not found_in(out + err) and not found_below(tmp_path)


def test_a_search_leaves_and_says_no_secret(
    planted: None,
    invoke: Invoke,
    recipe_values: dict[str, Any],
    calibration_text: Path,
    write_recipe: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ADDRESS)  # refused: nobody listens there
    confirm = {"source": str(calibration_text), "windows": 2, "length": 40}
    tuning = {"trials": 2, "rungs": {"blocks": 0, "windows": []}, "confirm": confirm, "unnamed": "default"}
    methods = {"rtn": {"bits": [4, 3], "group_size": 16}}
    recipe = write_recipe(recipe_values | {"methods": methods, "tune": tuning, "allow_overlap": True})
    arguments = ("tune", recipe, "--out", tmp_path / "runs", "--offline")
    _, out, err = invoke(*arguments)
    assert "no answer from http://***@127.0.0.1:9/x?token=***, rows stay pending" in caplog.text
    assert "***" in (tmp_path / "runs/tiny/optuna.log").read_text()  # the reason of the trial that failed
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    _, more, errors = invoke(*arguments)  # sends every row and trial
    assert '"run":' in (tmp_path / "runs/tiny" / NOTES_NAME).read_text()
    lines = map(MaskedFormatter("%(message)s").format, caplog.records)
    assert not found_in("".join([out, err, more, errors, *lines])) and not found_below(tmp_path)


@pytest.mark.parametrize("secret", [ADDRESS, f"https://host/x?api_key={PARAMETER}", *VARIABLES.values()])
@pytest.mark.parametrize("place", ["models", "name of a method", "source", "join", "confirm"])
def test_a_recipe_with_a_secret_is_refused_in_a_line(
    planted: None, refused: Any, recipe_values: dict[str, Any], write_recipe: Any, place: str, secret: str
) -> None:
    tokens = {**recipe_values["evaluation"], "join": "\n", "source": "x.txt"}
    changes: dict[str, dict[str, Any]] = {
        "models": {"models": ["tiny", f"org/{secret}"]},
        "name of a method": {"methods": {secret: {}}},
        "source": {"evaluation": tokens | {"source": f"{secret}.jsonl"}},
        "join": {"evaluation": tokens | {"join": secret}},
        "confirm": {"methods": {"rtn": {"bits": [3, 4]}}, "tune": {"confirm": tokens | {"source": secret}}},
    }
    command = "tune" if place == "confirm" else "run"
    line = refused(command, write_recipe(recipe_values | changes[place]), "--out", "runs", "--offline")
    assert not found_in(line)
    assert "holds" in line and "secrets do not belong in a recipe" in line


@pytest.mark.parametrize(
    "command",
    [("study", "show", "matched-bits", "--model"), ("quickstart", "--offline", "--model")],
)
def test_a_model_by_an_address_with_a_secret_names_no_recipe(
    planted: None, invoke: Invoke, command: tuple[str, ...]
) -> None:
    status, out, err = invoke(*command, ADDRESS)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "holds a password or token" in err and not found_in(err)


def test_a_row_of_an_older_journal_is_sent_without_its_secrets(
    planted: None, make_row: Any, tmp_path: Path
) -> None:
    row = make_row(status="failed", title=TOLD, model=ADDRESS, audit={"told": [TOLD]}, settings={"x": TOLD})
    with Tracker(tmp_path, f"sqlite:///{tmp_path / 'mlflow.db'}", "old", f"models: {ADDRESS}") as tracker:
        tracker.record(row)
    assert tracker.sent == 1
    assert not found_below(tmp_path)


def test_a_bug_is_told_without_its_secrets(
    planted: None, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    invoke("--version")
    sys.excepthook(KeyError, KeyError(TOLD), None)
    told = capsys.readouterr().err
    assert told.startswith("KeyError: ") and not found_in(told)


def test_warnings_and_what_a_thread_dies_of_are_told_without_secrets(planted: None) -> None:
    script = """
import sys, threading, warnings
from suite.masking import speak

def die():
    raise KeyError(sys.argv[1])

speak("[worker 3] ")
warnings.warn(sys.argv[1])
thread = threading.Thread(target=die)
thread.start()
thread.join()
"""
    told = subprocess.run([sys.executable, "-c", script, TOLD], capture_output=True, text=True, check=True).stderr
    assert "[worker 3] " in told and "UserWarning: " in told and "KeyError: " in told
    assert told.count("***") >= 2 and not found_in(told)


def test_what_a_command_prints_is_masked(planted: None, capsys: pytest.CaptureFixture[str]) -> None:
    say(f"source: {TOLD}")
    assert capsys.readouterr().out == "source: http://***@127.0.0.1:9/x?token=*** *** *** *** ***\n"


@pytest.mark.parametrize("file", sorted(Path(commands.__file__).parent.glob("*.py")), ids=lambda file: file.stem)
def test_commands_print_in_no_other_way(file: Path) -> None:
    assert file.read_text().count("typer.echo") == (file.stem == "shared")


def test_a_row_is_put_down_without_secrets(planted: None, make_row: Any, tmp_path: Path) -> None:
    with Tracker(tmp_path, "http://127.0.0.1:9") as tracker:
        row = Desk(tmp_path, tracker).record(make_row("a").model_copy(update={"model_note": TOLD}))
    assert not found_in(str(row.model_note)) and not found_below(tmp_path)
