"""A process that works on many cells does not grow with them."""

import os
from pathlib import Path

import pytest

from suite.scoring import Desk

WARM = 8
"""Cells after which everything is loaded and every cache is full."""

GROWTH_MIB = 0.5
"""A cell: the tiny model with its checkpoint takes as much, so that whoever keeps one is found."""


def held() -> tuple[float, int, int]:
    """Resident memory in MiB, threads, open files."""
    own = Path("/proc/self")
    pages = int((own / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, *(len(os.listdir(own / kind)) for kind in ("task", "fd"))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux says what a process holds")
@pytest.mark.parametrize("cells", [24, pytest.param(200, marks=pytest.mark.slow)])
def test_memory_threads_and_files_do_not_grow_with_cells(no_tracking, run_with, monkeypatch, cells):
    seen, record = [], Desk.record
    monkeypatch.setattr(Desk, "record", lambda *args: (seen.append(held()), record(*args))[1])
    sparsities = [round(0.1 + 0.8 * number / cells, 4) for number in range(cells)]
    run_with(name="many", methods={"wanda": {"sparsity": sparsities}})
    (before, threads, files), (after, *others) = seen[WARM], seen[-1]
    assert (after - before) / (len(seen) - WARM) < GROWTH_MIB
    assert others == [threads, files]
