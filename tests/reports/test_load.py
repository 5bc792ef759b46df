"""From files to rows and what lies beside them, and from rows to a flat frame."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reports.load import frame, gather, load, material_of, newest_run
from reports.material import Material, Search
from reports.searches import write_search
from suite.errors import ConfigError, ResultError
from suite.results import Journal, Row

MakeRow = Callable[..., Row]


def test_a_file_and_the_directories_above_it_give_the_same_rows(tmp_path: Path, make_row: MakeRow) -> None:
    path = tmp_path / "runs" / "quickstart" / "results.jsonl"
    Journal(path).append(make_row("a"))
    assert load(path) == load(tmp_path) == [make_row("a")]


def test_of_two_files_the_newer_row_of_an_id_wins(tmp_path: Path, make_row: MakeRow) -> None:
    Journal(tmp_path / "1" / "results.jsonl").append(make_row("a", created="2030-01-02T00:00:00+00:00", seed=1))
    Journal(tmp_path / "2" / "results.jsonl").append(make_row("a", created="2030-01-01T00:00:00+00:00", seed=2))
    assert [row.seed for row in load(tmp_path)] == [1]


@pytest.mark.parametrize("name", ["", "results.jsonl", "missing"])
def test_nothing_to_read_is_an_error_that_names_the_place(tmp_path: Path, name: str) -> None:
    with pytest.raises(ResultError, match=str(tmp_path / name)):
        load(tmp_path / name)


def test_copies_that_mlflow_keeps_are_no_results(tmp_path: Path, make_row: MakeRow) -> None:
    Journal(tmp_path / "run" / "results.jsonl").append(make_row("a"))
    Journal(tmp_path / "mlartifacts" / "1" / "results.jsonl").append(make_row("b"))
    assert [row.row_id for row in load(tmp_path)] == ["a"]


@pytest.fixture
def run(tmp_path: Path, make_row: MakeRow) -> Path:
    """A run's folder with one row and all that a run leaves beside it."""
    Journal(tmp_path / "run" / "results.jsonl").append(make_row("a"))
    left = {
        "cells/cell-a/manifest.json": {"layers": {"q_proj": {"output_error": 0.5}}, "seed": 0},
        "cells/cell-of-others/manifest.json": {"layers": {}},
        "ledger/led9e4.json": {"seed": 3, "spans": [[1, 2]]},
    }
    for name, values in left.items():
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text(json.dumps(values))
    return tmp_path / "run"


def test_layers_ledgers_and_searches_are_found_beside_the_rows(run: Path) -> None:
    search = Search("quickstart", "kl", [{"trial": 0}], {}, [])
    write_search(search, run / "search")
    found = gather([run.parent])
    assert found.layers == {"cell-a": {"q_proj": {"output_error": 0.5}}}
    assert found.ledgers == {"led9e4": {"seed": 3}}
    assert [each.name for each in found.searches] == ["quickstart"]


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "\udcff"])
def test_what_is_damaged_beside_the_rows_is_left_out_and_named(
    run: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    damaged = [run / name for name in ("cells/cell-a/manifest.json", "ledger/led9e4.json", "search/search.json")]
    for path in damaged:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode(errors="surrogateescape"))
    found = gather([run])
    assert (found.layers, found.ledgers, found.searches) == ({}, {}, [])
    assert [str(path) in line for path, line in zip(damaged, caplog.messages, strict=True)] == [True] * 3


def test_a_runs_material_has_the_rows_that_are_given(run: Path, make_row: MakeRow) -> None:
    others = [make_row("b", cell_id="cell-of-nobody", ledger="none")]
    assert material_of(run, others) == Material(others, searches=[])


def test_a_source_that_is_named_twice_counts_once(run: Path) -> None:
    write_search(Search("quickstart", "kl", [], {}, []), run / "search")
    found = gather([run, run / "results.jsonl", run.parent])
    assert (len(found.rows), len(found.searches)) == (1, 1)


def test_a_filter_chooses_by_settings_too_and_leaves_nothing_of_the_others(run: Path, make_row: MakeRow) -> None:
    Journal(run / "results.jsonl").append(make_row("b", settings={"norm": {"rows": True}}))
    found = gather([run], "settings.norm.rows == True")
    assert ([row.row_id for row in found.rows], found.layers) == (["b"], {})


def test_a_filter_that_no_row_fits_is_an_error(run: Path) -> None:
    with pytest.raises(ConfigError, match="seed > 5.*none of 1 rows"):
        gather([run], "seed > 5")


def test_what_a_store_has_chosen_is_not_filtered_again(run: Path, tmp_path: Path, make_row: MakeRow) -> None:
    Journal(tmp_path / "store" / "results.jsonl").append(make_row("b", seed=7))
    found = gather([run], "seed == 0", [tmp_path / "store"])
    assert [row.row_id for row in found.rows] == ["a", "b"]
    assert [row.row_id for row in gather([], "seed == 0", [tmp_path / "store"]).rows] == ["b"]


def test_runs_behind_a_link_are_found_and_circles_end(run: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "run").symlink_to(run)
    (run / "back").symlink_to(tmp_path / "links")
    assert [row.row_id for row in load(tmp_path / "links")] == ["a"]


def test_a_directory_that_cannot_be_read_is_no_empty_one(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", path)
        return really(path)

    (run / "secret").mkdir()
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError, match="secret"):
        load(run)


def test_the_newest_run_is_that_which_was_written_last(run: Path, make_row: MakeRow) -> None:
    Journal(run.parent / "old" / "results.jsonl").append(make_row("b"))
    os.utime(run.parent / "old" / "results.jsonl", (1, 1))
    assert newest_run(run.parent) == run


def test_a_search_comes_with_rows_of_its_recipe_only(run: Path) -> None:
    write_search(Search("another", "kl", [], {}, []), run / "search")
    assert gather([run]).searches == []


def test_the_frame_says_which_size_was_asked_for_and_who_missed_it(make_row: MakeRow) -> None:
    match = {"bits_per_weight": 2.1}
    rows = [make_row("a", match=match), make_row("b", match=match, stored_bits_per_weight=2.2), make_row("c")]
    flat = frame([*rows, make_row("d", match=match, method="dense", stored_bits_per_weight=16.0)])
    assert list(flat["off_budget"]) == [False, True, None, None]
    assert list(flat["asked_bits_per_weight"].dropna()) == [2.1, 2.1]


def test_the_frame_keeps_the_rows_order_and_names_units(study: list[Row]) -> None:
    flat = frame(study)
    assert list(flat["row_id"]) == ["r1", "r2", "r3", "r4", "r5"]
    assert list(flat["kl_mean_nats"])[:2] == [0.4, 0.2]
    assert flat["seconds"][0] == 6.0


def test_a_row_without_numbers_is_a_line_of_nans(study: list[Row]) -> None:
    last = frame(study).iloc[-1]
    assert all(math.isnan(last[name]) for name in ("perplexity", "stored_bits_per_weight", "seconds"))


def test_numbers_of_single_windows_and_items_stay_in_the_rows(study: list[Row], make_task: MakeRow) -> None:
    columns = set(frame([*study, make_task("t", acc="0110")]).columns)
    assert not columns & {"window_nll", "window_kl", "items", "task_items", "task_metrics"}


def test_a_task_has_columns_for_its_metrics_and_their_errors(make_task: MakeRow) -> None:
    line = frame([make_task("t", acc="0111", metrics={"perplexity": 9.5}, limit=4)]).iloc[0]
    assert (line["task"], line["task_acc"], line["task_perplexity"]) == ("arc_easy", 0.75, 9.5)
    assert line["task_acc_stderr"] == pytest.approx(0.25)  # sqrt(0.75 * 0.25 / 3)
    assert (line["task_scored_items"], line["task_limit"], line["task_version"]) == (4, 4, "1.0")


def test_noise_has_a_column_for_each_change_and_figure(make_row: MakeRow) -> None:
    line = frame([make_row(noise={"batch of 8": {"acc": 0.5}, "bfloat16": {"nll": 0.001}})]).iloc[0]
    assert (line["noise_batch_of_8_acc"], line["noise_bfloat16_nll"]) == (0.5, 0.001)
