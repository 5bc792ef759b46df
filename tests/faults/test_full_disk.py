"""A disk that is full at any moment: one line, and with room again the same command does the rest."""

import errno
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Ended, command, kept

KIB = 1 << 10


def nth_call_fails(module: object, name: str, at: int) -> None:
    """From the n-th call on, a function of the system finds the disk full."""
    calls, real = iter(range(1 << 30)), getattr(module, name)

    def full(*arguments: object) -> object:
        if next(calls) >= at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    setattr(module, name, full)


def nothing_is_synced(folder: Path, at: Path) -> None:
    nth_call_fails(os, "fsync", int(str(at)))
    command(folder)


def nothing_is_renamed(folder: Path, at: Path) -> None:
    nth_call_fails(os, "replace", int(str(at)))
    nth_call_fails(Path, "replace", int(str(at)))
    command(folder)


def files_end_early(folder: Path, size: Path) -> None:
    """No file grows beyond so many bytes: a write there is cut short, and the next one fails."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(str(size)), resource.RLIM_INFINITY))
    command(folder)


TABLE = [
    *[(nothing_is_synced, at) for at in (0, 15)],
    *[(nothing_is_renamed, at) for at in (9,)],
    *[(files_end_early, at) for at in (5_000, 30_000)],
]
MORE = [
    *[(nothing_is_synced, at) for at in range(1, 40)],
    *[(nothing_is_renamed, at) for at in range(40)],
    *[(files_end_early, 2**n) for n in range(20)],
]


def goes_on(mortal, folder, disturbed: Callable[[], Ended], make_room: Callable[[], object], ends_well) -> None:
    """One line, or a run to the end with rows that wait for their store; with room the rest, and nothing twice."""
    ended = disturbed()
    assert (ended.code == 0 and "rows stay pending" in ended.said and not ended.traceback) or ended.complaint
    times, lines = kept(folder)
    make_room()
    ends_well(folder)
    now, later = kept(folder)
    assert times.items() <= now.items() and later.startswith(lines)


@pytest.mark.parametrize(
    ("fault", "at"), [*TABLE, *(pytest.param(*each, marks=pytest.mark.slow) for each in MORE)]
)
def test_a_full_disk_is_one_line_and_with_room_all_is_done(mortal, folder, ends_well, fault, at) -> None:
    goes_on(mortal, folder, lambda: mortal.ended(fault, folder, str(at)), lambda: None, ends_well)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own; skips where none may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize(
    "left", [KIB, 150 * KIB, *(pytest.param(kib * KIB, marks=pytest.mark.slow) for kib in range(20, 500, 20))]
)
def test_a_file_system_that_runs_full_loses_nothing(mortal, whole, small_disk, ends_well, left) -> None:
    def resize(size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", small_disk], check=True)

    folder = whole.fresh(small_disk / "folder")
    resize(sum(path.stat().st_size for path in folder.iterdir()) + left)
    goes_on(mortal, folder, lambda: mortal.ended(command, folder), lambda: resize(64 << 20), ends_well)
