"""A process that works on many cells does not grow with them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from suite import runner, tracking
from suite.scoring import Desk

WARM = 8
"""Cells after which everything is loaded and every cache is full."""

GROWTH_MIB = 0.5
"""A cell: the tiny model with its checkpoint takes as much, so that whoever keeps one is found."""

GROWTH = 0.1
"""Of all memory, MLflow's included, from the second quarter of a run to the last."""

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="only Linux says what a process holds"
)

Held = tuple[float, int, int]  # resident memory in MiB, threads, open files


def held() -> Held:
    own = Path("/proc/self")
    pages = int((own / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, *(len(os.listdir(own / kind)) for kind in ("task", "fd"))


@pytest.fixture
def held_with(run_with, monkeypatch) -> Callable[[int], list[Held]]:
    """A function that runs so many cells -> what the process held as each was recorded."""

    def run(cells: int) -> list[Held]:
        seen, record = [], Desk.record
        monkeypatch.setattr(Desk, "record", lambda *args: (seen.append(held()), record(*args))[1])
        sparsities = [round(0.1 + 0.8 * number / cells, 4) for number in range(cells)]
        run_with(name="many", methods={"wanda": {"sparsity": sparsities}})
        assert len(seen) == cells
        return seen

    return run


def test_memory_threads_and_files_do_not_grow_with_cells(no_tracking, held_with):
    seen = held_with(24)
    (before, *opened), (after, *others) = seen[WARM], seen[-1]
    assert (after - before) / (len(seen) - WARM) < GROWTH_MIB
    assert others == opened


@pytest.mark.slow
def test_nor_do_they_with_two_hundred_cells_that_are_tracked(monkeypatch, held_with):
    monkeypatch.setattr(runner, "Tracker", tracking.Tracker)
    seen = held_with(200)  # whoever sends rows has a file open now and then: the least counts
    (before, *opened), (after, *others) = (
        [min(values) for values in zip(*part, strict=True)] for part in (seen[50:100], seen[150:])
    )
    assert after < (1 + GROWTH) * before
    assert others == opened
