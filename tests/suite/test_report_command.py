"""`nowag-bench report`: where rows come from, what is refused in one line, and what it says it wrote."""

import os
import webbrowser
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from reports.build import Report
from suite import tracked_rows
from suite.results import JOURNAL_NAME, Journal, Row

MakeRow = Callable[..., Row]
Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Report]:
    """The reports that the command writes."""
    reports: list[Report] = []
    really = Report.write

    def write(report: Report, to: Path) -> Path:
        reports.append(report)
        return really(report, to)

    monkeypatch.setattr(Report, "write", write)
    return reports


@pytest.fixture
def report(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, written: list[Report]) -> Invoke:
    """Run the command in this process and in an empty folder -> (exit status, output, errors)."""
    monkeypatch.chdir(tmp_path)
    return partial(invoke, "report")


@pytest.fixture
def runs(tmp_path: Path, make_row: MakeRow) -> Path:
    """Two runs of two models."""
    Journal(tmp_path / "runs" / "one" / JOURNAL_NAME).append(make_row("a"))
    Journal(tmp_path / "runs" / "two" / JOURNAL_NAME).append(make_row("b", model="tiny", model_fingerprint="f2"))
    return tmp_path / "runs"


def ids(report: Report) -> list[str]:
    return [row.row_id for row in report.rows]


def test_without_a_source_it_reads_the_newest_run(runs: Path, report: Invoke, written: list[Report]) -> None:
    os.utime(runs / "two" / JOURNAL_NAME, (1, 1))
    status, out, _ = report()
    assert (status, ids(written[0])) == (0, ["a"])
    assert out.startswith("source:  runs/one, the newest run\n")


def test_without_any_run_it_says_so(report: Invoke) -> None:
    assert "no rows at runs; name a results.jsonl" in report()[2]


def test_all_runs_are_read_and_it_says_what_it_wrote(runs: Path, report: Invoke, written: list[Report]) -> None:
    status, out, _ = report("runs", "--to", "paper")
    assert (status, ids(written[0])) == (0, ["a", "b"])
    assert ["rows:", "2"] == out.splitlines()[0].split()
    assert "4 in paper/tables" in out and "4 in paper/figures" in out and "paper/report.html" in out


def test_files_folders_and_stores_are_read_together(
    runs: Path, report: Invoke, written: list[Report], make_row: MakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(uri: str, where: str, to: Path) -> None:
        asked.append((uri, where))
        Journal(to / JOURNAL_NAME).append(make_row("c", method="rtn"))

    monkeypatch.setattr(tracked_rows, "fetch", fetch)
    sources = ("sqlite:///x.db", runs / "one", runs / "two" / JOURNAL_NAME, "databricks")
    status, _, _ = report(*sources, "--filter", "seed = 0")
    assert (status, ids(written[0])) == (0, ["a", "c", "b"])
    assert asked == [("sqlite:///x.db", "seed = 0"), ("databricks", "seed = 0")]


def test_a_filter_chooses_rows_of_files(runs: Path, report: Invoke, written: list[Report]) -> None:
    assert report(runs, "--filter", "model == 'tiny'")[0] == 0
    assert ids(written[0]) == ["b"]


def test_mixed_protocols_are_refused_unless_they_are_split(
    runs: Path, report: Invoke, written: list[Report], make_row: MakeRow
) -> None:
    other = make_row("x", method="gptq", title="GPTQ", protocol="p2", protocol_id="p2")
    Journal(runs / "three" / JOURNAL_NAME).append(other)
    status, _, err = report(runs)
    assert (status, len(written), err.count("\n")) == (2, 0, 1)
    assert "rows of two protocols" in err and "--split" in err
    assert report(runs, "--split")[0] == 0 and len(written) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no rows at nowhere"),
        (["runs", "--to", "runs/one/results.jsonl"], "--to is runs/one/results.jsonl, which is a file"),
        (["runs", "--filter", "sed == 0"], "Did you mean 'seed'"),
        (["runs", "--template", "nowhere"], "nowhere"),
        (["sqlite:///nowhere.db"], "no tracking store at sqlite:///nowhere.db"),
    ],
)
def test_mistakes_are_one_line(runs: Path, report: Invoke, arguments: list[str], message: str) -> None:
    status, out, err = report(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_templates_are_copied_without_any_rows(report: Invoke, tmp_path: Path) -> None:
    status, out, _ = report("--copy-templates", "mine")
    assert status == 0 and "mine" in out
    assert (tmp_path / "mine" / "report.html").exists()


@pytest.mark.parametrize(("opens", "said"), [(True, ""), (False, "no browser on this machine: open report/")])
def test_the_page_is_opened_where_there_is_a_browser(
    runs: Path, report: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opens: bool, said: str
) -> None:
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or opens)
    status, out, _ = report(runs, "--open")
    assert (status, opened) == (0, [(tmp_path / "report" / "report.html").as_uri()])
    assert said in out and ("no browser" in out) is not opens
