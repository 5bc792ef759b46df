"""A tracking store gives back the rows that it was sent, and what is noted of their linears."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from reports.load import gather
from suite import tracked_rows
from suite.errors import ConfigError, EnvironmentProblem, ResultError
from suite.results import JOURNAL_NAME, Journal, Row
from suite.tracked_rows import fetch
from suite.tracking import Tracker, default_uri

MakeRow = Callable[..., Row]
Send = Callable[..., None]


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store: MLflow takes seconds to make one."""
    folder = tmp_path_factory.mktemp("store")
    MlflowClient(default_uri(folder)).search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def uri(tmp_path: Path, laid_out: Path) -> str:
    """A store of this test alone."""
    (tmp_path / "mlflow.db").write_bytes(laid_out.read_bytes())
    return default_uri(tmp_path)


@pytest.fixture
def send(tmp_path: Path, uri: str) -> Send:
    """Journal rows of a study, with a manifest of each cell, and track them as a run does."""

    def track(*rows: Row, study: str = "study") -> None:
        with Tracker(tmp_path / study, uri, experiment=study) as tracker:
            for row in rows:
                cell = tmp_path / study / "cells" / row.cell_id
                cell.mkdir(parents=True, exist_ok=True)
                (cell / "manifest.json").write_text(json.dumps({"layers": {"q_proj": {"output_error": 0.5}}}))
                Journal(tmp_path / study / JOURNAL_NAME).append(row)
                tracker.record(row)

    return track


def test_rows_and_layers_come_back_as_they_were_sent(
    send: Send, uri: str, tmp_path: Path, make_row: MakeRow
) -> None:
    rows = [make_row("a", settings={"norm": {"rows": True}}), make_row("b", cell_id="cell-a")]
    send(*rows)
    fetch(uri, "", tmp_path / "fetched")
    found = gather([tmp_path / "fetched"])
    assert found.rows == rows
    assert found.layers == {"cell-a": {"q_proj": {"output_error": 0.5}}}


def test_rows_of_a_store_stand_as_their_recipe_has_them(
    send: Send, uri: str, tmp_path: Path, make_row: MakeRow
) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "recipe-abababab.yaml").write_text("methods: {rtn: {}, wanda: {}}")
    send(make_row("a"), make_row("b", method="rtn"))
    fetch(uri, "", tmp_path / "fetched")
    assert [row.row_id for row in gather([tmp_path / "fetched"]).rows] == ["b", "a"]


def test_all_studies_of_the_store_are_there_and_pages_are_turned(
    send: Send, uri: str, tmp_path: Path, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracked_rows, "PAGE", 1)
    send(make_row("a"), make_row("b"))
    send(make_row("c"), study="other")
    fetch(uri, "", tmp_path / "fetched")
    assert {row.row_id for row in gather([tmp_path / "fetched"]).rows} == {"a", "b", "c"}


def test_mlflow_chooses_by_the_filter(send: Send, uri: str, tmp_path: Path, make_row: MakeRow) -> None:
    send(make_row("a", perplexity=10.0), make_row("b", perplexity=90.0), make_row("c", method="rtn"))
    fetch(uri, "params.method = 'wanda' and metrics.perplexity < 50", tmp_path / "fetched")
    assert [row.row_id for row in gather([tmp_path / "fetched"]).rows] == ["a"]
    assert not (tmp_path / "fetched" / "cells" / "cell-b").exists()


def test_a_row_that_was_replaced_is_there_once_and_one_that_was_deleted_is_not(
    send: Send, uri: str, tmp_path: Path, make_row: MakeRow
) -> None:
    send(make_row("a", status="failed", size=None, quality=None), make_row("b"))
    send(make_row("a"))
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("study").experiment_id
    (run,) = client.search_runs([experiment], "tags.row_id = 'b'")
    client.delete_run(run.info.run_id)
    fetch(uri, "", tmp_path / "fetched")
    assert [(row.row_id, row.status) for row in gather([tmp_path / "fetched"]).rows] == [("a", "ok")]


def test_a_run_whose_row_is_gone_is_left_out_and_named(
    send: Send, uri: str, tmp_path: Path, make_row: MakeRow, caplog: pytest.LogCaptureFixture
) -> None:
    send(make_row("a"), make_row("b"))
    gone = next(path for path in (tmp_path / "mlartifacts").rglob("row.json") if '"b"' in path.read_text())
    gone.unlink()
    with caplog.at_level(logging.WARNING):
        fetch(uri, "", tmp_path / "fetched")
    assert [row.row_id for row in gather([tmp_path / "fetched"]).rows] == ["a"]
    assert gone.parent.parent.name in caplog.text


def test_a_cells_name_from_a_store_stays_inside_the_folder(
    send: Send, uri: str, tmp_path: Path, make_row: MakeRow
) -> None:
    send(make_row("a"))
    client = MlflowClient(uri)
    [run] = client.search_runs([each.experiment_id for each in client.search_experiments()], "tags.row_id = 'a'")
    client.set_tag(run.info.run_id, "cell_id", "../../escaped")
    fetch(uri, "", tmp_path / "deep" / "fetched")
    assert not (tmp_path / "deep" / "escaped").exists() and not list(tmp_path.glob("deep/*.json"))
    assert [path.name for path in (tmp_path / "deep" / "fetched" / "cells").iterdir()] == ["escaped"]


@pytest.mark.parametrize(
    ("where", "wrong"),
    [("method", ConfigError), ("seed == 1 or seed == 2", ConfigError), ("params.method = 'none'", ResultError)],
)
def test_a_filter_that_finds_nothing_or_says_nothing_is_one_line(
    send: Send, uri: str, tmp_path: Path, make_row: MakeRow, where: str, wrong: type[Exception]
) -> None:
    send(make_row("a"))
    with pytest.raises(wrong, match="--filter") as error:
        fetch(uri, where, tmp_path / "fetched")
    assert where in str(error.value) and "\n" not in str(error.value)


def test_a_row_of_another_release_is_one_line(send: Send, uri: str, tmp_path: Path, make_row: MakeRow) -> None:
    send(make_row("a"))
    for path in (tmp_path / "mlartifacts").rglob("row.json"):
        path.write_text('{"row_id": "a"}')
    with pytest.raises(ResultError, match=r"run \w+: row.json.cell_id: field required"):
        fetch(uri, "", tmp_path / "fetched")


def test_an_empty_store_and_a_missing_one_have_no_rows(uri: str, tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="no rows of nowag-bench"):
        fetch(uri, "", tmp_path / "fetched")
    with pytest.raises(ResultError, match="no tracking store at"):
        fetch(default_uri(tmp_path / "nowhere"), "", tmp_path / "fetched")
    assert not (tmp_path / "nowhere").exists()


def test_a_server_that_is_away_is_one_line_without_credentials(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"no rows from http://\*\*\*@127.0.0.1:9") as error:
        fetch("http://user:secret@127.0.0.1:9", "", tmp_path)
    assert "secret" not in str(error.value) and "\n" not in str(error.value)


def test_a_missing_driver_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_driver(uri: str) -> None:
        raise ModuleNotFoundError("No module named 'psycopg'", name="psycopg")

    monkeypatch.setattr(tracked_rows, "MlflowClient", without_driver)
    with pytest.raises(EnvironmentProblem, match=r"postgresql://\*\*\*@host/db needs the Python module psycopg"):
        fetch("postgresql://user:secret@host/db", "", tmp_path)
