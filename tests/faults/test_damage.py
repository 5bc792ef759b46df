"""A bit that flips, or a file cut short: made again or told in one line, and never a row from damaged bytes."""

import os
import random
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import NAME, check_results, command, journal_of, rows_of, run_recipe, run_undisturbed

from suite import work
from suite.results import JOURNAL_NAME, Journal
from suite.tracking import NOTES_NAME


def killed_before_the_first_cell_is_finished(folder: Path) -> None:
    work.finish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    run_recipe(folder)


def killed_before_the_first_row(folder: Path) -> None:
    Journal.append = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    run_recipe(folder)


@pytest.fixture(scope="module")
def left(mortal, whole, tmp_path_factory) -> dict[str, Path]:
    """What runs left that were killed: all cells walked, one finished, or all done."""
    found = {"done": whole.folder}
    for name, killed in (
        ("walked", killed_before_the_first_cell_is_finished),
        ("finished", killed_before_the_first_row),
    ):
        found[name] = whole.fresh(tmp_path_factory.mktemp(name) / "folder")
        assert mortal.ended(killed, found[name]).code is None
    return found


def flip(data: bytes, at: int, bit: int = 1) -> bytes:
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


def in_the_middle(data: bytes) -> bytes:
    return flip(data, len(data) // 2)


def at_the_end(data: bytes) -> bytes:
    return flip(data, len(data) - 2)


def in_the_header(data: bytes) -> bytes:
    return flip(data, 20)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def emptied(data: bytes) -> bytes:
    return b""


def a_figure(data: bytes) -> bytes:
    """The last figure of the last number: still JSON, and wrong."""
    return flip(data, [match.start() for match in re.finditer(rb"\d(?=[,}\s\]])", data)][-1])


def a_torn_line(data: bytes) -> bytes:
    first, second, rest = data.split(b"\n", 2)
    return b"\n".join([first, second[: len(second) // 2], rest])


def no_text(data: bytes) -> bytes:
    """A byte that is no UTF-8, in the middle of a word of the second line."""
    at = data.index(b'"title":"', data.index(b"\n")) + 10
    return data[:at] + b"\xff" + data[at + 1 :]


CELL, DENSE, SHARED = f"{NAME}/cells/*", ".dense/*", f"{NAME}/shared/*"
LEDGER, ROWS = f"{NAME}/ledger/*", f"{NAME}/{JOURNAL_NAME}"
TABLE = [  # after which kill, how, and which files, at the same time
    (
        "walked",
        at_the_end,
        [f"{CELL}/block_000.safetensors", f"{DENSE}/window_0001.safetensors", f"{LEDGER}.safetensors"],
    ),
    ("walked", in_the_header, [f"{CELL}/block_001.safetensors", f"{DENSE}/window_0000.safetensors"]),
    ("walked", cut, [f"{CELL}/block_001.safetensors", f"{DENSE}/window_0002.safetensors", f"{LEDGER}.json"]),
    ("walked", a_figure, [f"{CELL}/block_001.json", f"{LEDGER}.json"]),
    ("finished", a_figure, [f"{CELL}/manifest.json", f"{SHARED}/config.json", f"{DENSE}/noise.json"]),
    ("finished", at_the_end, [f"{CELL}/block_000.safetensors", f"{SHARED}/rest.safetensors"]),
    ("finished", cut, [f"{CELL}/manifest.json", f"{SHARED}/tokenizer.json", f"{DENSE}/noise.json"]),
    ("finished", at_the_end, [f"{CELL}/rest.safetensors"]),
    ("finished", emptied, [f"{CELL}/config.json", f"{CELL}/block_001.json"]),
    ("done", cut, [ROWS]),
    ("done", a_torn_line, [ROWS]),
    ("done", no_text, [ROWS]),
]


@pytest.fixture
def recovers(mortal, whole) -> Callable[[Path], None]:
    """A function that sees that a folder comes right: at once, or once its failed cells are run again."""

    def end(folder: Path) -> None:
        for _ in range(2):
            ended = mortal.ended(command, folder)
            sound = [row.row_id for row in journal_of(folder) if row.status == "ok"]
            found, right = rows_of(folder), rows_of(whole.folder)
            assert {key: found[key] for key in sound} == {key: right[key] for key in sound}, "a false row"
            assert not ended.traceback, ended.said
            if ended.code == 2:
                assert ended.complaint
            if ended.code == 0:
                break
        check_results(folder, whole.folder)

    return end


@pytest.mark.parametrize(("state", "how", "patterns"), TABLE)
def test_what_is_damaged_is_made_again(left, recovers, tmp_path, state, how, patterns) -> None:
    folder = shutil.copytree(left[state], tmp_path / "folder")
    files = [path for pattern in patterns for path in folder.glob(pattern)]
    assert files
    for path in files:
        path.write_bytes(how(path.read_bytes()))
    recovers(folder)


@pytest.mark.slow
@pytest.mark.parametrize("state", ["walked", "finished"])
@pytest.mark.parametrize("seed", range(60))
def test_whichever_bit_of_whichever_file_flips(left, recovers, tmp_path, state, seed) -> None:
    draw, folder = random.Random(f"{state} {seed}"), shutil.copytree(left[state], tmp_path / "folder")
    results = (path for root in (NAME, ".dense") for path in (folder / root).rglob("*"))
    path = draw.choice(sorted(path for path in results if path.is_file() and path.stat().st_size))
    path.write_bytes(flip(path.read_bytes(), draw.randrange(path.stat().st_size), 1 << draw.randrange(8)))
    recovers(folder)


NOTES = [b"5", b"\xff\xfe", b'{"uri": "x", "run": "y"}', b'{"study": "x"}']


def test_damaged_notes_of_what_was_sent_send_no_row_twice(folder, mortal, ends_well) -> None:
    assert mortal.attempt(run_undisturbed, folder)
    notes = folder / NAME / NOTES_NAME
    study, _, *receipts = notes.read_bytes().lstrip().split(b"\n")
    notes.write_bytes(b"\n".join([*NOTES, study, *receipts]))  # one receipt is gone
    ends_well(folder)
