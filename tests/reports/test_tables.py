"""Which rows stand together, in what order, and what a table says where there is no number."""

import math
from collections.abc import Callable

import pytest

from reports.load import frame
from reports.tables import comparison, comparisons, formatted, pareto_front
from suite.results import Row

MakeRow = Callable[..., Row]


def test_the_dense_model_comes_first_and_the_rest_in_the_rows_order(study: list[Row]) -> None:
    assert list(comparison(frame(study))["method"]) == ["Dense", "Wanda", "NoWag-VQ", "RTN", "QuIP#"]


def test_shares_are_printed_in_percent(make_row: MakeRow) -> None:
    table = comparison(frame([make_row(sparsity=0.5, top1_agreement=0.75)]))
    assert (table["sparsity %"][0], table["top-1 %"][0]) == (50.0, 75.0)


def test_the_perplexity_column_names_its_text(study: list[Row]) -> None:
    assert "perplexity wiki[validation]" in comparison(frame(study)).columns


@pytest.mark.parametrize("status", ["unsupported", "failed", "void"])
def test_a_row_that_is_not_ok_keeps_its_place_but_shows_no_number(make_row: MakeRow, status: str) -> None:
    table = comparison(frame([make_row("a"), make_row("b", status=status, reason="too narrow")]))
    assert table["note"][1] == f"{status}: too narrow"
    assert math.isnan(table["stored bits/weight"][1])
    assert math.isnan(table["perplexity wiki[validation]"][1])


@pytest.mark.parametrize(
    "other", [{"protocol_id": "p2"}, {"model_fingerprint": "f2"}, {"calibration": "pile, 1 x 2 tokens"}]
)
def test_unlike_rows_never_share_a_table(make_row: MakeRow, other: dict[str, str]) -> None:
    flat = frame([make_row("a"), make_row("b", **other)])
    assert [len(table) for table in comparisons(flat).values()] == [1, 1]
    with pytest.raises(ValueError, match="one table holds one"):
        comparison(flat)


def test_rows_without_data_stand_in_the_table_of_every_budget(make_row: MakeRow) -> None:
    free = make_row("free", title="RTN", calibration=None)
    flat = frame([free, make_row("a", calibration="small"), make_row("b", calibration="large")])
    assert [list(table["method"]) for table in comparisons(flat).values()] == [["RTN", "Wanda"]] * 2


def test_rows_without_data_alone_make_one_table(make_row: MakeRow) -> None:
    (table,) = comparisons(frame([make_row("a", calibration=None)])).values()
    assert len(table) == 1


def test_the_caption_says_model_protocol_budget_machine_and_date(study: list[Row]) -> None:
    (caption,) = comparisons(frame(study))
    for part in ("smollm2-135m (f1)", "8 windows of 512", "c4, 8 x 512", "Test CPU, 2 cores", "2030-01-02"):
        assert part in caption


def test_seeds_have_a_column_only_when_there_are_several(make_row: MakeRow) -> None:
    assert "seed" not in comparison(frame([make_row("a")])).columns
    assert list(comparison(frame([make_row("a"), make_row("b", seed=1)]))["seed"]) == [0, 1]


def test_memory_is_the_accelerators_where_there_is_one(make_row: MakeRow) -> None:
    table = comparison(frame([make_row(peak_device_memory_gib=7.0)]))
    assert table["peak device GiB"][0] == 7.0
    assert "peak GiB" not in table.columns


def test_a_missing_number_is_a_dash_and_a_huge_one_keeps_its_size(make_row: MakeRow) -> None:
    text = formatted(comparison(frame([make_row(kl_mean=None, perplexity=31_234_567.0)])))
    assert text["KL nats/token"][0] == "–"
    assert text["perplexity wiki[validation]"][0] == "3.12e+07"


def test_the_front_is_what_no_row_beats_in_bits_and_kl(make_row: MakeRow) -> None:
    points = {"a": (2, 0.9), "beaten": (3, 0.95), "b": (3, 0.3), "tie": (4, 0.3), "c": (8, 0.1)}
    rows = [make_row(name, stored_bits_per_weight=b, kl_mean=kl) for name, (b, kl) in points.items()]
    assert list(pareto_front(frame(rows))["row_id"]) == ["a", "b", "c"]
