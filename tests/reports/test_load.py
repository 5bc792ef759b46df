"""From files to rows, and from rows to a flat frame."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from reports.load import frame, load
from suite.errors import ResultError
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
