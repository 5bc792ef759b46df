"""Gathered rows stand as their recipe has them, whatever was finished first."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from reports.order import in_order
from suite.results import Row

MakeRow = Callable[..., Row]
FREE = {"calibration": None, "calibration_tokens": 0}


def ids(rows: list[Row]) -> list[str]:
    return [row.row_id for row in rows]


def recipe(folder: Path, text: str) -> None:
    (folder / "recipe-abababab.yaml").write_text(text)


def test_models_and_methods_come_as_the_recipe_has_them(tmp_path: Path, make_row: MakeRow) -> None:
    recipe(tmp_path, "models: [m2, m1]\nmethods: {rtn: {bits: 3}, wanda: {sparsity: 0.5}}")
    rows = [
        make_row(f"{model} {method}", model=model, method=method)
        for model in ("m1", "m2")
        for method in ("wanda", "rtn")
    ]
    assert ids(in_order(rows, [tmp_path])) == ["m2 rtn", "m2 wanda", "m1 rtn", "m1 wanda"]


def test_without_a_recipe_methods_come_as_they_first_appear(tmp_path: Path, make_row: MakeRow) -> None:
    rows = [make_row("a", method="rtn"), make_row("b"), make_row("c", method="rtn", seed=1)]
    assert ids(in_order(rows, [tmp_path])) == ["a", "c", "b"]


@pytest.mark.parametrize("text", ["", "{", "[1]", "methods: 3", "methods: {other: {}}"])
def test_a_recipe_that_is_damaged_or_of_others_orders_nothing(
    tmp_path: Path, make_row: MakeRow, text: str
) -> None:
    recipe(tmp_path, text)
    assert ids(in_order([make_row("a", method="rtn"), make_row("b")], [tmp_path])) == ["a", "b"]


def test_cells_of_a_method_come_by_pattern_settings_and_largest_budget(make_row: MakeRow) -> None:
    small, large = ({"calibration": f"c4, {n} x 1 tokens", "calibration_tokens": n} for n in (8, 32))
    wanted = [
        make_row("0", variant="50%", **large),
        make_row("1", variant="50%", seed=1, **large),
        make_row("2", variant="50%", **small),
        make_row("3", variant="50%", statistics_mode="sequential", **large),
        make_row("4", variant="60%"),
        make_row("5", variant="2:4"),
    ]
    shuffled = random.Random(0).sample(wanted, len(wanted))
    assert in_order(shuffled, []) == wanted


def test_numbers_in_settings_count(make_row: MakeRow) -> None:
    rows = [
        make_row(text, variant=text, **FREE) for text in ("2 bits d16", "2 bits d4 g8", "2 bits d4", "3 bits d2")
    ]
    assert ids(in_order(rows, [])) == ["3 bits d2", "2 bits d4", "2 bits d4 g8", "2 bits d16"]
