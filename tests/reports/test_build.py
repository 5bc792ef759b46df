"""The page, the Markdown and the CSV hold every row, and the page stands alone."""

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from reports.build import Report
from reports.figures.front import drawings
from reports.material import Material
from suite.results import Row

MakeRow = Callable[..., Row]


@pytest.fixture
def page(tmp_path: Path, study: list[Row]) -> str:
    return Report(Material(study)).write(tmp_path / "report").read_text()


def test_three_files_are_written_and_nothing_beside_them(tmp_path: Path, study: list[Row]) -> None:
    path = Report(Material(study)).write(tmp_path / "report")
    assert path == tmp_path / "report" / "report.html"
    assert {file.name for file in path.parent.iterdir()} == {"report.html", "report.md", "rows.csv"}


def test_the_same_rows_give_the_same_bytes(tmp_path: Path, study: list[Row]) -> None:
    first, second = Report(Material(study)).write(tmp_path / "1"), Report(Material(study)).write(tmp_path / "2")
    assert first.read_bytes() == second.read_bytes()


def test_the_csv_has_every_row_and_full_precision(tmp_path: Path, make_row: MakeRow) -> None:
    Report(Material([make_row("a", perplexity=1 / 3), make_row("b")])).write(tmp_path)
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
    page = Report(Material(rows)).write(tmp_path).read_text()
    assert "<b>" not in page
    assert "&lt;b&gt;bold" in page


def test_two_protocols_are_two_tables(tmp_path: Path, make_row: MakeRow) -> None:
    page = Report(Material([make_row("a"), make_row("b", protocol_id="p2")])).write(tmp_path).read_text()
    assert page.split("<h2>Coverage")[0].count("<table>") == 2


def test_the_models_note_stands_by_its_table(tmp_path: Path, make_row: MakeRow) -> None:
    assert "once 4-bit" in Report(Material([make_row(model_note="once 4-bit")])).write(tmp_path).read_text()


def test_a_report_of_no_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        Report(Material([]))


def test_the_figure_is_svg_in_the_pages_ink_with_every_method_but_the_dense(study: list[Row]) -> None:
    (drawing,) = drawings(Material(study))
    drawn = drawing.svg()
    text = " ".join(ElementTree.fromstring(drawn).itertext())
    assert all(title in text for title in ("Wanda", "NoWag-VQ", "RTN"))
    assert "Dense" not in text
    assert "currentColor" in drawn
    assert "#010203" not in drawn


def test_entries_of_some_layers_are_not_in_the_figure(make_row: MakeRow) -> None:
    assert drawings(Material([make_row(str(n), layers=f"*.{n}", kl_mean=0.1 + n) for n in range(3)])) == []


def test_one_point_is_no_figure(make_row: MakeRow) -> None:
    assert drawings(Material([make_row()])) == []


def test_what_is_marked_is_strong_and_explained(tmp_path: Path, make_windows: MakeRow) -> None:
    page = Report(Material([make_windows("a"), make_windows("b", worse=0.1)])).write(tmp_path).read_text()
    assert "<strong>" in page
    assert "Bold: best of its size" in page


def test_the_interval_stands_with_its_number(tmp_path: Path, make_row: MakeRow) -> None:
    rows = [make_row(str(seed), seed=seed, kl_mean=0.2 + 0.1 * seed) for seed in (0, 1)]
    assert "0.2500<small>±0.6353</small>" in Report(Material(rows)).write(tmp_path).read_text()


def test_where_there_is_no_room_the_first_label_brings_the_others(tmp_path: Path, make_row: MakeRow) -> None:
    page = (
        Report(Material([make_row("a"), make_row("b", title="RTN", statistics_mode="none")]))
        .write(tmp_path)
        .read_text()
    )
    assert '<td class="label" data-rest="2:4, dense">Wanda</td>' in page
    assert '<td class="label" data-rest="2:4">RTN</td>' in page


def test_details_have_tasks_and_noise_but_no_number_for_each_item(
    tmp_path: Path, make_windows: MakeRow, make_task: MakeRow
) -> None:
    rows = [make_windows("a", noise={"bfloat16": {"nll": 0.0625}}), make_task("b", acc="01101001")]
    page = Report(Material(rows)).write(tmp_path).read_text()
    assert all(shown in page for shown in ("0.0625", "lm-eval 0.4.13", "items_in_task"))
    assert not any(hidden in page for hidden in ("window_nll", "window_kl", "01101001"))


def test_the_names_of_linears_left_alone_are_in_the_details(tmp_path: Path, make_row: MakeRow) -> None:
    row = make_row(
        audit={"layers": 7, "not_compressed": {"model.layers.0.mlp.gate.weight": "router of a mixture"}}
    )
    assert "model.layers.0.mlp.gate.weight" in Report(Material([row])).write(tmp_path).read_text()


def test_the_terminal_gets_every_table_then_coverage_then_the_models_notes(
    make_row: MakeRow, make_task: MakeRow
) -> None:
    audit = {"layers": 210, "not_compressed": {}}
    rows = [make_row("a", audit=audit, model_note="once 4-bit"), make_task("b", acc="0110", audit=audit)]
    text = Report(Material(rows)).text(120)
    ordered = ("Evaluation: wiki", "Zero-shot: lm-eval", "All 2 cells compress 80.0 %", "smollm2-135m: once 4-bit")
    places = [text.find(part) for part in ordered]
    assert -1 not in places
    assert places == sorted(places)


def test_a_cell_that_failed_shows_the_coverage_in_full(make_row: MakeRow) -> None:
    rows = [
        make_row("a"),
        make_row("b", title="RTN", method="rtn", status="void", reason="layer 3 decodes to NaN"),
    ]
    assert "What its cells compress" in Report(Material(rows)).text(120)
