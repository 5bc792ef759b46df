"""Where trials are kept, who proposes and who stops them, and what becomes of those that a kill left behind."""

import logging
import warnings
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner, SuccessiveHalvingPruner, WilcoxonPruner
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from suite.errors import ConfigError
from suite.tracking import masked
from suite.tuning.recipe import Tuning

JOURNAL = "optuna.log"
HEARTBEAT_SECONDS, GRACE_SECONDS = 30, 120
REDUCTION = 3
"""Of the trials on a rung that stops some, one in so many goes on."""

MANY_TRIALS = 200
"""NSGA-II needs generations; below so many trials TPE finds better fronts."""

RETRY = "retry_of"  # a trial's attribute: the number of the one that it repeats


def journal_path(folder: Path) -> Path:
    """Where the trials of a results folder are when no other storage was asked for."""
    return folder / JOURNAL


def open_storage(folder: Path, url: str | None) -> BaseStorage:
    """A journal file in the folder, or a team's database. ConfigError when that does not answer.

    A journal needs no heartbeat: only one process works in a folder, so whatever runs in it was left by a kill.
    In a database each process says every half minute that it is alive, and trials of those that fell silent are
    queued again.
    """
    if url is None:
        path = journal_path(folder)
        _close_torn_line(path)
        return JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats, since 2.9
            return RDBStorage(
                url,
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=_repeat,
            )
    except (ImportError, StorageInternalError, SQLAlchemyError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"--storage {masked(url)}: {masked(first)}; give sqlite:///FILE, postgresql://… with its driver "
            "installed, or leave it out for a file in the results folder"
        ) from None


def open_study(storage: BaseStorage, name: str, tuning: Tuning) -> optuna.Study:
    """The study by its name, new or as it was left."""
    logging.getLogger("optuna").setLevel(logging.ERROR)
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=["minimize"] * len(tuning.objectives),
        load_if_exists=True,
        pruner=pruner_of(tuning),
    )
    # begun anew with the same seed, a sampler would propose what it did propose
    study.sampler = sampler_of(tuning, tuning.seed)
    return study


def sampler_of(tuning: Tuning, seed: int) -> BaseSampler:
    """Who proposes settings."""
    several = len(tuning.objectives) > 1
    chosen = tuning.sampler
    if chosen == "auto":
        chosen = "nsga2" if several and tuning.trials >= MANY_TRIALS else "tpe"
    if chosen == "tpe":
        return TPESampler(seed=seed)
    return NSGAIISampler(seed=seed) if chosen == "nsga2" else RandomSampler(seed=seed)


def pruner_of(tuning: Tuning) -> BasePruner:
    """Who stops trials. Hyperband needs three times as many trials as plain halving: it keeps three apart."""
    if tuning.pruner == "none" or len(tuning.objectives) > 1:
        return NopPruner()
    if tuning.pruner == "wilcoxon":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return WilcoxonPruner()
    if tuning.pruner == "halving":
        return SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION)
    most = REDUCTION ** (len(tuning.rungs.windows) + (tuning.rungs.blocks > 0))
    return HyperbandPruner(min_resource=1, max_resource=most, reduction_factor=REDUCTION)


def queue_again(study: optuna.Study, *, alone: bool) -> None:
    """Queue what an error stopped and, where nobody else can be at work on the study, what a kill left running."""
    trials = study.get_trials(deepcopy=False)
    repeated = {trial.user_attrs.get(RETRY) for trial in trials}
    for trial in trials:
        if alone and trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
        elif trial.state != TrialState.FAIL:
            continue
        if trial.number not in repeated:
            _repeat(study, trial)


def _repeat(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a trial's settings once more."""
    study.enqueue_trial(trial.params, user_attrs={RETRY: trial.number})


def _close_torn_line(path: Path) -> None:
    """Drop the end of a journal that a kill cut short: nothing could be read after it."""
    if path.exists():
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with path.open("r+b") as file:
                file.truncate(whole)
