"""Runs that are disturbed, and what they leave: work in children that may be killed, and folders to compare."""

import inspect
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 - imported here, it need not be in each attempt
import transformers.models.llama.modeling_llama  # noqa: F401

from suite import cli
from suite.config import Recipe
from suite.files import file_sha256
from suite.results import JOURNAL_NAME, Journal, Row
from suite.runner import Options, Outcome, run

NAME, STORE, RECIPE = "disturbed", "mlflow.db", "recipe.json"
VARYING = {"cost", "created", "environment"}


@dataclass(frozen=True)
class Ended:
    """How an attempt ended: its exit status, None if it was killed, and what it said."""

    code: int | None
    said: str

    @property
    def traceback(self) -> bool:
        """Whether something surfaced that is a bug."""
        return "Traceback" in self.said

    @property
    def complaint(self) -> str:
        """The one line of a command that the user has to mend something for; AssertionError if it is otherwise."""
        lines = [line for line in self.said.splitlines() if line.startswith("nowag-bench: ")]
        assert self.code == 2 and len(lines) == 1 and not self.traceback, self.said
        return lines[0]


class Mortal:
    """Attempts at work in children of one process that has imported everything (`zygote.py`).

    The work is a function at the top of a file, called with paths. An attempt may be killed at any instant.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self._zygote = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )

    def attempt(self, work: Callable[..., object], *paths: Path, seconds: float | None = None) -> bool:
        """Whether the work was done before it was killed. AssertionError, with what it said, if it failed."""
        ended = self.ended(work, *paths, seconds=seconds)
        assert not ended.code, ended.said
        return ended.code == 0

    def ended(self, work: Callable[..., object], *paths: Path | str, seconds: float | None = None) -> Ended:
        """How the work ended, which was killed once the seconds were over."""
        request = [inspect.getfile(work), work.__name__, [str(path) for path in paths], seconds, str(self.log)]
        self._zygote.stdin.write(f"{json.dumps(request)}\n")
        self._zygote.stdin.flush()
        status = int(self._zygote.stdout.readline())
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        return Ended(None if killed else os.waitstatus_to_exitcode(status), self.log.read_text(errors="replace"))

    def close(self) -> None:
        """End the process."""
        self._zygote.communicate()


def run_recipe(folder: Path) -> Outcome:
    """The recipe in a folder, run into the same folder."""
    return run(Recipe.model_validate_json((folder / RECIPE).read_text()), Options(folder, True, "cpu"))


def run_undisturbed(folder: Path) -> None:
    """Run it to the end, with nothing failed and all rows tracked."""
    outcome = run_recipe(folder)
    assert [row.status for row in outcome.rows] == ["ok"] * len(outcome.rows) and not outcome.untracked


def command(folder: Path) -> None:
    """Run it as the command line does; exit status 1 when a cell failed."""
    as_command(lambda: sys.exit(any(row.status == "failed" for row in run_recipe(folder).rows)))


def as_command(work: Callable[[], object]) -> None:
    """Do what the command line would, which answers what a user can mend with one line and exit status 2."""
    cli.app = lambda **_: work()
    cli.main()


def lay_out(folder: Path) -> None:
    """MLflow's tables in a file of their own: that takes seconds."""
    mlflow.MlflowClient(f"sqlite:///{folder / STORE}").search_experiments(max_results=1)


def fresh(folder: Path, recipe: Path, store: Path | None = None) -> Path:
    """A folder to run a recipe in, with MLflow's tables if they are given."""
    folder.mkdir()
    shutil.copy(recipe, folder / RECIPE)
    if store:
        shutil.copy(store, folder / STORE)
    return folder


def journal_of(folder: Path) -> list[Row]:
    return Journal(folder / NAME / JOURNAL_NAME).rows()


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    """What rows say, but for what differs from run to run."""
    return {row.row_id: row.model_dump(exclude=VARYING) for row in journal_of(folder)}


def shards_of(folder: Path) -> list[Path]:
    return sorted((folder / NAME / "cells").rglob("block_*.safetensors"))


def contents(folder: Path) -> dict[str, str]:
    """Of every shard and every ledger entry."""
    files = (*shards_of(folder), *(folder / NAME).glob("ledger/*"))
    return {str(path.relative_to(folder)): file_sha256(path) for path in files}


def kept(folder: Path) -> tuple[dict[Path, int], str]:
    """What no later attempt may touch: shards, manifests, the dense model's windows, lines of the journal."""
    finished = [*shards_of(folder), *folder.glob(f"{NAME}/cells/*/manifest.json")]
    finished += folder.rglob("window_*.safetensors")
    journal = folder / NAME / JOURNAL_NAME
    text = journal.read_text() if journal.exists() else ""
    return {path: path.stat().st_mtime_ns for path in finished}, text[: text.rfind("\n") + 1]


def tracked(folder: Path) -> dict[str, set[str]]:
    """What MLflow shows: for each run, by its row, the names of its files."""
    with sqlite3.connect(folder / STORE) as database:
        query = (
            "select value, artifact_uri from runs join tags using (run_uuid) "
            "where key = 'row_id' and lifecycle_stage = 'active'"
        )
        found = database.execute(query).fetchall()
    assert len(found) == len(dict(found)), "a row has two runs"
    return {row_id: {path.name for path in Path(uri).iterdir()} for row_id, uri in found}


def parents(folder: Path) -> list[str]:
    """The states of the runs that stand for a recipe."""
    with sqlite3.connect(folder / STORE) as database:
        query = "select status from runs join tags using (run_uuid) where key = 'recipe_sha256'"
        return [status for (status,) in database.execute(query)]


def check_results(folder: Path, whole: Path) -> None:
    """Rows, shards and ledger are as if nobody had disturbed the run."""
    assert rows_of(folder) == rows_of(whole)
    assert contents(folder) == contents(whole)


def check(folder: Path, whole: Path) -> None:
    """The folder is as if nobody had disturbed the run, as nobody did in the other."""
    check_results(folder, whole)
    lines = [json.loads(line)["row_id"] for line in (folder / NAME / JOURNAL_NAME).read_text().splitlines()]
    assert len(lines) == len(set(lines))
    assert tracked(folder) == tracked(whole) and parents(folder) == ["FINISHED"]
