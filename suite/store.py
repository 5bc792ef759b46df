"""One MLflow tracking store: how a row becomes a run. Raises when the store is away; tracking.py forgives."""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from suite.masking import masked, masked_in
from suite.results import Row

SQLITE = "sqlite:///"
LOCK_SECONDS = 60.0
ROW, TRIAL, RECIPE = "row_id", "trial_id", "recipe_sha256"  # the tags that tell whose run one is
CELL = "cell_id"
ROW_FILE = "row.json"  # the whole row, among its run's artifacts
WHOLE_FIRST = "attributes.status ASC"  # FAILED and FINISHED before RUNNING, which may have been left half told
LONGEST_VALUE = 500  # what every release of MLflow takes as a parameter
STORE_ERRORS = (
    MlflowException,
    SQLAlchemyError,
    OSError,
)  # OSError: requests' errors, file locks, full disks


@dataclass(frozen=True)
class Child:
    """A run below a recipe's: what it is of, by tag and key, and all that is said of it."""

    key: tuple[str, str]
    name: str
    tags: Mapping[str, str]
    params: Mapping[str, Any]
    metrics: Mapping[str, float]  # those that are no finite number are left out
    ended: datetime
    seconds: float
    failed: bool = False
    curves: Mapping[str, Mapping[int, float]] = field(default_factory=dict)  # values by step
    texts: Mapping[str, str] = field(default_factory=dict)  # by the names of files


class Store:
    """A tracking store that answered. Every method raises one of STORE_ERRORS once it no longer does."""

    def __init__(self, uri: str, study: dict[str, str]) -> None:
        self.study = study
        database = Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None
        # two processes laying out one sqlite file at once leave it broken
        with FileLock(f"{database}.lock", LOCK_SECONDS) if database else nullcontext():
            if database and not database.exists():
                _lay_out(database)
            self.client = MlflowClient(uri)
            self.experiment_id = self._experiment(database)
        self.runs: dict[str, str] = {}  # by row or trial, and the parents by the recipe's sha256
        self.open: set[str] = set()  # parents that took rows and were not closed since
        self._recall()

    def send(self, row: Row, artifacts: list[Path]) -> str:
        """Create or replace the run of one row -> its run id."""
        ended = datetime.fromisoformat(row.created)
        child = Child(
            key=(ROW, row.row_id),
            name=f"{row.label} seed {row.seed} {row.protocol_name}",
            tags=_tags(row),
            params=_params(row),
            metrics=_metrics(row),
            ended=ended,
            seconds=row.cost.seconds if row.cost else 0.0,
            failed=row.status == "failed",
            curves={name: dict(enumerate(curve, _first_epoch(name))) for name, curve in row.curves.items()},
            texts={ROW_FILE: row.model_dump_json(indent=2)},
        )
        return self.put(self.parent(row.recipe_sha256, row.recipe), child, artifacts)

    def put(self, parent_id: str, child: Child, artifacts: Sequence[Path] = ()) -> str:
        """Create or replace a run below a parent, secrets masked in all that it says -> its run id."""
        tag, key = child.key
        if key in self.runs:
            self.client.delete_run(self.runs.pop(key))
        ended = int(child.ended.timestamp() * 1000)
        started = ended - int(child.seconds * 1000)
        tags = {"mlflow.parentRunId": parent_id, "study": self.study["study"], tag: key, **masked_in(child.tags)}
        run = self.client.create_run(self.experiment_id, started, tags, masked(child.name))
        run_id = str(run.info.run_id)
        metrics = [Metric(name, value, ended, 0) for name, value in child.metrics.items()]
        metrics += [
            Metric(name, value, ended, step)
            for name, curve in child.curves.items()
            for step, value in curve.items()
        ]
        metrics = [metric for metric in metrics if math.isfinite(metric.value)]
        params = [Param(name, masked(str(value))[:LONGEST_VALUE]) for name, value in child.params.items()]
        self.client.log_batch(run_id, metrics, params, synchronous=True)
        for name, text in child.texts.items():
            self.client.log_text(run_id, masked(text), name)
        for path in artifacts:
            if path.exists():  # it was there when the row was journalled
                self.client.log_artifact(run_id, str(path))
        self.client.set_terminated(run_id, "FAILED" if child.failed else "FINISHED", ended)
        self.runs[key] = run_id
        return run_id

    def finish(self) -> bool:
        """Close the parent runs that took rows, in this process or in one that was killed -> True.

        A run that a slow server made twice, the client having given up waiting for the first, is one again then.
        """
        self._recall()
        while self.open:
            run = self.client.get_run(next(iter(self.open)))
            ended = max(int(time.time() * 1000), run.info.start_time)  # a clock may have been put back
            self.client.set_terminated(run.info.run_id, end_time=ended)
            self.open.remove(run.info.run_id)
        return True

    def _experiment(self, database: Path | None) -> str:
        found = self.client.get_experiment_by_name(self.study["experiment"])
        if found is not None:
            return str(found.experiment_id)
        location = str(database.parent / "mlartifacts") if database else None
        return str(self.client.create_experiment(self.study["experiment"], location))

    def _recall(self) -> None:
        """Find the study's runs, and delete all but one of those that are of one row, trial or recipe."""
        of_study, token = f"tags.study = '{self.study['study']}'", None
        while True:
            page = self.client.search_runs(
                [self.experiment_id], of_study, order_by=[WHOLE_FIRST], page_token=token
            )
            for run in page:
                tags = run.data.tags
                key = next(tags[key] for key in (ROW, TRIAL, RECIPE) if key in tags)
                if self.runs.setdefault(key, run.info.run_id) != run.info.run_id:
                    self.client.delete_run(run.info.run_id)
                    continue
                if RECIPE in tags and run.info.status == "RUNNING":
                    self.open.add(run.info.run_id)
            if not (token := page.token):
                return

    def parent(self, recipe_sha256: str, name: str) -> str:
        """The run of a recipe, new or as it was left -> its id."""
        if recipe_sha256 not in self.runs:
            tags = {"study": self.study["study"], RECIPE: recipe_sha256}
            run_id = self.client.create_run(self.experiment_id, tags=tags, run_name=name).info.run_id
            if self.study["recipe"]:
                self.client.log_text(run_id, masked(self.study["recipe"]), "recipe.yaml")
            self.runs[recipe_sha256] = run_id
        self.open.add(self.runs[recipe_sha256])
        return self.runs[recipe_sha256]


def _lay_out(database: Path) -> None:
    """Make MLflow's tables under another name: that takes seconds, and a file left halfway is never mended."""
    fresh = database.with_name(f".{database.name}.new")
    for left in database.parent.glob(f"{fresh.name}*"):  # its journal as well, or SQLite would play that back
        left.unlink()
    MlflowClient(f"{SQLITE}{fresh}").search_experiments(max_results=1)
    fresh.rename(database)


def _first_epoch(curve: str) -> int:
    """What is judged begins with the untouched state, epoch 0; what is trained with epoch 1."""
    return 1 if curve.endswith("/train") else 0


def _tags(row: Row) -> dict[str, str]:
    values = {
        CELL: row.cell_id,
        "status": row.status,
        "reason": row.reason,
        "model": row.model,
        "method": row.method,
        "ledger": row.ledger,
        "protocol_id": row.protocol_id,
        "evaluated_tokens": row.evaluated_tokens,
        "protocol": row.protocol,
        "machine": row.environment.get("machine"),
        "mlflow.source.git.commit": row.environment.get("commit"),
    }
    return {name: masked(str(value))[:LONGEST_VALUE] for name, value in values.items() if value is not None}


def _params(row: Row) -> dict[str, Any]:
    names = ("method", "variant", "seed", "statistics_mode", "calibration", "calibration_tokens")
    return {name: getattr(row, name) for name in names} | row.named_settings


def _metrics(row: Row) -> dict[str, float]:
    """Every number of size, quality, task and cost, by the row's own names; KL says that it is in nats."""
    groups = [group.model_dump() for group in (row.size, row.quality, row.cost) if group is not None]
    if row.task:
        groups += [row.task.metrics, {f"{name}_stderr": error for name, error in row.task.stderr.items()}]
    numbers = {name: value for group in groups for name, value in group.items() if isinstance(value, int | float)}
    return {f"{name}_nats" if name.startswith("kl_") else name: float(value) for name, value in numbers.items()}
