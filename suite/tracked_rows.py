"""Rows back from an MLflow tracking store, as a results directory: reports read them like any others."""

import logging
import re
import textwrap
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts, list_artifacts
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList
from pydantic import ValidationError

from suite.errors import ConfigError, EnvironmentProblem, ResultError
from suite.files import file_name, write_atomically
from suite.masking import masked
from suite.results import JOURNAL_NAME, MANIFEST_NAME, Row
from suite.schema import first_error
from suite.store import CELL, ROW, ROW_FILE, SQLITE, STORE_ERRORS
from suite.tracking import quiet

logger = logging.getLogger(__name__)

AT_ONCE = 8  # downloads; each mostly waits
RECIPE_FILE = re.compile(r"recipe-[0-9a-f]+\.yaml")
PAGE = 1000  # runs, of one answer
EXAMPLE = "params.method = 'wanda' and metrics.perplexity < 50"


def fetch(uri: str, where: str, to: Path) -> None:
    """Write the rows of a store into the directory `to`: results.jsonl, and their recipes and cells' manifests.

    `where` is MLflow's filter of runs, empty for all. Runs that were deleted or replaced are not among them.
    Raises ResultError if the store does not answer or has no such rows, ConfigError for a filter that it cannot
    read, EnvironmentProblem where the database's driver is missing.
    """
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).exists():
        raise ResultError(f"no tracking store at {uri}; MLflow would lay out an empty one")
    with quiet(), _in_one_line(uri, where):
        client = MlflowClient(uri)
        runs = _runs(client, where)
        with_manifest = {run.data.tags.get(CELL): run.info.run_id for run in runs}.values()  # one run of each cell
        with ThreadPoolExecutor(AT_ONCE) as pool:
            rows = [row for row in pool.map(partial(_received, uri, to, with_manifest), runs) if row]
    if not rows:
        fitting = f" that fit --filter {where!r}" if where else ""
        raise ResultError(f"{masked(uri)} has no rows of nowag-bench{fitting}")
    lines = [row.model_dump_json() + "\n" for row in sorted(rows, key=lambda row: (row.created, row.row_id))]
    write_atomically(to / JOURNAL_NAME, "".join(lines).encode())


@contextmanager
def _in_one_line(uri: str, where: str) -> Iterator[None]:
    """What MLflow and its drivers raise as errors of ours, credentials masked."""
    try:
        yield
    except ImportError as error:
        raise EnvironmentProblem(
            f"{masked(uri)} needs the Python module {error.name}, which is not installed"
        ) from error
    except STORE_ERRORS as error:
        reason = textwrap.shorten(masked(str(error)), 300)
        if where and isinstance(error, MlflowException) and error.error_code == "INVALID_PARAMETER_VALUE":
            raise ConfigError(f"--filter is {where!r}: {reason}; for MLflow it is such as {EXAMPLE}") from error
        raise ResultError(f"no rows from {masked(uri)}: {reason}") from error


def _runs(client: MlflowClient, where: str) -> list[Run]:
    """The runs of rows in all experiments."""
    experiments = [each.experiment_id for each in _all(client.search_experiments)]
    fitting = f"tags.{ROW} != ''" + (f" and {where}" if where else "")
    return _all(partial(client.search_runs, experiments, fitting, max_results=PAGE))


def _all(search: Callable[..., PagedList[Any]]) -> list[Any]:
    """Every page of what a search finds."""
    found: list[Any] = []
    token: str | None = None
    while True:
        page = search(page_token=token)
        found += page
        if not (token := page.token):
            return found


def _received(uri: str, to: Path, with_manifest: Collection[str], run: Run) -> Row | None:
    """A run's row, None where it is missing; its recipe goes to disk, and its cell's manifest if it is wanted."""
    run_id, folder = run.info.run_id, run.info.artifact_uri
    there = {Path(file.path).name for file in list_artifacts(artifact_uri=folder, tracking_uri=uri)}
    if ROW_FILE not in there:
        logger.warning("run %s has no %s and is left out", run_id, ROW_FILE)
        return None
    for recipe in (name for name in there if RECIPE_FILE.fullmatch(name) and not (to / name).exists()):
        write_atomically(to / recipe, _downloaded(uri, f"{folder}/{recipe}"))
    if MANIFEST_NAME in there and run_id in with_manifest:
        cell = to / "cells" / file_name(run.data.tags.get(CELL, ""))
        write_atomically(cell / MANIFEST_NAME, _downloaded(uri, f"{folder}/{MANIFEST_NAME}"))
    try:
        return Row.model_validate_json(_downloaded(uri, f"{folder}/{ROW_FILE}"))
    except ValidationError as error:
        raise ResultError(f"run {run_id}: {first_error(error, ROW_FILE)}; it is no row of this release") from error


def _downloaded(uri: str, artifact: str) -> bytes:
    """By the artifact's own address: a run's client would look up the run again, several times."""
    with TemporaryDirectory() as scratch:
        return Path(download_artifacts(artifact_uri=artifact, dst_path=scratch, tracking_uri=uri)).read_bytes()
