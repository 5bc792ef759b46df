"""Where trials are kept, who proposes and who stops them, and what becomes of those that a kill left behind."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from numpy.random import SeedSequence
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner, SuccessiveHalvingPruner, WilcoxonPruner
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from suite.errors import ConfigError, EnvironmentProblem
from suite.masking import masked
from suite.tuning.recipe import Tuning
from suite.tuning.trials import CELLS, QUEUED, RETRY

JOURNAL = "optuna.log"
HEARTBEAT_SECONDS, GRACE_SECONDS = 30, 120
REDUCTION = 3
"""Of the trials on a rung that stops some, one in so many goes on."""

MANY_TRIALS = 200
"""NSGA-II needs generations; below so many trials TPE finds better fronts."""


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
        for left in folder.glob(f"{JOURNAL}.lock*"):  # Optuna would wait half a minute for a process that is gone
            left.unlink()
        _close_torn_line(path)
        return JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
    try:
        try:
            return _database(url)
        except (StorageInternalError, SQLAlchemyError):
            return _database(url)  # another process was laying out the tables at the same moment
    except (ImportError, StorageInternalError, SQLAlchemyError, ValueError) as error:
        raise ConfigError(
            f"--storage {masked(url)}: {_first_line(error)}; give sqlite:///FILE, postgresql://… with its driver "
            "installed, or leave it out for a file in the results folder"
        ) from None


def _database(url: str) -> RDBStorage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats, since 2.9
        return RDBStorage(
            url,
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=GRACE_SECONDS,
            heartbeat_stale_trial_callback=_repeat,
        )


@contextmanager
def answering(url: str | None) -> Iterator[None]:
    """EnvironmentProblem when a team's database goes away inside."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        raise EnvironmentProblem(
            f"--storage {masked(url or JOURNAL)}: {_first_line(error)}; started again, the search goes "
            "on where it was"
        ) from None


def _first_line(error: Exception) -> str:
    """What went wrong, below whatever was raised because of it, without passwords."""
    while error.__cause__ is not None and isinstance(error.__cause__, SQLAlchemyError):
        error = error.__cause__
    return masked(str(error).strip().partition("\n")[0]) or type(error).__name__


def open_study(storage: BaseStorage, name: str, tuning: Tuning) -> optuna.Study:
    """The study by its name, new or as it was left."""
    logging.getLogger("optuna").setLevel(logging.ERROR)
    return optuna.create_study(
        storage=storage,
        study_name=name,
        directions=["minimize"] * len(tuning.objectives),
        load_if_exists=True,
        pruner=pruner_of(tuning),
    )


def reseed(study: optuna.Study, tuning: Tuning) -> None:
    """Let the next proposal depend on the trials so far alone, not on what this process proposed before.

    So a search that was killed goes on as if it had not been. Lost trials do not count: they are tried again.
    """
    lost = (TrialState.FAIL, TrialState.WAITING)
    count = sum(trial.state not in lost for trial in study.get_trials(deepcopy=False))
    study.sampler = sampler_of(tuning, int(SeedSequence((tuning.seed, count)).generate_state(1)[0]))


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


def queue(study: optuna.Study, params: Mapping[str, Any], **attributes: int) -> None:
    """Have these parameters tried; those of the space that are not among them are left to the sampler."""
    study.enqueue_trial(dict(params), user_attrs={QUEUED: dict(params), **attributes})


def queue_again(study: optuna.Study, ours: Callable[[FrozenTrial], bool]) -> None:
    """Queue what an error stopped and, of `ours`, what a kill left running: this process is not at it."""
    trials = study.get_trials(deepcopy=False)
    repeated = {trial.user_attrs.get(RETRY) for trial in trials}
    for trial in trials:
        if trial.state == TrialState.RUNNING and ours(trial):
            study.tell(trial.number, state=TrialState.FAIL)
        elif trial.state != TrialState.FAIL:
            continue
        if trial.number not in repeated:
            _repeat(study, trial)


def _repeat(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a trial's settings once more. Those that were not all chosen yet the sampler proposes again."""
    params = trial.params if CELLS in trial.user_attrs else trial.user_attrs.get(QUEUED)
    if params is not None:
        queue(study, params, **{RETRY: trial.number})


def _close_torn_line(path: Path) -> None:
    """Drop the end of a journal that a kill cut short: nothing could be read after it."""
    if path.exists():
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with path.open("r+b") as file:
                file.truncate(whole)
