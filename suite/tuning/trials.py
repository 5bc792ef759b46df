"""What a study's trials say: which count, which are best, and what is kept of each beside its parameters."""

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from suite.tuning.space import Space

# A trial's attributes: ids of its cells, stored bits per weight, value on each rung, why it has no other, and the
# number of an earlier trial that it is the same as
CELLS, BITS, RUNGS, REASON, REPEATS = "cells", "predicted_bits", "rungs", "reason", "repeats"
# whose trial it is, what it was queued with, and the number of the lost trial that it is in place of
FOLDER, QUEUED, RETRY = "folder_id", "queued", "retry_of"

STATES = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "stopped", TrialState.FAIL: "failed"}


def state_of(trial: FrozenTrial) -> str:
    """finished, stopped, repeated or unusable (both never compressed), failed (its process was), or running."""
    if REPEATS in trial.user_attrs:
        return "repeated"
    if trial.state == TrialState.PRUNED and CELLS not in trial.user_attrs:
        return "unusable"
    return STATES.get(trial.state, "running")


def measured_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Those that count: measured on all rungs, or stopped on the way."""
    over = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return [trial for trial in over if CELLS in trial.user_attrs]


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The best trial, with several objectives those that no other one beats in all; none at first."""
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        return []
    best = study.best_trials if len(study.directions) > 1 else [study.best_trial]
    found: dict[tuple[str, ...], FrozenTrial] = {}  # a choice that came twice is one
    for trial in best:
        found.setdefault(tuple(trial.user_attrs[CELLS]), trial)
    return sorted(found.values(), key=lambda trial: trial.user_attrs[BITS])


def cells_of(study: optuna.Study) -> set[str]:
    """The cells of all trials that are over."""
    return {cell for trial in measured_trials(study) for cell in trial.user_attrs[CELLS]}


def record_of(trial: FrozenTrial, space: Space, objectives: Sequence[str]) -> dict[str, Any]:
    """A trial that is over as plain data: number, state, why, settings, bits, rungs, objectives, seconds."""
    name, settings = space.read(trial.params)
    values = trial.values if trial.state == TrialState.COMPLETE else [None] * len(objectives)
    return {
        "trial": trial.number,
        "state": state_of(trial),
        "reason": trial.user_attrs.get(REASON, ""),
        "method": name,
        **{f"settings.{key}": value for key, value in settings.items()},
        "predicted_bits": trial.user_attrs.get(BITS),
        **{f"rung.{rung}": value for rung, value in trial.user_attrs.get(RUNGS, {}).items()},
        **dict(zip(objectives, values, strict=True)),
        "seconds": trial.duration.total_seconds() if trial.duration else 0.0,
        "cells": " ".join(trial.user_attrs.get(CELLS, ())),
    }
