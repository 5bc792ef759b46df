"""Two processes want one results folder: the second gives way in one line, and a dead one is in nobody's way."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import NAME, as_command, check, command, run_recipe, run_undisturbed

from suite import work
from suite.commands import machine
from suite.results import Journal, Row


def stops_in_the_middle(folder: Path) -> None:
    """Run, and be stopped after the first row until somebody lets it go on."""
    append = Journal.append

    def stopping(journal: Journal, row: Row) -> None:
        Journal.append = append
        append(journal, row)
        os.kill(os.getpid(), signal.SIGSTOP)

    Journal.append = stopping
    run_undisturbed(folder)


def beside_one_at_work(folder: Path, second: Callable[[Path], object]) -> None:
    """Begin while another process is in the middle of the run, which then goes on to its end."""
    first = os.fork()
    if not first:
        stops_in_the_middle(folder)
        os._exit(0)
    os.waitpid(first, os.WUNTRACED)
    try:
        second(folder)
    finally:
        os.kill(first, signal.SIGCONT)
        assert os.waitpid(first, 0)[1] == 0


def a_second_run(folder: Path) -> None:
    beside_one_at_work(folder, command)


def a_sync(folder: Path) -> None:
    beside_one_at_work(folder, lambda _: as_command(lambda: machine.sync(folder / NAME)))


def killed_at_its_first_cell(folder: Path) -> None:
    work.finish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    run_recipe(folder)


@pytest.mark.parametrize("second", [a_second_run, a_sync])
def test_a_second_process_gives_way_and_the_first_ends_as_if_alone(mortal, whole, folder, second) -> None:
    assert "another run is writing to" in mortal.ended(second, folder).complaint
    check(folder, whole.folder)


def test_the_lock_of_a_killed_process_is_in_nobodys_way(mortal, folder, ends_well) -> None:
    assert mortal.ended(killed_at_its_first_cell, folder).code is None
    assert (folder / NAME / ".lock").exists()
    ends_well(folder)
