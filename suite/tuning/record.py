"""Trials as plain records for tables, figures and MLflow, and which settings mattered."""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState, create_trial

from suite.tuning.ladder import PROXY
from suite.tuning.recipe import Tuning
from suite.tuning.search import Searched
from suite.tuning.trials import RUNGS, best_trials, measured_trials, record_of

LEAST_TRIALS = 8
"""Trials without which nothing is said of importance."""


def records(searched: Searched, tuning: Tuning) -> list[dict[str, Any]]:
    """One for each trial that is over, and whether it is one of the best."""
    best = {trial.number for trial in best_trials(searched.study)}
    over = [trial for trial in searched.study.get_trials(deepcopy=False) if trial.state.is_finished()]
    return [
        {"best": trial.number in best, **record_of(trial, searched.space, tuning.objectives)} for trial in over
    ]


def importances(searched: Searched, tuning: Tuning) -> dict[str, dict[str, float]]:
    """The share of the variance that each setting explains: functional ANOVA over a random forest (fANOVA).

    Optuna's default, PED-ANOVA, asks what the best tenth have in common; of 20 trials those are two, and agree in
    whatever a continuous setting happens to be.

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
    found = get_param_importances(apart, evaluator=FanovaImportanceEvaluator(seed=0))
    return {name: float(share) for name, share in found.items()}
