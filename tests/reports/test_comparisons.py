"""Which rows stand together, in what order, and what a table says where there is no number."""

import math
from collections.abc import Callable

import pytest

from reports.comparisons import comparisons
from reports.figures.front import pareto_front
from reports.tables import Table
from reports.wording import Wording
from suite.results import Row

MakeRow = Callable[..., Row]
PERPLEXITY = "perplexity wiki[validation]"


def only(rows: list[Row]) -> Table:
    (table,) = comparisons(rows)
    return table


def methods(table: Table) -> list[str]:
    return list(table.labels["method"])


def test_the_dense_model_comes_first_and_the_rest_in_the_rows_order(study: list[Row]) -> None:
    assert methods(only(study)) == ["Dense", "Wanda", "NoWag-VQ", "RTN", "QuIP#"]


def test_shares_are_printed_in_percent(make_row: MakeRow) -> None:
    numbers = only([make_row(sparsity=0.5, top1_agreement=0.75)]).numbers
    assert (numbers["sparsity %"][0], numbers["top-1 %"][0]) == (50.0, 75.0)


def test_the_perplexity_column_names_its_text(study: list[Row]) -> None:
    assert only(study).numbers[PERPLEXITY][0] == pytest.approx(17.5)


@pytest.mark.parametrize("status", ["unsupported", "failed", "void"])
def test_an_entry_that_is_not_ok_keeps_its_place_but_shows_no_number(make_row: MakeRow, status: str) -> None:
    table = only([make_row("a"), make_row("b", settings={}, status=status, reason="too narrow")])
    assert table.reasons == ["", f"{status}: too narrow"]
    assert table.numbers.loc[1].isna().all()


@pytest.mark.parametrize(
    "other",
    [
        {"protocol_id": "p2"},
        {"evaluated_tokens": "t2"},
        {"model_fingerprint": "f2"},
        {"calibration": "pile, 1 x 2 tokens"},
    ],
)
def test_unlike_rows_never_share_a_table(make_row: MakeRow, other: dict[str, str]) -> None:
    assert [len(table.numbers) for table in comparisons([make_row("a"), make_row("b", **other)])] == [1, 1]


def test_rows_without_data_stand_in_the_table_of_every_budget(make_row: MakeRow) -> None:
    free = make_row("free", title="RTN", method="rtn", calibration=None)
    tables = comparisons([free, make_row("a", calibration="small"), make_row("b", calibration="large")])
    assert [methods(table) for table in tables] == [["RTN", "Wanda"]] * 2


def test_rows_without_data_alone_make_one_table(make_row: MakeRow) -> None:
    assert methods(only([make_row("a", calibration=None)])) == ["Wanda"]


def test_the_caption_says_model_protocol_budget_machine_and_date(study: list[Row]) -> None:
    caption = Wording().caption(only(study).caption)
    for part in (
        "smollm2-135m (weights f1)",
        "(protocol proto123)",
        "8 windows of 512",
        "c4, 8 x 512",
        "Test CPU, 2 cores",
        "2030-01-02",
    ):
        assert part in caption


def test_memory_is_the_accelerators_where_there_is_one(make_row: MakeRow) -> None:
    table = only([make_row(peak_device_memory_gib=7.0)])
    assert table.numbers["peak device GiB"][0] == 7.0
    assert "peak GiB" not in table.headers


def test_rows_of_schema_1_have_their_numbers_and_no_mark_for_kl(make_windows: MakeRow) -> None:
    table = only([make_windows("a", window_kl=()), make_windows("b", worse=0.1)])
    assert not table.best["KL nats/token"].any()
    assert list(table.best[PERPLEXITY]) == [True, False]


def test_the_front_is_what_no_entry_beats_in_bits_and_kl(make_row: MakeRow) -> None:
    points = {"a": (2, 0.9), "beaten": (3, 0.95), "b": (3, 0.3), "tie": (4, 0.3), "c": (8, 0.1)}
    rows = [
        make_row(name, title=name, settings={"name": name}, stored_bits_per_weight=bits, kl_mean=kl)
        for name, (bits, kl) in points.items()
    ]
    assert list(pareto_front(only(rows).frame)["method"]) == ["a", "b", "c"]


def test_tasks_stand_side_by_side_in_percent_with_their_mean_last(make_task: MakeRow) -> None:
    rows = [make_task("a", "arc_easy", acc="0111", acc_norm="0011"), make_task("b", "piqa", acc="0001")]
    numbers = only(rows).numbers.loc[0]
    assert list(numbers.index[1:]) == ["arc_easy acc %", "arc_easy acc_norm %", "piqa acc %", "mean acc %"]
    assert list(numbers[1:]) == [75, 50, 25, 50]


def test_the_error_of_a_mean_is_that_of_independent_tasks(make_task: MakeRow) -> None:
    errors = only([make_task("a", "arc_easy", acc="0111"), make_task("b", "piqa", acc="0001")]).half_widths.loc[0]
    assert errors["arc_easy acc %"] == pytest.approx(25)  # 100 sqrt(0.75 * 0.25 / 3)
    assert errors["mean acc %"] == pytest.approx(math.sqrt(25**2 + 25**2) / 2)


def test_an_entry_that_lacks_a_task_has_no_mean(make_task: MakeRow) -> None:
    rows = [make_task("a", "arc_easy", acc="0111"), make_task("b", "piqa", acc="0001")]
    numbers = only([*rows, make_task("c", "piqa", acc="0011", settings={})]).numbers
    assert math.isnan(numbers["mean acc %"][1])
    assert math.isnan(numbers["arc_easy acc %"][1])


def test_a_task_without_accuracy_shows_what_it_has_and_there_is_no_mean(make_task: MakeRow) -> None:
    rows = [make_task("a", "lambada", metrics={"perplexity": 9.5}), make_task("b", "piqa", acc="0001")]
    table = only(rows)
    assert table.numbers["lambada perplexity"][0] == pytest.approx(9.5)
    assert "mean acc %" not in table.headers


@pytest.mark.parametrize("other", [{"limit": 4}, {"protocol_id": "harder"}, {"evaluated_tokens": "t2"}])
def test_two_protocols_of_a_task_never_share_a_column(make_task: MakeRow, other: dict[str, object]) -> None:
    tables = comparisons([make_task("a", acc="0001"), make_task("b", acc="0011", **other)])
    assert [table.numbers["arc_easy acc %"].tolist() for table in tables] == [[25], [50]]


def test_a_task_that_failed_stands_in_the_tasks_table(make_task: MakeRow) -> None:
    failed = make_task("b", settings={}, status="failed", reason="out of memory").model_copy(update={"task": None})
    assert only([make_task("a", acc="0001"), failed]).reasons == ["", "failed: out of memory"]


def test_a_caption_of_tasks_says_harness_batch_limit_and_items(make_task: MakeRow) -> None:
    caption = Wording().caption(only([make_task("a", acc="0001", limit=4)]).caption)
    for part in (
        "lm-eval 0.4.13",
        "batch of 16",
        "first 4 items",
        "arc_easy (task version 1.0; arc_easy_test.jsonl, 4 of 570 items; protocol arc_easy)",
    ):
        assert part in caption


def test_a_caption_leaves_out_the_version_of_a_task_that_has_none(make_task: MakeRow) -> None:
    assert "arc_easy (arc_easy_test.jsonl, 4" in Wording().caption(
        only([make_task("a", acc="0001", task_version="none")]).caption
    )


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({"limit": 500, "items_in_task": 4}, {"limit": None, "items_in_task": 4}, "all items:"),
        ({"limit": 500, "items_in_task": 4}, {"limit": 9, "items_in_task": 4}, "all items:"),
        ({"limit": 4, "items_in_task": 9}, {"limit": 4, "items_in_task": 8}, "first 4 items of each task:"),
        (
            {"limit": 4, "items_in_task": 4},
            {"limit": 4, "items_in_task": 8},
            "at most the first 4 items of each task:",
        ),
    ],
)
def test_a_limit_counts_where_it_leaves_something_out(
    make_task: MakeRow, first: dict[str, int], second: dict[str, int], told: str
) -> None:
    table = only([make_task("a", acc="0001", **first), make_task("b", "piqa", acc="0011", **second)])
    assert f", batch of 16, {told}" in Wording().caption(table.caption)
    assert "mean acc %" in table.headers


def test_limits_that_cut_and_those_that_do_not_are_two_tables(make_task: MakeRow) -> None:
    rows = [make_task("a", acc="0001", limit=4), make_task("b", "piqa", acc="0011", limit=9, items_in_task=4)]
    assert [table.headers[1] for table in comparisons(rows)] == ["arc_easy acc %", "piqa acc %"]


@pytest.mark.parametrize(
    ("right", "shown"),
    [
        ({"acc": "0001"}, ["lambada acc %", "lambada perplexity"]),
        ({}, ["lambada perplexity", "lambada word_perplexity"]),
    ],
)
def test_perplexity_stands_beside_accuracy_and_other_metrics_only_without(
    make_task: MakeRow, right: dict[str, str], shown: list[str]
) -> None:
    row = make_task("a", "lambada", metrics={"perplexity": 9.5, "word_perplexity": 12.0}, **right)
    assert only([row]).headers[1:] == shown


def test_perplexity_and_tasks_of_one_model_are_two_tables(make_row: MakeRow, make_task: MakeRow) -> None:
    first, second = comparisons([make_task("a", acc="0001"), make_row("b")])
    assert PERPLEXITY in first.headers
    assert "arc_easy acc %" in second.headers
