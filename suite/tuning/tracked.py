"""Trials to MLflow as they end, each a run below the recipe's, with its parameters, rungs and state.

The rows of a trial are runs of their own; the parameter `cells` says which. What the store did not receive,
because it was away or the process was killed, is sent when the search goes on.
"""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from suite.config import Recipe
from suite.schema import digest
from suite.store import TRIAL, Child
from suite.tracking import Tracker

NUMBERS = ("predicted_bits", "kl", "perplexity", "stored_bits", "seconds")
PARAMETERS = ("method", "reason", "cells")


def track_trial(tracker: Tracker, recipe: Recipe, search: str, record: Mapping[str, Any], ended: datetime) -> None:
    """Queue one trial of a search that is over, by its record; returns at once."""
    key = f"{search}/{record['trial']}"
    child = Child(
        key=(TRIAL, key),
        name=f"trial {record['trial']}",
        tags={"search": search, "state": record["state"]},
        params={name: value for name, value in record.items() if value != "" and _is_parameter(name)},
        metrics={name.replace(" ", "_"): value for name, value in record.items() if _is_metric(name, value)},
        ended=ended,
        seconds=record["seconds"],
    )
    said = digest([child.name, child.tags, child.params, child.metrics])
    tracker.submit(key, said, lambda store: store.put(store.parent(recipe.sha256, recipe.name), child))


def _is_parameter(name: str) -> bool:
    return name in PARAMETERS or name.startswith("settings.")


def _is_metric(name: str, value: Any) -> bool:
    return (name in NUMBERS or name.startswith("rung.")) and value is not None and math.isfinite(value)
