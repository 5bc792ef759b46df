"""A run that is killed while it measures, dense model and cells, windows and tasks, ends as one that never was."""

import json
import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import NAME, RECIPE, Mortal, check, kept, run_undisturbed

from suite.results import JOURNAL_NAME
from suite.tracking import NOTES_NAME

ITEMS, WORDS = 6, "river house stone king sea wise old new".split()


@dataclass(frozen=True)
class Measured:
    """A run that nobody disturbed, the same with cells and nothing measured, and how long measuring takes."""

    whole: Path
    unmeasured: Path
    seconds: float


def write_items(folder: Path) -> None:
    """A few items of a zero-shot task."""
    draw, lines = random.Random(0), []
    for number in range(ITEMS):
        choices = {"text": [" ".join(draw.choices(WORDS, k=3)) for _ in "ABCD"], "label": list("ABCD")}
        question = " ".join(draw.choices(WORDS, k=6))
        lines.append(json.dumps({"question": question, "choices": choices, "answerKey": "ABCD"[number % 4]}))
    (folder / "arc_easy.jsonl").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def measured(mortal: Mortal, whole, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """The run with a task besides."""
    scratch = tmp_path_factory.mktemp("measured")
    write_items(scratch)
    folder = whole.fresh(scratch / "whole")
    asked = json.loads((folder / RECIPE).read_text())
    asked["tasks"] = {"names": ["arc_easy"], "folder": str(scratch), "batch_size": 2}
    (folder / RECIPE).write_text(json.dumps(asked))
    unmeasured = scratch / "unmeasured"
    shutil.copytree(folder, unmeasured)
    assert mortal.attempt(run_undisturbed, folder)
    shutil.copytree(folder / NAME, unmeasured / NAME)
    for name in (JOURNAL_NAME, NOTES_NAME):
        (unmeasured / NAME / name).unlink()
    shutil.rmtree(unmeasured / NAME / "items")
    again = shutil.copytree(unmeasured, scratch / "again")
    begun = time.monotonic()
    assert mortal.attempt(run_undisturbed, again)
    return Measured(folder, unmeasured, time.monotonic() - begun)


@pytest.mark.parametrize(("seed", "kills"), [(0, 4), pytest.param(1, 60, marks=pytest.mark.slow)])
def test_measuring_killed_again_and_again_ends_as_if_it_never_was(mortal, measured, tmp_path, seed, kills) -> None:
    draw, number = random.Random(seed), 0
    while kills:
        number += 1
        folder, done = shutil.copytree(measured.unmeasured, tmp_path / str(number)), False
        while not done:
            times, lines = kept(folder)
            after = measured.seconds * draw.uniform(0.3, 0.9) if kills else None
            done = mortal.attempt(run_undisturbed, folder, seconds=after)
            kills -= not done
            now, later = kept(folder)
            assert times.items() <= now.items() and later.startswith(lines), f"seed {seed}, round {number}"
        check(folder, measured.whole)
        assert not [*(folder / NAME).rglob("*.part")], "half a file"
