"""Trials as plain records for tables, figures and MLflow, and which settings mattered."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.importance import get_param_importances
from optuna.trial import FrozenTrial, TrialState, create_trial

from suite.tuning.ladder import PROXY
from suite.tuning.recipe import Tuning
from suite.tuning.search import Searched
from suite.tuning.trials import BITS, CELLS, REASON, RUNGS, best_trials, measured_trials, state_of

LEAST_TRIALS = 8
"""Trials without which nothing is said of importance."""


def records(searched: Searched, tuning: Tuning) -> list[dict[str, Any]]:
    """One for each trial that is over: number, state, why, settings, bits, rungs, objectives, seconds."""
    best = {trial.number for trial in best_trials(searched.study)}
    found: list[dict[str, Any]] = []
    for trial in searched.study.get_trials(deepcopy=False):
        if not trial.state.is_finished():
            continue
        name, settings = searched.space.read(trial.params)
        values = trial.values if trial.state == TrialState.COMPLETE else [None] * len(tuning.objectives)
        found.append(
            {
                "trial": trial.number,
                "state": state_of(trial),
                "best": trial.number in best,
                "reason": trial.user_attrs.get(REASON, ""),
                "method": name,
                **{f"settings.{key}": value for key, value in settings.items()},
                "predicted_bits": trial.user_attrs.get(BITS),
                **{f"rung.{rung}": value for rung, value in trial.user_attrs.get(RUNGS, {}).items()},
                **dict(zip(tuning.objectives, values, strict=True)),
                "seconds": trial.duration.total_seconds() if trial.duration else None,
                "cells": " ".join(trial.user_attrs.get(CELLS, ())),
            }
        )
    return found


def importances(searched: Searched, tuning: Tuning) -> dict[str, dict[str, float]]:
    """The share that each setting has in what decides: PED-ANOVA (arXiv:2304.10255).

    By the proxy, which every trial has, and by the first objective over those that were finished; a measure that
    fewer than LEAST_TRIALS have is left out.
    """
    trials = measured_trials(searched.study)
    values = {
        PROXY: {each.number: each.user_attrs.get(RUNGS, {}).get(PROXY) for each in trials},
        tuning.objectives[0]: {
            each.number: each.values[0] for each in trials if each.state == TrialState.COMPLETE
        },
    }
    found = {name: _importance(trials, each) for name, each in values.items()}
    return {name: shares for name, shares in found.items() if shares}


def _importance(trials: Sequence[FrozenTrial], values: Mapping[int, float | None]) -> dict[str, float]:
    """Optuna knows it of finished trials alone, so those with a value are put down as such in a study apart."""
    known = [
        create_trial(params=each.params, distributions=each.distributions, value=values[each.number])
        for each in trials
        if values.get(each.number) is not None
    ]
    if len(known) < LEAST_TRIALS:
        return {}
    apart = optuna.create_study()
    apart.add_trials(known)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return dict(get_param_importances(apart))
