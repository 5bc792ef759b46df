"""The page, the Markdown and the CSV hold every row, and the page stands alone."""

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from reports.build import build_report
from reports.figures import pareto
from reports.load import frame
from suite.results import Row

MakeRow = Callable[..., Row]


@pytest.fixture
def page(tmp_path: Path, study: list[Row]) -> str:
    return build_report(study, tmp_path / "report").read_text()


def test_three_files_are_written_and_nothing_beside_them(tmp_path: Path, study: list[Row]) -> None:
    path = build_report(study, tmp_path / "report")
    assert path == tmp_path / "report" / "report.html"
    assert {file.name for file in path.parent.iterdir()} == {"report.html", "report.md", "rows.csv"}


def test_the_same_rows_give_the_same_bytes(tmp_path: Path, study: list[Row]) -> None:
    first, second = build_report(study, tmp_path / "1"), build_report(study, tmp_path / "2")
    assert first.read_bytes() == second.read_bytes()


def test_the_csv_has_every_row_and_full_precision(tmp_path: Path, make_row: MakeRow) -> None:
    build_report([make_row("a", perplexity=1 / 3), make_row("b")], tmp_path)
    read = pd.read_csv(tmp_path / "rows.csv", float_precision="round_trip")
    assert (list(read["row_id"]), read["perplexity"][0]) == (["a", "b"], 1 / 3)


def test_the_page_shows_every_row_in_the_table_and_in_detail(page: str, study: list[Row]) -> None:
    body = page.split("<tbody>")[1].split("</tbody>")[0]
    assert body.count("<tr>") == page.count("<details>") == len(study)
    assert all(row.row_id in page for row in study)


def test_an_unsupported_row_shows_its_reason_instead_of_numbers(page: str) -> None:
    assert re.search(r'class="reason" colspan="8">unsupported: 576 columns are no multiple of 8<', page)


def test_the_page_needs_nothing_from_elsewhere(page: str) -> None:
    assert "<script" not in page
    assert not re.search(r"""(src=|@import|<link|url\((?!#)|href="(?!#))""", page)


@pytest.mark.parametrize("field", ["title", "variant", "reason", "model", "protocol", "model_note", "recipe"])
def test_text_from_a_row_is_never_markup(tmp_path: Path, make_row: MakeRow, field: str) -> None:
    rows = [make_row(name, **{"status": "failed", field: "<b>bold</b>"}) for name in "ab"]
    rows += [make_row(name, **{field: "<b>bold</b>"}) for name in "cd"]
    page = build_report(rows, tmp_path).read_text()
    assert "<b>" not in page
    assert "&lt;b&gt;bold" in page


def test_two_protocols_are_two_tables(tmp_path: Path, make_row: MakeRow) -> None:
    page = build_report([make_row("a"), make_row("b", protocol_id="p2")], tmp_path).read_text()
    assert page.count("<table>") == 2


def test_the_models_note_stands_by_its_table(tmp_path: Path, make_row: MakeRow) -> None:
    assert "once 4-bit" in build_report([make_row(model_note="once 4-bit")], tmp_path).read_text()


def test_a_report_of_no_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        build_report([], tmp_path)


def test_the_figure_is_svg_in_the_pages_ink_with_every_method_but_the_dense(study: list[Row]) -> None:
    drawn = pareto(frame(study))
    assert drawn is not None
    text = " ".join(ElementTree.fromstring(drawn).itertext())
    assert all(title in text for title in ("Wanda", "NoWag-VQ", "RTN"))
    assert "Dense" not in text
    assert "currentColor" in drawn
    assert "#010203" not in drawn


def test_one_point_is_no_figure(make_row: MakeRow) -> None:
    assert pareto(frame([make_row()])) is None
