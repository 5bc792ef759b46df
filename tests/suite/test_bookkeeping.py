"""What a row costs does not grow with the rows there are: bytes read and rows parsed are counted, not seconds."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reports import statistics
from reports.statistics import paired
from suite import reevaluate, tracking
from suite.bench import bookkeeping, compression
from suite.bench.clock import Ceilings
from suite.bench.report import line
from suite.bench.session import Options, bench, chosen
from suite.checkpoint import is_finished
from suite.results import JOURNAL_NAME, MANIFEST_NAME, Journal, Row
from suite.shards import FORMAT_VERSION
from suite.tracking import Tracker

MakeRow = Callable[..., Row]
SIZES = (1, 300)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the rows that were parsed so far."""
    seen: list[str] = []
    validate = Row.model_validate

    def noting(values):
        seen.append(values["row_id"])
        return validate(values)

    monkeypatch.setattr(Row, "model_validate", noting)
    return seen


def bytes_read(work: Callable[[], object]) -> int:
    """How many bytes the thread reads meanwhile, beside what it takes to find that out."""

    def so_far() -> int:
        return int(Path("/proc/thread-self/io").read_text().split()[1])

    idle = -so_far() + so_far()
    before = so_far()
    work()
    return so_far() - before - idle


def journal_of(folder: Path, rows: int, make_row: MakeRow) -> Journal:
    """A journal that was written without `append`."""
    folder.mkdir()
    lines = (make_row(str(number)).model_dump_json() + "\n" for number in range(rows))
    (folder / JOURNAL_NAME).write_text("".join(lines))
    return Journal(folder / JOURNAL_NAME)


def test_appending_reads_no_more_from_a_long_journal_than_from_a_short_one(tmp_path, make_row) -> None:
    row = make_row("new")
    journals = [journal_of(tmp_path / str(rows), rows, make_row) for rows in SIZES]
    short, long = (bytes_read(lambda journal=journal: journal.append(row)) for journal in journals)
    assert short == long == 1


def test_a_row_is_parsed_once_however_often_the_journal_is_read(tmp_path, make_row, parsed) -> None:
    journal = journal_of(tmp_path / "run", 300, make_row)
    assert len(journal.rows()) == len(parsed) == 300
    journal.append(make_row("new"))
    assert len(journal.rows()) == len(journal.rows()) == 301
    assert parsed[300:] == ["new"]


def test_a_journal_that_was_replaced_is_read_anew(tmp_path, make_row) -> None:
    journal = journal_of(tmp_path / "run", 3, make_row)
    journal.rows()
    journal.path.write_text(make_row("other").model_dump_json() + "\n")
    assert [row.row_id for row in journal.rows()] == ["other"]


def test_a_line_that_is_no_row_is_an_error_each_time(tmp_path, make_row) -> None:
    journal = journal_of(tmp_path / "run", 2, make_row)
    journal.path.write_text(journal.path.read_text() + '{"row_id": "x"}\n')
    for _ in range(2):
        with pytest.raises(reevaluate.ResultError, match=r"results\.jsonl:3: not a row"):
            journal.rows()


class Received:
    """A store that takes every row."""

    def __init__(self, *_: object) -> None:
        pass

    def send(self, row: Row, artifacts: list[Path]) -> str:
        return "run"

    def finish(self) -> bool:
        return True


@pytest.mark.parametrize("rows", SIZES)
def test_a_tracker_reads_journal_and_notes_once_however_many_rows_it_sends(
    tmp_path, make_row, parsed, monkeypatch, rows
) -> None:
    monkeypatch.setattr(tracking, "Store", Received)
    read = []
    lines = Tracker._lines
    monkeypatch.setattr(Tracker, "_lines", lambda tracker: read.append(tracker) or lines(tracker))
    journal_of(tmp_path / "run", rows, make_row)
    with Tracker(tmp_path / "run", "sqlite:///x") as tracker:
        tracker.journal.append(make_row("new"))
        tracker.record(make_row("new"))
    assert (tracker.sent, tracker.pending(), len(read)) == (rows + 1, [], 1)
    assert len(parsed) == rows + 1


def test_whether_a_cell_is_finished_is_read_from_its_own_manifest_alone(tmp_path) -> None:
    manifest = {"format_version": FORMAT_VERSION, "cell_id": "0", "files": {}}
    found = []
    for cells in SIZES:
        for number in range(cells):
            cell = tmp_path / f"{cells}" / str(number)
            cell.mkdir(parents=True)
            (cell / MANIFEST_NAME).write_text(json.dumps(manifest))
        found.append(bytes_read(lambda cells=cells: is_finished(tmp_path / f"{cells}" / "0", "0")))
    assert found == [len(json.dumps(manifest))] * len(SIZES)


def test_cells_of_one_run_are_found_in_one_reading_of_its_journal(tmp_path, make_row, parsed) -> None:
    journal_of(tmp_path / "run", 9, make_row)
    cells = [tmp_path / "run" / "cells" / f"cell-{number}" for number in range(9)]
    for cell in cells:
        cell.mkdir(parents=True)
        (cell / MANIFEST_NAME).write_text(json.dumps({"format_version": FORMAT_VERSION, "cell_id": cell.name}))
    assert [target.row.cell_id for target in reevaluate._targets(cells)] == [cell.name for cell in cells]
    assert len(parsed) == 9


def test_all_pairs_of_entries_with_the_same_units_share_one_set_of_draws() -> None:
    draw = statistics._rng(1, 2)
    statistics._drawn.cache_clear()
    for _ in range(5):
        paired([draw.normal(size=(1, 31))], [draw.normal(size=(1, 31))])
    assert statistics._drawn.cache_info().misses == 1


def test_every_case_of_bookkeeping_is_a_line_without_a_reference(monkeypatch) -> None:
    monkeypatch.setattr(bookkeeping, "SENT", 2)
    monkeypatch.setitem(compression.SCALES, "small", replace(compression.SMALL, cells=6))
    options = Options(torch.device("cpu"), "small", only="bookkeeping", repeat=1)
    results = list(bench(chosen(options), options, Ceilings(1e9, 1e10, 1e11)))
    assert len(results) == 7 and all(result.ms and result.shape == (6,) and not result.error for result in results)
    assert all(result.reference_ms is result.of_ceiling is result.agreement is None for result in results)
    assert all(" 6 " in line(result) for result in results)


def test_the_made_up_study_is_one_that_a_run_finds_complete(monkeypatch) -> None:
    study = bookkeeping.study_of(6)
    monkeypatch.setattr(tracking, "Store", None)  # nothing of it may be sent anywhere
    assert bookkeeping.run(study.recipe, bookkeeping.Options(study.out, True, "cpu")).rows == study.rows
