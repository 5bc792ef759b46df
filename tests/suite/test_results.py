"""The journal: what is appended is what is read, whatever happened to the file in between."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from suite.errors import ResultError
from suite.results import Journal, Row

MakeRow = Callable[..., Row]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "run" / "results.jsonl")


def test_a_row_is_read_as_it_was_written(journal: Journal, make_row: MakeRow) -> None:
    row = make_row(settings={"bits": 2, "levels": [0.5, None]}, audit={"layer": {"damping": 0.01}})
    journal.append(row)
    assert journal.rows() == [row]


def test_a_journal_that_is_not_there_has_no_rows(journal: Journal) -> None:
    assert journal.rows() == []


def test_the_last_row_of_an_id_wins_in_the_place_of_the_first(journal: Journal, make_row: MakeRow) -> None:
    for row in (make_row("a", status="failed"), make_row("b"), make_row("a")):
        journal.append(row)
    assert [(row.row_id, row.status) for row in journal.rows()] == [("a", "ok"), ("b", "ok")]


@pytest.mark.parametrize("kept", [1, 40, -2])
def test_a_kill_in_the_middle_of_a_line_costs_that_row_alone(
    journal: Journal, make_row: MakeRow, kept: int
) -> None:
    journal.append(make_row("whole"))
    torn = make_row("torn").model_dump_json()
    with journal.path.open("a") as file:
        file.write(torn[:kept])
    journal.append(make_row("after"))
    assert [row.row_id for row in journal.rows()] == ["whole", "after"]


def test_each_row_is_one_line_of_json(journal: Journal, make_row: MakeRow) -> None:
    journal.append(make_row("a", reason="two\nlines"))
    journal.append(make_row("b"))
    assert [json.loads(line)["row_id"] for line in journal.path.read_text().split("\n")[:-1]] == ["a", "b"]


@pytest.mark.parametrize("separator", ["\u2028", "\x85", "\x0b", "\r"])
def test_a_unicode_line_separator_in_a_reason_does_not_cut_the_row(
    journal: Journal, make_row: MakeRow, separator: str
) -> None:
    journal.append(make_row(reason=f"before{separator}after"))
    assert journal.rows()[0].reason == f"before{separator}after"


def test_an_infinite_perplexity_survives_the_journal(journal: Journal, make_row: MakeRow) -> None:
    journal.append(make_row(perplexity=math.inf))
    quality = journal.rows()[0].quality
    assert quality is not None
    assert quality.perplexity == math.inf


def test_a_row_of_another_schema_names_the_file_the_line_and_the_field(
    journal: Journal, make_row: MakeRow
) -> None:
    journal.append(make_row())
    journal.path.write_text(journal.path.read_text().replace('"seed"', '"sead"'))
    with pytest.raises(ResultError, match=r"results\.jsonl:1: .*(seed|sead)") as caught:
        journal.rows()
    assert "\n" not in str(caught.value)


def test_a_row_refuses_fields_nobody_reads(make_row: MakeRow) -> None:
    with pytest.raises(ValidationError, match="perplexety"):
        make_row(perplexety=1.0)


def test_a_row_cannot_be_changed(make_row: MakeRow) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        make_row().seed = 1  # type: ignore[misc]


def test_seconds_are_the_sum_of_the_phases(make_row: MakeRow) -> None:
    cost = make_row(calibrate_seconds=1.0, compress_seconds=2.5, evaluate_seconds=4.0).cost
    assert cost is not None
    assert cost.seconds == 7.5
