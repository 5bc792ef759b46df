"""A clock that goes back and forth by a day: no duration below zero, rows in their order, and the same results."""

import itertools
import os
import signal
import sqlite3
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from harness import STORE, check, journal_of, run_undisturbed

from suite import work
from suite.results import Journal

DAY = 86_400


def jumping() -> None:
    """From now on each look at the clock finds it a day before or after the last one."""
    offsets, real = itertools.cycle([0, DAY, -DAY]), time.time

    class Jumping(datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) + timedelta(seconds=next(offsets))

    time.time = lambda: real() + next(offsets)
    time.time_ns = lambda: int(time.time() * 1e9)
    work.datetime = Jumping


def run_by_it(folder: Path) -> None:
    jumping()
    run_undisturbed(folder)


def killed_by_it(folder: Path) -> None:
    append, count = Journal.append, itertools.count()

    def killing(journal: Journal, row: object) -> None:
        append(journal, row)
        if next(count):
            os.kill(os.getpid(), signal.SIGKILL)

    Journal.append = killing
    run_by_it(folder)


@pytest.fixture(scope="module", params=[[run_by_it], [killed_by_it, run_by_it]], ids=["at once", "resumed"])
def done(request, mortal, whole, tmp_path_factory) -> Path:
    """A folder with a run by such a clock."""
    folder = whole.fresh(tmp_path_factory.mktemp("clock") / "folder")
    for work_of_it in request.param:
        ended = mortal.ended(work_of_it, folder)
    assert ended.code == 0, ended.said
    return folder


def test_results_do_not_depend_on_the_clock(done, whole) -> None:
    check(done, whole.folder)
    assert [row.row_id for row in journal_of(done)] == [row.row_id for row in journal_of(whole.folder)]


def test_no_duration_is_below_zero(done) -> None:
    assert all(value >= 0 for row in journal_of(done) for value in row.cost.model_dump(exclude_none=True).values())
    with sqlite3.connect(done / STORE) as database:
        [(shortest,)] = database.execute("select min(end_time - start_time) from runs")
    assert shortest >= 0
