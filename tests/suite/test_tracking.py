"""Rows reach MLflow once each, sooner or later, and never hold up the study."""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.environment_variables import MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT

from suite.errors import ResultError
from suite.masking import masked
from suite.results import JOURNAL_NAME, Journal, Row, TaskScore
from suite.tracking import NOTES_NAME, Tracker, default_uri, page_command, quiet, sync

AWAY = "http://user:secret@127.0.0.1:9"
MakeRow = Callable[..., Row]
Study = Callable[..., Tracker]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for the module: MLflow takes seconds to lay one out."""
    return default_uri(tmp_path_factory.mktemp("tracking store"))


@pytest.fixture
def study(tmp_path: Path, uri: str) -> Study:
    """Journal the rows and track them in one go, as a run does."""

    def track(*rows: Row, to: str = uri, recipe_text: str = "") -> Tracker:
        with Tracker(tmp_path, to, experiment=tmp_path.name, recipe_text=recipe_text) as tracker:
            for row in rows:
                Journal(tmp_path / JOURNAL_NAME).append(row)
                tracker.record(row)
        return tracker

    return track


@pytest.fixture
def runs(uri: str, tmp_path: Path) -> Callable[..., list[Run]]:
    """The runs the store holds for this test, parents or children."""

    def find(parents: bool = False) -> list[Run]:
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(tmp_path.name)
        found = client.search_runs([experiment.experiment_id])
        return [run for run in found if ("row_id" in run.data.tags) is not parents]

    return find


FILES = {"cells/cell-a/manifest.json": "{}", "items/a.jsonl": "[]", "recipe-abababab.yaml": "name: x"}


def beside_the_journal(folder: Path) -> None:
    """The files that a run leaves for row `a`."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def artifact(uri: str, run: Run, name: str, to: Path) -> str:
    to.mkdir(exist_ok=True)
    return Path(MlflowClient(uri).download_artifacts(run.info.run_id, name, str(to))).read_text()


def test_a_row_becomes_a_run_with_its_numbers_settings_and_hashes(
    study: Study, runs: Callable[..., list[Run]], make_row: MakeRow
) -> None:
    study(make_row("a", perplexity=21.5, kl_mean=0.25, settings={"keep": 2, "norm": {"rows": True}}))
    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert run.data.metrics["perplexity"] == 21.5
    assert run.data.metrics["kl_mean_nats"] == 0.25
    assert run.data.metrics["stored_bits_per_weight"] == 2.125
    assert run.data.params["settings.norm.rows"] == "True"
    assert run.data.tags["protocol_id"] == "proto12345678"
    assert run.data.tags["mlflow.source.git.commit"] == "c0ffee"


def test_a_tasks_accuracies_and_their_errors_are_metrics(
    study: Study, runs: Callable[..., list[Run]], make_row: MakeRow
) -> None:
    score = TaskScore(
        **{"task": "piqa", "harness": "lm-eval 0", "task_version": "1", "origin": "f", "limit": None},
        **{"metrics": {"acc": 0.75}, "stderr": {"acc": 0.25}, "items": {"acc": "1110"}},
        **{"scored_items": 4, "items_in_task": 4, "batch_size": 16},
    )
    study(make_row("a", quality=None, task=score))
    (run,) = runs()
    assert (run.data.metrics["acc"], run.data.metrics["acc_stderr"]) == (0.75, 0.25)


def test_the_run_lasts_as_long_as_the_cell_took(
    study: Study, runs: Callable[..., list[Run]], make_row: MakeRow
) -> None:
    study(make_row("a", calibrate_seconds=10.0, compress_seconds=2.0, evaluate_seconds=3.0))
    (run,) = runs()
    assert run.info.end_time - run.info.start_time == 15_000


def test_losses_are_metrics_by_epoch_and_the_untouched_state_is_epoch_0(
    study: Study, make_row: MakeRow, runs: Callable[..., list[Run]], uri: str
) -> None:
    study(make_row("a", curves={"finetune/x/train": (3.0, 2.0), "finetune/x/validation": (9.0, 8.0, 7.0)}))
    (run,), client = runs(), MlflowClient(uri)
    found = {
        name: [
            (each.step, each.value) for each in client.get_metric_history(run.info.run_id, f"finetune/x/{name}")
        ]
        for name in ("train", "validation")
    }
    assert found == {"train": [(1, 3.0), (2, 2.0)], "validation": [(0, 9.0), (1, 8.0), (2, 7.0)]}


def test_numbers_that_are_not_finite_are_left_out(
    study: Study, runs: Callable[..., list[Run]], make_row: MakeRow
) -> None:
    study(make_row("a", kl_p99=None, kl_mean=float("inf")))
    (run,) = runs()
    assert {"kl_p99_nats", "kl_mean_nats"}.isdisjoint(run.data.metrics)


def test_a_failed_row_is_a_failed_run_that_says_why(
    study: Study, runs: Callable[..., list[Run]], make_row: MakeRow
) -> None:
    study(make_row("a", status="failed", reason="out of memory", size=None, quality=None, cost=None))
    (run,) = runs()
    assert (run.info.status, run.data.tags["reason"], run.data.metrics) == ("FAILED", "out of memory", {})


def test_the_run_carries_its_row_its_manifest_and_the_recipe(
    study: Study, runs: Callable[..., list[Run]], make_row: MakeRow, uri: str, tmp_path: Path
) -> None:
    beside_the_journal(tmp_path)
    study(make_row("a"), recipe_text="name: x")
    (run,), (parent,) = runs(), runs(parents=True)
    assert json.loads(artifact(uri, run, "row.json", tmp_path / "got"))["row_id"] == "a"
    assert [artifact(uri, run, Path(name).name, tmp_path / "got") for name in FILES] == [*FILES.values()]
    assert artifact(uri, parent, "recipe.yaml", tmp_path / "got") == "name: x"


def test_a_resumed_study_keeps_its_one_parent_run(
    study: Study, runs: Callable[..., list[Run]], make_row: MakeRow
) -> None:
    study(make_row("a"))
    study(make_row("b"))
    (parent,) = runs(parents=True)
    assert {run.data.tags["mlflow.parentRunId"] for run in runs()} == {parent.info.run_id}
    assert parent.info.status == "FINISHED"


def test_a_row_that_was_sent_is_not_sent_again(
    study: Study, runs: Callable[..., list[Run]], make_row: MakeRow
) -> None:
    row = make_row("a")
    assert (study(row).sent, study(row).sent) == (1, 0)
    assert len(runs()) == 1


def test_a_repaired_row_replaces_its_failure(
    study: Study, runs: Callable[..., list[Run]], make_row: MakeRow
) -> None:
    study(make_row("a", status="failed", reason="killed"))
    study(make_row("a"))
    (run,) = runs()
    assert (run.data.tags["status"], run.info.status) == ("ok", "FINISHED")


def test_a_row_sent_but_not_noted_is_replaced_and_not_doubled(
    study: Study, runs: Callable[..., list[Run]], make_row: MakeRow, tmp_path: Path
) -> None:
    study(make_row("a"))
    notes = tmp_path / NOTES_NAME
    notes.write_text("\n".join(notes.read_text().split("\n")[:-1]) + '\n{"uri": "sql')  # killed while noting
    study()
    assert len(runs()) == 1


def test_a_row_journalled_before_a_kill_is_sent_with_its_files_when_the_study_goes_on(
    study: Study, runs: Callable[..., list[Run]], make_row: MakeRow, tmp_path: Path, uri: str
) -> None:
    Journal(tmp_path / JOURNAL_NAME).append(make_row("a"))
    beside_the_journal(tmp_path)
    assert study().sent == 1
    (run,) = runs()
    found = {file.path for file in MlflowClient(uri).list_artifacts(run.info.run_id)}
    assert found == {"row.json", *(Path(name).name for name in FILES)}


def test_a_parent_run_that_a_kill_left_open_is_closed_when_the_study_goes_on(
    study: Study,
    runs: Callable[..., list[Run]],
    make_row: MakeRow,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(Tracker, "_finish", lambda tracker: None)
        study(make_row("a"))
    assert [run.info.status for run in runs(parents=True)] == ["RUNNING"]
    study()
    assert [run.info.status for run in runs(parents=True)] == ["FINISHED"]


def test_a_store_that_has_every_row_is_not_asked_again(
    study: Study, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = make_row("a")
    study(row)
    monkeypatch.setattr("suite.tracking.Store", None)
    assert study(row).pending() == []


def test_a_server_that_is_away_neither_stops_nor_slows_the_study_and_sync_catches_up(
    study: Study, runs: Callable[..., list[Run]], make_row: MakeRow, uri: str, tmp_path: Path
) -> None:
    start = time.monotonic()
    tracker = study(*(make_row(name) for name in "abc"), to=AWAY)
    assert time.monotonic() - start < 30  # MLflow's own retries take minutes
    reopened = Tracker(tmp_path, AWAY)
    assert [row.row_id for row in tracker.pending()] == [row.row_id for row in reopened.pending()] == [*"abc"]
    assert sync(tmp_path, uri) == (3, 0)
    assert len(runs()) == 3


def test_a_failure_is_reported_once_and_without_credentials(
    study: Study, make_row: MakeRow, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study(make_row("a"), make_row("b"), to=AWAY)
    assert len(caplog.messages) == 1
    assert "secret" not in caplog.text + (tmp_path / NOTES_NAME).read_text()


def test_an_error_in_the_study_is_raised_and_its_row_stays_for_later(
    study: Study, make_row: MakeRow, tmp_path: Path
) -> None:
    Journal(tmp_path / JOURNAL_NAME).append(make_row("a"))
    with pytest.raises(RuntimeError, match="boom"), Tracker(tmp_path, AWAY):
        raise RuntimeError("boom")
    assert len(Tracker(tmp_path, AWAY).pending()) == 1


def test_a_store_whose_laying_out_was_cut_short_is_laid_out_anew(
    study: Study, make_row: MakeRow, tmp_path: Path
) -> None:
    halfway = tmp_path / "store" / ".mlflow.db.new"
    halfway.parent.mkdir()
    halfway.write_bytes(b"half a database")
    journal = halfway.with_name(".mlflow.db.new-journal")
    journal.write_bytes(b"of half a database")
    assert study(make_row("a"), to=default_uri(halfway.parent)).sent == 1
    assert not halfway.exists() and not journal.exists()


def test_mlflows_environment_is_as_it_was_after_tracking(study: Study, make_row: MakeRow) -> None:
    before = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW")}
    study(make_row("a"), to=AWAY)
    assert {name: value for name, value in os.environ.items() if name.startswith("MLFLOW")} == before


def test_while_tracking_mlflow_prints_no_links_which_would_have_credentials_in_them() -> None:
    with quiet():
        assert MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.get()


def test_sync_of_a_directory_without_a_journal_says_which(tmp_path: Path, uri: str) -> None:
    with pytest.raises(ResultError, match=r"has no results\.jsonl"):
        sync(tmp_path, uri)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://user:p@ss@host/path", "https://***@host/path"),
        ("postgresql://u:p@db:5432/x?sslmode=on", "postgresql://***@db:5432/x?sslmode=on"),
        ("https://host/?access_token=abc&x=1", "https://host/?access_token=***&x=1"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
    ],
)
def test_credentials_in_a_uri_are_masked_and_nothing_else(uri: str, shown: str) -> None:
    assert masked(uri) == shown


def test_the_users_tracking_uri_comes_before_the_local_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://team:5000")
    assert default_uri(tmp_path) == "http://team:5000"


def test_the_page_command_survives_a_path_with_a_space() -> None:
    assert page_command("sqlite:////my runs/x.db").endswith("ui --backend-store-uri 'sqlite:////my runs/x.db'")


def test_the_page_of_a_server_is_opened_without_its_credentials() -> None:
    assert page_command(AWAY).endswith("-m webbrowser 'http://***@127.0.0.1:9'")


def test_a_file_that_is_gone_by_the_time_it_is_sent_costs_nothing_but_itself(
    uri: str, runs: Callable[..., list[Run]], make_row: MakeRow, tmp_path: Path
) -> None:
    beside_the_journal(tmp_path)
    gone = threading.Event()
    with Tracker(tmp_path, uri, experiment=tmp_path.name) as tracker:
        tracker.submit("first", "", lambda store: str(gone.wait()))
        tracker.record(make_row("a"))
        (tmp_path / "items/a.jsonl").unlink()
        gone.set()
        tracker.record(make_row("b"))
    assert tracker.sent == 3 and len(runs()) == 2
