"""A disk that is full at any moment: one line, and with room again the same command does the rest."""

import errno
import itertools
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import Ended, as_command, command, kept

KIB, ROOM = 1 << 10, 64 << 20


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


def told_by_a_library(words: Path) -> None:
    """As one written in Rust does: neither an OSError nor a number."""

    def fail() -> None:
        raise Exception(str(words))

    as_command(fail)


TABLE = [
    *[(nothing_is_synced, at) for at in (0, 15)],
    *[(nothing_is_renamed, at) for at in (9,)],
    *[(files_end_early, at) for at in (5_000, 30_000)],
]
MORE = [(files_end_early, 2**n) for n in range(7, 20)]  # what a child says is in a file, too


def goes_on(ended: Ended, folder: Path, make_room: Callable[[], object], ends_well) -> None:
    """One line, or a run to the end with rows that wait for their store; with room the rest, and nothing twice."""
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
    goes_on(mortal.ended(fault, folder, str(at)), folder, lambda: None, ends_well)


def test_a_library_that_says_it_in_words_alone_is_understood_and_a_bug_stays_one(mortal) -> None:
    full = mortal.ended(told_by_a_library, "No space left on device (os error 28)")
    assert full.complaint.startswith("nowag-bench: No space left on device")
    for bug in ("no such thing", "Bad address (os error 14)"):
        assert mortal.ended(told_by_a_library, bug).traceback


@pytest.mark.slow
@pytest.mark.parametrize("fault", [nothing_is_synced, nothing_is_renamed])
def test_whichever_call_is_the_first_to_find_the_disk_full(mortal, whole, tmp_path, ends_well, fault) -> None:
    for at in itertools.count():
        folder = whole.fresh(tmp_path / str(at))
        ended = mortal.ended(fault, folder, str(at))
        if ended == Ended(0, ""):  # there are no more calls
            break
        goes_on(ended, folder, lambda: None, ends_well)
    assert at > 20


@contextmanager
def small_disk(disk: Path) -> Iterator[Path]:
    """A file system of its own; skips where none may be mounted."""
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


def goes_on_with(left: int, mortal, whole, disk: Path, ends_well) -> bool:
    """Whether a run filled a file system that had so many bytes left; if so, it went on."""
    folder = whole.fresh(disk / "folder")
    resize(disk, sum(path.stat().st_size for path in folder.iterdir()) + left)
    ended = mortal.ended(command, folder)
    if ended == Ended(0, ""):
        return False
    goes_on(ended, folder, lambda: resize(disk, ROOM), ends_well)
    return True


@pytest.mark.parametrize("left", [KIB, 150 * KIB])
def test_a_file_system_that_runs_full_loses_nothing(mortal, whole, tmp_path, ends_well, left) -> None:
    with small_disk(tmp_path / "disk") as disk:
        assert goes_on_with(left, mortal, whole, disk, ends_well)


@pytest.mark.slow
def test_however_much_a_file_system_has_left(mortal, whole, tmp_path, ends_well) -> None:
    left, filled = 0, True
    while filled:
        left += 20 * KIB
        with small_disk(tmp_path / str(left)) as disk:
            filled = goes_on_with(left, mortal, whole, disk, ends_well)
    assert left > 200 * KIB
