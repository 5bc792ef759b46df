"""Trials to MLflow, each a run below the recipe's, with its parameters, rungs and state; stopped ones, too.

The rows of a trial are runs of their own (suite/tracking.py); the parameter `cells` says which. A trial that an
earlier process sent is not sent again, and a store that is away costs a warning: the study has it all.
"""

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from suite.environment import variables
from suite.store import LONGEST_VALUE, STORE_ERRORS
from suite.tracking import MLFLOW_DEFAULTS, masked

logger = logging.getLogger(__name__)

SEARCH, TRIAL = "search", "trial"  # tags
NEVER_TRIED = ("unusable", "repeated")
NUMBERS = ("predicted_bits", "kl", "perplexity", "stored_bits", "seconds")


def track_trials(records: Sequence[Mapping[str, Any]], search: str, experiment: str, uri: str) -> int:
    """Send what the store lacks of a search's trials, below the run of `search`'s recipe -> how many were sent."""
    with warnings.catch_warnings(), variables(MLFLOW_DEFAULTS):
        warnings.filterwarnings("ignore", module=r"(mlflow|alembic|sqlalchemy)\b")
        try:
            return _send(records, search, experiment, MlflowClient(uri))
        except STORE_ERRORS as error:
            first = masked(str(error).partition("\n")[0])
            logger.warning("no answer from %s, trials are not there yet: %s", masked(uri), first)
            return 0


def _send(records: Sequence[Mapping[str, Any]], search: str, experiment: str, client: MlflowClient) -> int:
    found = client.get_experiment_by_name(experiment)
    where = str(found.experiment_id if found else client.create_experiment(experiment))
    sent = 0
    known = {run.data.tags[TRIAL]: run.info.run_id for run in _runs(client, where, f"tags.{SEARCH} = '{search}'")}
    parent = known.pop("", None) or _begin(client, where, search, {TRIAL: ""}, search)
    for record in records:
        if str(record["trial"]) in known or record["state"] in NEVER_TRIED:
            continue
        tags = {TRIAL: str(record["trial"]), "mlflow.parentRunId": parent, "state": str(record["state"])}
        run_id = _begin(client, where, search, tags, f"trial {record['trial']}")
        client.log_batch(run_id, _metrics(record), _params(record), synchronous=True)
        client.set_terminated(run_id, "FAILED" if record["state"] == "failed" else "FINISHED")
        sent += 1
    client.set_terminated(parent)
    return sent


def _begin(client: MlflowClient, where: str, search: str, tags: Mapping[str, str], name: str) -> str:
    return str(client.create_run(where, tags={SEARCH: search, **tags}, run_name=name).info.run_id)


def _runs(client: MlflowClient, where: str, which: str) -> list[Any]:
    found, token = [], None
    while True:
        page = client.search_runs([where], which, page_token=token)
        found += page
        if not (token := page.token):
            return found


def _metrics(record: Mapping[str, Any]) -> list[Metric]:
    numbers = {
        name.replace(" ", "_"): float(value)
        for name, value in record.items()
        if (name in NUMBERS or name.startswith("rung.")) and value is not None
    }
    return [Metric(name, value, 0, 0) for name, value in numbers.items() if math.isfinite(value)]


def _params(record: Mapping[str, Any]) -> list[Param]:
    said = {
        name: value
        for name, value in record.items()
        if name in ("method", "reason", "cells") or name.startswith("settings.")
    }
    return [Param(name, str(value)[:LONGEST_VALUE]) for name, value in said.items() if value != ""]
