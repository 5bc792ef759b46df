"""The loop of a search: settings are proposed, refused or tried, stopped or measured, and told to Optuna.

Those that cannot be used (a code of 4.5 bits, a size outside the limits) are refused by their numbers alone, told
to the sampler as a broken constraint, and do not count; nor do those that were tried before. The others climb the
ladder (suite/tuning/ladder.py) until the pruner stops them. With several objectives Optuna has no pruners: there a
trial stops when another one with no more bits was better on the same rung by a margin.

Disk: a trial's checkpoint goes once it is measured, unless it is the best so far or on the front; rows stay.
"""

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from suite.cell import Cell
from suite.errors import ConfigError
from suite.progress import without_lines
from suite.results import MANIFEST_NAME
from suite.tuning.candidates import Candidates, Unusable
from suite.tuning.ladder import PROXY, Ladder, Step, Stopped
from suite.tuning.recipe import Tuning
from suite.tuning.space import Space
from suite.tuning.storage import REDUCTION, queue, queue_again, reseed
from suite.tuning.tracked import track_trial
from suite.tuning.trials import (
    BITS,
    CELLS,
    FOLDER,
    QUEUED,
    REASON,
    REPEATS,
    RUNGS,
    best_trials,
    cells_of,
    measured_trials,
    record_of,
)

logger = logging.getLogger(__name__)

MOST_REPEATED = 100
"""Proposals in a row that were tried before, after which there is little left to try."""

MARGIN = 1.1
"""With several objectives: how many times better another trial must be on a rung for this one to stop."""

MOST_UNUSABLE = 500
"""Proposals in a row that cannot be used, after which a search gives up."""


@dataclass
class Loop:
    """What tries settings until enough trials count."""

    study: optuna.Study
    space: Space
    candidates: Candidates
    ladder: Ladder
    tuning: Tuning
    shared: bool  # with processes that have other results folders
    unusable: int = 0  # in a row, as the next
    repeated: int = 0
    lost: bool = False  # whether others took the last trial for dead
    clock: "Clock" = field(init=False)

    def run(self) -> None:
        """Try until enough trials count."""
        self._take_up()
        self.clock = Clock(len(measured_trials(self.study)), self.tuning.trials)
        while len(measured_trials(self.study)) < self.tuning.trials and self.repeated < MOST_REPEATED:
            reseed(self.study, self.tuning)
            try:
                self.study.optimize(self._attempt, n_trials=1, callbacks=[self._over])
            except (UpdateFinishedTrialError, ValueError):  # both are what Optuna says of a trial that is over
                if not self.lost:
                    raise
                logger.info("this process was silent for so long that its trial was queued again")
        if self.repeated:
            logger.info("%d proposals in a row were tried before: the search ends", self.repeated)
        if not best_trials(self.study):
            raise ConfigError(
                f"no trial of {self.study.study_name} was finished: {_last_reason(self.study)}; raise tune.trials"
            )

    def _take_up(self) -> None:
        """Go on where an earlier process was killed: what it had not finished, tidied away or sent to MLflow."""
        queue_again(self.study, self._is_ours)
        trials = self.study.get_trials(deepcopy=False)
        for params in self.space.starts():
            if params not in [trial.user_attrs.get(QUEUED) for trial in trials]:
                queue(self.study, params)
        for trial in measured_trials(self.study):
            if PROXY in trial.user_attrs.get(RUNGS, {}):
                self.ladder.proxies[tuple(trial.user_attrs[CELLS])] = trial.user_attrs[RUNGS][PROXY]
            if self._is_ours(trial):
                self._track(trial)
        self._make_room()

    def _is_ours(self, trial: FrozenTrial) -> bool:
        """Whether it was, or is, a trial of this results folder."""
        return not self.shared or trial.user_attrs.get(FOLDER) == self.ladder.desk.tracker.folder_id

    def _attempt(self, trial: optuna.Trial) -> tuple[float, ...]:
        """One trial -> its objectives, in their order."""
        try:
            trial.set_user_attr(FOLDER, self.ladder.desk.tracker.folder_id)
            return self._try(trial)
        finally:
            states = {each.number: each.state for each in self.study.get_trials(deepcopy=False)}
            self.lost = states[trial.number] != TrialState.RUNNING

    def _try(self, trial: optuna.Trial) -> tuple[float, ...]:
        name, settings = self.space.draw(trial)
        try:
            candidate = self.candidates.of(name, settings)
        except Unusable as error:
            self._refuse(trial, error)
        cells = [self._id(cell) for cell in candidate.cells]
        self._refuse_repeated(trial, cells)
        self.unusable = self.repeated = 0
        trial.set_user_attr(CELLS, cells)
        trial.set_user_attr(BITS, candidate.bits)
        logger.info("trial %d: %s; %.3f bits", trial.number, _words(name, settings), candidate.bits)
        try:
            with without_lines():
                return self._climb(trial, candidate.cells, candidate.bits)
        except Stopped as error:
            trial.set_user_attr(REASON, str(error))
            raise optuna.TrialPruned(str(error)) from None

    def _climb(self, trial: optuna.Trial, cells: Sequence[Cell], bits: float) -> tuple[float, ...]:
        rungs: dict[str, float] = {}
        reported = 0  # windows
        for number, step in enumerate(self.ladder.climb(cells)):
            rungs[step.rung] = step.value
            trial.set_user_attr(RUNGS, rungs)
            if self.tuning.pruner == "wilcoxon":
                reports = list(enumerate(step.windows))[reported:]
                reported = len(step.windows)
            else:
                reports = [(REDUCTION**number, step.value)]
            last = number == len(self.ladder.rungs) - 1
            if self._stops(trial, step, bits, reports) and not last:
                trial.set_user_attr(REASON, f"stopped after {step.rung}")
                raise optuna.TrialPruned(f"stopped after {step.rung}")
        return tuple(step.figures[objective] for objective in self.tuning.objectives)

    def _stops(self, trial: optuna.Trial, step: Step, bits: float, reports: Sequence[tuple[int, float]]) -> bool:
        """Whether a trial is not worth the next rung; `reports` are Optuna's steps and their values."""
        if len(self.tuning.objectives) > 1:
            return self._beaten(trial, step, bits)
        for at, value in reports:
            trial.report(value, at)
        return bool(trial.should_prune())

    def _beaten(self, trial: optuna.Trial, step: Step, bits: float) -> bool:
        if self.tuning.pruner == "none":
            return False
        others = [each for each in measured_trials(self.study) if each.number != trial.number]
        return any(
            each.user_attrs[BITS] <= bits and each.user_attrs[RUNGS][step.rung] * MARGIN < step.value
            for each in others
            if step.rung in each.user_attrs.get(RUNGS, {})
        )

    def _refuse(self, trial: optuna.Trial, error: Unusable) -> None:
        """Tell the sampler. ConfigError when it finds nothing else."""
        self.unusable += 1
        if self.unusable >= MOST_UNUSABLE:
            raise ConfigError(
                f"{self.unusable} proposals in a row cannot be used; the last: {error}; "
                "change methods, tune.bits or match"
            )
        trial.set_constraint("usable", error.excess)
        trial.set_user_attr(REASON, str(error))
        raise optuna.TrialPruned(str(error))

    def _refuse_repeated(self, trial: optuna.Trial, cells: Sequence[str]) -> None:
        """What was tried already teaches nothing; as a stopped trial it makes the sampler look elsewhere.

        So does what another process is at.
        """
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        for each in self.study.get_trials(deepcopy=False, states=states):
            if each.number != trial.number and each.user_attrs.get(CELLS) == cells:
                self.repeated += 1
                trial.set_user_attr(REPEATS, each.number)
                trial.set_user_attr(REASON, f"the same as trial {each.number}")
                raise optuna.TrialPruned

    def _id(self, cell: Cell) -> str:
        return next(job.id for job in self.ladder.stand([cell]).jobs.values() if job.cell == cell)

    def _over(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Say what came of a trial, and make room."""
        if CELLS not in trial.user_attrs:
            logger.debug("trial %d: %s", trial.number, trial.user_attrs.get(REASON))
            return
        self._make_room()
        self._track(trial)
        found = [f"{name} {value:.4g}" for name, value in trial.user_attrs.get(RUNGS, {}).items()]
        best = trial.number in [each.number for each in best_trials(study)]
        came = trial.user_attrs.get(REASON) or ("best so far" if best else "finished")
        logger.info(
            "trial %d: %s; %s",
            *(trial.number, "; ".join([", ".join(found), came] if found else [came])),
            self.clock.words(trial, len(measured_trials(study))),
        )

    def _make_room(self) -> None:
        kept = {cell for each in best_trials(self.study) for cell in each.user_attrs[CELLS]}
        for cell in cells_of(self.study) - kept:
            _drop(self.ladder.bench.folder / "cells" / cell)

    def _track(self, trial: FrozenTrial) -> None:
        """Send one trial that counts to MLflow."""
        record = record_of(trial, self.space, self.tuning.objectives)
        ended = trial.datetime_complete or datetime.now()
        track_trial(
            self.ladder.desk.tracker, self.ladder.bench.recipe, self.study.study_name, record, ended.astimezone()
        )


@dataclass
class Clock:
    """How long a search still takes: for each trial as long as since this process began, whoever did them."""

    before: int  # trials that counted when it began
    asked: int
    began: float = field(default_factory=time.monotonic)

    def words(self, trial: FrozenTrial, count: int) -> str:
        """What a trial took, how many there are, and how long the others will take."""
        took = f"{trial.duration.total_seconds():.1f} s" if trial.duration else "no time"
        left = (time.monotonic() - self.began) / max(1, count - self.before) * (self.asked - count)
        wait = (
            f", about {left / 60:.0f} min left" if left >= 60 else f", about {left:.0f} s left" if left > 0 else ""
        )
        return f"{took}; {count} of {self.asked}{wait}"


def _last_reason(study: optuna.Study) -> str:
    return str(measured_trials(study)[-1].user_attrs.get(REASON))


def _drop(folder: Path) -> None:
    """Delete a cell but for its manifest, which says what its layers went through."""
    if not (folder / MANIFEST_NAME).exists():
        shutil.rmtree(folder, ignore_errors=True)
        return
    for file in folder.iterdir():
        if file.name != MANIFEST_NAME:
            file.unlink()


def _words(name: str, settings: Mapping[str, Any]) -> str:
    return " ".join([name, *(f"{key}={value}" for key, value in settings.items())])
