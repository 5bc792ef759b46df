"""Tables for the terminal hold every number at any width."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from reports.comparisons import comparisons
from reports.tables import Table
from reports.text import render_text
from suite.results import Row

MakeRow = Callable[..., Row]
WIDTHS = [60, 80, 100, 120, 200]


@pytest.fixture
def table(study: list[Row]) -> Table:
    return comparisons(study)[0]


@pytest.fixture
def tasks(make_task: MakeRow) -> Table:
    names = ("arc_easy", "arc_challenge", "piqa", "hellaswag", "openbookqa", "winogrande")
    rows = [
        make_task(
            f"{name}-{kind}",
            name,
            acc="1" * (9 + 8 * kind) + "0" * (9 - 8 * kind),
            acc_norm="01" * 9,
            settings={"k": kind},
        )
        for name in names
        for kind in (0, 1)
    ]
    return comparisons(rows)[0]


@pytest.fixture
def seeds(make_windows: MakeRow) -> Table:
    kinds = {"a": 0.0, "b": 0.0001, "c": 5.0}
    rows = [
        make_windows(f"{kind}{seed}", worse + 0.01 * seed, seed=seed, settings={"entry": kind})
        for kind, worse in kinds.items()
        for seed in (0, 1)
    ]
    return comparisons(rows)[0]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["table", "tasks", "seeds"])
def test_the_text_fits_its_width_and_drops_no_number(
    request: pytest.FixtureRequest, name: str, width: int
) -> None:
    table = request.getfixturevalue(name)
    text = render_text(table, width)
    assert max(map(len, text.splitlines())) <= width
    for shown in (table.printed(), table.printed_half_widths()):
        assert all(number in text for header in shown for number in shown[header])


def test_at_120_columns_each_entry_is_one_line(table: Table) -> None:
    lines = render_text(table, 120).splitlines()
    assert (
        sum(line.startswith(tuple(table.labels["method"])) for line in lines) == len(table.entries) + 1
    )  # a note


def test_at_80_columns_the_labels_share_one(table: Table) -> None:
    assert "Wanda, 2:4, dense" in render_text(table, 80)


def test_where_the_columns_do_not_fit_they_come_in_blocks_that_name_the_entries(tasks: Table) -> None:
    assert render_text(tasks, 80).count("Wanda, 2:4, dense") > len(tasks.entries)


@pytest.mark.parametrize("width", WIDTHS)
def test_marks_and_intervals_leave_the_digits_in_line(seeds: Table, width: int) -> None:
    lines = render_text(seeds, width).splitlines()
    numbers = list(seeds.printed()["perplexity wiki[validation]"])
    assert len(set(map(len, numbers))) == 2
    ends = [line.index(number) + len(number) for line in lines for number in numbers if number in line]
    assert len(ends) == 3
    assert len(set(ends)) == 1


def test_in_a_narrow_table_an_interval_stands_below_its_digits(seeds: Table) -> None:
    number, half = (shown["KL nats/token"][0] for shown in (seeds.printed(), seeds.printed_half_widths()))
    lines = render_text(seeds, 80).splitlines()
    above, below = (next(line for line in lines if text in line) for text in (number, half))
    assert above.index(number) + len(number) == below.index(half) + len(half)


def test_what_is_marked_has_a_star_and_nothing_else_has(seeds: Table) -> None:
    text, kl = render_text(seeds, 200), seeds.printed()["KL nats/token"]
    assert [f"{number}*" in text for number in kl] == list(seeds.best["KL nats/token"]) == [True, True, False]


def test_brackets_in_names_are_text_and_not_markup(make_row: Callable[..., Row]) -> None:
    assert "[bold]" in render_text(comparisons([make_row(title="[bold]")])[0], 120)


def test_the_reason_for_missing_numbers_is_below_the_table(table: Table) -> None:
    reason = "QuIP# 2 bits (dense): unsupported: 576 columns are no multiple of 8"
    assert reason in " ".join(render_text(table).split())


def test_a_header_stands_below_its_groups(table: Table) -> None:
    levels = table.levels | {"seconds": ("50%", "tiny", "seconds ↓")}
    lines = render_text(replace(table, levels=levels), 200).splitlines()
    first = next(index for index, line in enumerate(lines) if "50%" in line)
    end = lines[first].index("50%") + 3
    assert [line[:end].split()[-1] for line in lines[first : first + 4]] == ["50%", "tiny", "seconds", "↓"]


def test_a_mark_stands_by_its_number_and_in_place_of_a_missing_one(seeds: Table) -> None:
    number = seeds.printed()["KL nats/token"][2]
    marks = seeds.marks.assign(**{"KL nats/token": ["", "", "‡"], "seconds": ["†", "", ""]})
    numbers = seeds.numbers.assign(seconds=[math.nan, 1.0, 1.0])
    lines = render_text(replace(seeds, marks=marks, numbers=numbers), 200).splitlines()
    assert [f"{number}‡" in line for line in lines if "Wanda" in line][:3] == [False, False, True]
    assert [line.count("†") for line in lines if "Wanda" in line][:3] == [1, 0, 0]
