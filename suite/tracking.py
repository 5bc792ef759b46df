"""Rows to MLflow: one parent run per results directory, one child run per row, sent by a thread of its own.

The journal stays the truth. Beside it `tracking.jsonl` notes what each tracking store has received, so a row
that could not be sent (the server away, the process killed) is simply one without a note: it is sent the next
time the directory is opened, by a resumed run or by `sync`. Nothing here stops the study or makes it wait.
"""

import hashlib
import json
import logging
import os
import shlex
import shutil
import sys
import textwrap
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from suite.environment import variables
from suite.errors import ResultError
from suite.files import alone
from suite.masking import masked
from suite.results import JOURNAL_NAME, MANIFEST_NAME, Journal, Row
from suite.store import SQLITE, STORE_ERRORS, Store

logger = logging.getLogger(__name__)

T = TypeVar("T")

NOTES_NAME = "tracking.jsonl"
EXPERIMENT = "nowag-bench"
RETRY_SECONDS = 60.0  # after a failure the store is left alone this long, so that no two rows wait for it
QUIET = {
    **{"mlflow": logging.WARNING, "alembic": logging.WARNING, "urllib3.connectionpool": logging.ERROR},
    "mlflow.store.db.utils": logging.CRITICAL,  # pages about an error that it raises, too; we tell it in a line
}
MLFLOW_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # two lines a row, with the server's credentials in them
}


def default_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI if the user set it, else a sqlite file in `root`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{root.resolve() / 'mlflow.db'}"


@contextmanager
def quiet() -> Iterator[None]:
    """MLflow without its chatter, its long waits and its telemetry, for the whole process."""
    for name, level in QUIET.items():
        logging.getLogger(name).setLevel(level)
    with warnings.catch_warnings(), variables(MLFLOW_DEFAULTS):
        warnings.filterwarnings("ignore", module=r"(mlflow|alembic|sqlalchemy)\b")
        yield


def page_command(uri: str) -> str:
    """The shell command that opens MLflow's page on this store."""
    python = shlex.quote(sys.executable)
    if uri.startswith(("http://", "https://")):
        return f"{python} -m webbrowser {shlex.quote(masked(uri))}"
    mlflow = "mlflow" if shutil.which("mlflow") else f"{python} -m mlflow"
    return f"{mlflow} ui --backend-store-uri {shlex.quote(masked(uri))}"


def sync(out: Path, uri: str) -> tuple[int, int]:
    """Send what the journal in `out` holds and the store lacks -> (rows sent, rows still pending).

    Raises ResultError if there is no journal, or while a run, which sends its rows itself, is writing to it.
    """
    if not (out / JOURNAL_NAME).exists():
        raise ResultError(f"{out} has no {JOURNAL_NAME}; name the directory that a run wrote its results to")
    with alone(out), Tracker(out, uri) as tracker:
        pass  # entering queues the rows left behind, leaving waits for them
    return tracker.sent, len(tracker.pending())


class Tracker:
    """Sends the rows of one results directory to one tracking store, from one background thread.

    Entering starts the connection (a new sqlite file takes MLflow seconds to lay out) and queues the rows
    that earlier runs left behind; leaving waits until every row is either sent or noted as pending.
    `experiment` and `recipe_text` are remembered in the directory, so that `sync` needs neither.
    """

    def __init__(self, out: Path, uri: str, experiment: str = EXPERIMENT, recipe_text: str = "") -> None:
        self.out, self.uri, self.sent = out, uri, 0
        self.journal = Journal(out / JOURNAL_NAME)
        self._study = {"study": uuid.uuid4().hex, "experiment": experiment, "recipe": masked(recipe_text)}
        self._known = False  # whether the directory's notes have the study
        self._received: dict[str, str] = {}  # digests by row_id
        self._finished = False  # whether the store's parent runs were closed after the last row it received
        self._recall()
        self._store: Store | None = None
        self._silent_until = 0.0
        self._jobs: list[Future[Any]] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.out.mkdir(parents=True, exist_ok=True)
        if not self._known:
            self._append(self._study)
        self._stack.enter_context(quiet())  # here and not in the thread: it is about the whole process
        self._thread = self._stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="tracking"))
        if not self._finished:
            self._submit(self._attempt, lambda store: None)  # connects while the study computes
        for row in self.pending():
            self.record(row)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._thread.shutdown(cancel_futures=True)  # the journal has what is not sent yet
        else:
            self._submit(self._finish)
        self._stack.close()
        for job in self._jobs:
            if not job.cancelled():
                job.result()

    def record(self, row: Row) -> None:
        """Queue one journalled row with its files; returns at once.

        A row the store already holds in this form is skipped; one it holds in another form is replaced.
        """
        files = list(dict.fromkeys(path.resolve() for path in self._files(row) if path.exists()))
        self.submit(row.row_id, row_digest(row), lambda store: store.send(row, files))

    def submit(self, key: str, digest: str, send: Callable[[Store], str]) -> None:
        """Queue one run by its key and a hash of all that it says; returns at once. `send` gives the run's id."""
        self._submit(self._deliver, key, digest, send)

    @property
    def folder_id(self) -> str:
        """Of the results directory, for good and wherever it lies."""
        return self._study["study"]

    def pending(self) -> list[Row]:
        """Rows of the journal that this store has not received in their present form."""
        return [row for row in self.journal.rows() if self._received.get(row.row_id) != row_digest(row)]

    def _files(self, row: Row) -> list[Path]:
        """What lies beside a row: its cell's manifest, its recipe, what a task found on each item."""
        names = (
            f"cells/{row.cell_id}/{MANIFEST_NAME}",
            f"recipe-{row.recipe_sha256[:8]}.yaml",
            f"items/{row.row_id}.jsonl",
        )
        return [self.out / name for name in names if ".." not in name.split("/")]  # a stranger's journal

    def _submit(self, work: Callable[..., object], *arguments: Any) -> None:
        self._jobs.append(self._thread.submit(work, *arguments))

    def _deliver(self, key: str, digest: str, send: Callable[[Store], str]) -> None:
        if self._received.get(key) == digest:
            return
        run_id = self._attempt(send)
        if run_id is not None:
            self.sent += 1
            self._received[key], self._finished = digest, False
            self._append(receipt(self.uri, key, digest, run_id))

    def _finish(self) -> None:
        """Close the parent runs, unless that was done since the store last received a row."""
        if self._received and not self._finished and self._attempt(Store.finish):
            self._append(closing(self.uri))

    def _attempt(self, work: Callable[[Store], T]) -> T | None:
        """What `work` returns; None while the store is away. Anything but the store's errors is a bug."""
        if time.monotonic() < self._silent_until:
            return None
        try:
            self._store = self._store or Store(self.uri, self._study)
            return work(self._store)
        except STORE_ERRORS as error:
            self._store, self._silent_until = None, time.monotonic() + RETRY_SECONDS
            reason = textwrap.shorten(masked(str(error)), 200)
            logger.warning("no answer from %s, rows stay pending: %s", masked(self.uri), reason)
            return None

    def _recall(self) -> None:
        """Take over what the directory's notes say: the study, and what this store has received."""
        for line in self._lines():
            if self._study.keys() <= line.keys() and not self._known:
                self._study, self._known = line, True
            elif line.get("uri") == masked(self.uri) and (line.get("run") or line.get("finished")):
                self._finished = "finished" in line
                if not self._finished and "row_id" in line:
                    self._received[line["row_id"]] = line.get("digest", "")

    def _lines(self) -> Iterator[dict[str, Any]]:
        path = self.out / NOTES_NAME
        for line in path.read_bytes().split(b"\n") if path.exists() else ():
            try:
                note = json.loads(line.decode())
            except ValueError:
                continue  # blank, cut short by a kill or damaged: its row counts as pending
            if isinstance(note, dict):
                yield note

    def _append(self, line: dict[str, Any]) -> None:
        with (self.out / NOTES_NAME).open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(line))  # the newline first: it closes off a line cut short


def receipt(uri: str, key: str, digest: str, run_id: str) -> dict[str, str]:
    """The note that a store has received a row, or another run's key, in its present form."""
    return {"uri": masked(uri), "row_id": key, "digest": digest, "run": run_id}


def closing(uri: str) -> dict[str, Any]:
    """The note that the parent runs of all rows received so far were closed."""
    return {"uri": masked(uri), "finished": True}


def row_digest(row: Row) -> str:
    """A hash of all that a row says."""
    return hashlib.sha256(row.model_dump_json().encode()).hexdigest()
