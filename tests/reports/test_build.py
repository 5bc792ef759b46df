"""A report holds every table and figure of its rows, in text, on the page, and in files of their own."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from reports.build import Report
from reports.material import Material, Search
from suite.results import Row

MakeRow = Callable[..., Row]


@pytest.fixture
def written(tmp_path: Path, study: list[Row]) -> Path:
    return Report(Material(study)).write(tmp_path / "report").parent


def files(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def test_each_table_and_figure_comes_in_every_form(written: Path, study: list[Row]) -> None:
    report = Report(Material(study))
    tables = {f"tables/{each.name}.{e}" for each in report.tables for e in ("html", "tex", "md", "csv", "parquet")}
    figures = {f"figures/{each.name}.{e}" for each in report.drawings for e in ("pdf", "svg", "png", "csv")}
    alone = {"report.html", "report.md", "report.json", "rows.csv", "rows.parquet"}
    assert tables and figures and files(written) == tables | figures | alone


def test_no_two_tables_or_figures_have_one_name(make_row: MakeRow, make_task: MakeRow, search: Search) -> None:
    rows = [make_row("a"), make_row("b", model="tiny", model_fingerprint="f2"), make_row("c", protocol_id="p2")]
    rows += [make_row("d", calibration="c4, 4 x 512 tokens"), make_task("e", acc="0110")]
    report = Report(Material(rows, searches=[search, search]))
    for kind in (report.tables, report.drawings):
        names = [each.name.lower() for each in kind]
        assert len(names) > 4 and len(set(names)) == len(names)


def test_the_same_rows_give_the_same_bytes(tmp_path: Path, written: Path, study: list[Row]) -> None:
    again = Report(Material(study)).write(tmp_path / "again").parent
    assert all((written / name).read_bytes() == (again / name).read_bytes() for name in files(written))


def test_the_rows_have_full_precision_as_csv_and_as_parquet(tmp_path: Path, make_row: MakeRow) -> None:
    Report(Material([make_row("a", perplexity=1 / 3), make_row("b")])).write(tmp_path)
    for read in (
        pd.read_csv(tmp_path / "rows.csv", float_precision="round_trip"),
        pd.read_parquet(tmp_path / "rows.parquet"),
    ):
        assert (list(read["row_id"]), read["perplexity"][0]) == (["a", "b"], 1 / 3)


def test_what_an_earlier_report_left_goes_and_other_files_stay(tmp_path: Path, make_row: MakeRow) -> None:
    Report(Material([make_row("a", model="before")])).write(tmp_path)
    (tmp_path / "tables" / "mine.tex").write_text("mine")
    Report(Material([make_row("a", model="after")])).write(tmp_path)
    names = {Path(name).name for name in files(tmp_path)}
    assert "mine.tex" in names and "coverage-after.tex" in names
    assert not any("before" in name for name in names)


def test_an_index_from_elsewhere_removes_nothing_outside_of_the_report(tmp_path: Path, make_row: MakeRow) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "mine.tex").write_text("mine")
    (tmp_path / "report" / "report.json").write_text('{"tables": ["../../mine", "/mine"]}')
    Report(Material([make_row()])).write(tmp_path / "report")
    assert (tmp_path / "mine.tex").exists()


@pytest.mark.parametrize("text", ["[]", "{", '{"tables": 3}', '{"tables": [3]}', '{"tables": null}'])
def test_a_damaged_index_is_no_reason_to_fail(tmp_path: Path, make_row: MakeRow, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    assert Report(Material([make_row()])).write(tmp_path).exists()


def test_a_report_of_no_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        Report(Material([]))


def test_the_page_and_the_markdown_have_every_table_and_figure(written: Path, study: list[Row]) -> None:
    report = Report(Material(study))
    page, readme = (written / "report.html").read_text(), (written / "report.md").read_text()
    assert all(f'id="{table.name}"' in page for table in report.tables)
    assert page.count("<svg") == readme.count("](figures/") == len(report.drawings)
    assert all(sentence[:40] in readme for sentence in report.sentences)


def test_the_terminal_gets_every_table_then_coverage_then_three_sentences(
    make_row: MakeRow, make_task: MakeRow
) -> None:
    audit = {"layers": 210, "not_compressed": {}}
    rows = [make_row("a", audit=audit, model_note="once 4-bit"), make_task("b", acc="0110", audit=audit)]
    text = " ".join(Report(Material(rows)).text(120).split())
    ordered = (
        "Evaluation: wiki",
        "Zero-shot: lm-eval",
        "All 2 cells compress 80.0 %",
        "cells of 1 method",
        "once 4-bit",
    )
    places = [text.find(part) for part in ordered]
    assert -1 not in places
    assert places == sorted(places)


def test_a_cell_that_failed_shows_the_coverage_in_full(make_row: MakeRow) -> None:
    rows = [
        make_row("a"),
        make_row("b", title="RTN", method="rtn", status="void", reason="layer 3 decodes to NaN"),
    ]
    assert "What its cells compress" in Report(Material(rows)).text(120)


def test_the_terminal_tells_of_a_search(make_row: MakeRow, search: Search) -> None:
    assert "best: trial" in Report(Material([make_row()], searches=[search])).text(120)
