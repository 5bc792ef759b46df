"""The tables of published figures, in every medium."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from reports.build import Report
from reports.material import Material
from reports.published import figures
from reports.reproductions import reproductions
from reports.wording import Wording
from suite.results import Row

MakeRow = Callable[..., Row]
TABLE = "wanda-table-llama-2"


@pytest.fixture
def rows(make_row: MakeRow) -> list[Row]:
    """Wanda within its tolerance, magnitude pruning that failed, and RTN, which the table does not have."""
    shared: dict[str, Any] = {
        "reproduces": TABLE,
        "model": "meta-llama/Llama-2-7b-hf",
        "protocol": "wikitext2-raw/1@4096, joined by a blank line",
    }
    free = {"statistics_mode": "none", "calibration": None}
    return [
        make_row("w", statistics_mode="sequential", perplexity=11.1, **shared),
        make_row(
            "m", method="magnitude", title="Magnitude", **shared, **free, status="failed", reason="no memory"
        ),
        make_row("q", method="rtn", title="RTN", variant="3 bits g64", perplexity=7.0, **shared, **free),
    ]


def test_ours_stands_beside_the_published_figure_with_a_verdict(rows: list[Row]) -> None:
    (table,) = reproductions(rows)
    assert list(table.labels["verdict"]) == ["within", "not measured", "no published figure"]
    wanda = table.numbers.iloc[0]
    assert wanda["published"] == 11.02 and wanda["tolerance %"] == 3.0
    assert (wanda["ours"], wanda["difference %"]) == (pytest.approx(11.1), pytest.approx(100 * 0.08 / 11.02))
    assert table.numbers[["published", "difference %", "tolerance %"]].iloc[2].isna().all()


def test_source_and_both_calibrations_are_named(rows: list[Row]) -> None:
    (table,) = reproductions(rows)
    assert "Our calibration: c4, 8 x 512 tokens." in Wording().caption(table.caption)
    assert any("arXiv:2306.11695" in note for note in table.notes)
    assert "Wanda: published calibration: C4, 128 x 4096 tokens." in table.notes


def test_two_models_and_two_protocols_are_tables_of_their_own(rows: list[Row]) -> None:
    moved = [rows[0].model_copy(update={"row_id": "c", "protocol": "c4/1@4096", "protocol_id": "c4"})]
    moved += [rows[0].model_copy(update={"row_id": "x", "model": "tiny", "model_fingerprint": "f2"})]
    assert len(reproductions([*rows, *moved])) == 3


def test_every_medium_has_the_verdicts(tmp_path: Path, rows: list[Row]) -> None:
    report = Report(Material(rows))
    page = report.write(tmp_path)
    for text in (report.text(200), page.read_text(), (tmp_path / "report.md").read_text()):
        assert "within" in text and "no published figure" in text and "arXiv:2306.11695" in text
    read = pd.read_csv(tmp_path / "published.csv")
    assert list(read["verdict"]) == ["within", "not measured", "no published figure"]


def test_a_report_that_reproduces_nothing_has_no_such_table(tmp_path: Path, make_row: MakeRow) -> None:
    Report(Material([make_row()])).write(tmp_path)
    assert not (tmp_path / "published.csv").exists()
    assert "Published figures" not in (tmp_path / "report.html").read_text()


def test_no_figure_is_carried_twice() -> None:
    keys = [(f.preset, f.model, f.method, f.variant, f.statistics, f.protocol, f.metric) for f in figures()]
    assert len(keys) == len(set(keys))


def test_every_figure_has_a_source_and_a_tolerance() -> None:
    assert all(f.title and f.arxiv_id and f.table and f.confidence for f in figures())
    assert all(f.value > 0 and 0 < f.tolerance_percent <= 5 for f in figures())
    assert all(bool(f.calibration) == (f.statistics != "none") for f in figures())
