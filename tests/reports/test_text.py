"""Tables for the terminal and for Markdown hold every number at any width."""

from collections.abc import Callable

import pandas as pd
import pytest

from reports.load import frame
from reports.tables import comparison, formatted, number_headers
from reports.text import render_markdown, render_text
from suite.results import Row

MakeRow = Callable[..., Row]


@pytest.fixture
def table(study: list[Row]) -> pd.DataFrame:
    return comparison(frame(study))


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_the_text_fits_its_width_and_drops_no_number(table: pd.DataFrame, width: int) -> None:
    text = render_text(table, width)
    assert max(map(len, text.splitlines())) <= width
    for header in number_headers(table):
        assert all(number in text for number in formatted(table)[header])


def test_at_120_columns_each_row_is_one_line(table: pd.DataFrame) -> None:
    lines = render_text(table, 120).splitlines()
    assert sum(line.startswith(tuple(table["method"])) for line in lines) == len(table) + 1  # and one note


def test_at_80_columns_the_labels_share_one(table: pd.DataFrame) -> None:
    assert "Wanda, 2:4, dense" in render_text(table, 80)


def test_brackets_in_names_are_text_and_not_markup(table: pd.DataFrame) -> None:
    assert "[validation]" in render_text(table, 120)


@pytest.mark.parametrize("render", [render_text, render_markdown])
def test_the_reason_for_missing_numbers_is_below_the_table(
    table: pd.DataFrame, render: Callable[[pd.DataFrame], str]
) -> None:
    assert "QuIP# 2 bits: unsupported: 576 columns are no multiple of 8" in " ".join(render(table).split())


def test_markdown_has_a_line_for_each_row_and_as_many_cells_in_each(table: pd.DataFrame) -> None:
    lines = [line for line in render_markdown(table).splitlines() if line.startswith("|")]
    assert len(lines) == len(table) + 2
    assert {line.count("|") for line in lines} == {len(table.columns)}


def test_a_pipe_in_a_name_does_not_open_a_cell(make_row: MakeRow) -> None:
    assert "a\\|b" in render_markdown(comparison(frame([make_row(title="a|b")])))
